"""The public methods that enqueue jobs, and their checks."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from odoo import api, models
from odoo.exceptions import UserError
from odoo.tools.misc import split_every

from ..service.execution import Execution, Report
from ..tools.encoding import describe, encode
from ..tools.options import Options, clean_text, is_text
from ..tools.target import caller_stack, check_target
from .ir_async_channel import root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

_logger = logging.getLogger(__name__)

OPTIONS = 'ir_async_options'  # key in the context of `ir.async` itself

# Entries of the context that a job does not get, as they describe this process, request or transaction. Entries that
# describe the work stay: `lang`, `tz`, `allowed_company_ids`, `active_ids`, `default_…`, `tracking_disable`. So does
# `cron_id`, as Odoo's own cleanup refuses to run without it.
PROCESS_CONTEXT = frozenset({
    'async_job_id',  # the id of the enqueuing job
    OPTIONS,  # the options of this very call
    # a run of a scheduled action
    'cron_end_time',  # by the clock of this process
    'ir_cron_progress_id',  # the run's own progress, which a job must not write
    # a module that is being installed, upgraded or uninstalled
    'install_mode',  # checks are left to the end of the installation
    'install_module', 'install_filename', 'install_xmlid',  # the record of a data file that is being loaded
    'noupdate',  # the flag of that data file
    'module',  # the module whose data or translations are being loaded
    '_force_unlink',  # lifts a ban on deletion while a module is uninstalled
    # an import
    'import_file',  # the new records come from a file, so notifications are left out
    'import_flush', 'import_cache',  # functions and caches of the running import
    'import_skip_records', 'import_set_empty_fields', 'name_create_enabled_fields', 'import_options',  # how cells are read
    '_import_current_module',  # the module of the external IDs in the file
    # a form that is being edited
    'onchange_self', 'recursive_onchanges', 'foreign_record_to_create',  # the unsaved record
    # the form of the answer to this request
    'bin_size',  # files read as their sizes
    'check_translations', 'edit_translations', 'inherit_branding', 'inherit_branding_auto',  # marks for the website's editor
    '_qweb_error_path_xml',  # the template that is being rendered
})  # fmt: skip
PROCESS_CONTEXT_PREFIXES = (
    'bin_size_',  # one file field read as its size
    '__',  # an unfinished operation of Odoo: a copy, a sort, a template
)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.private
    def with_options(self, **options: Any) -> Self:
        """Return this model with options for the jobs that it enqueues.

        :param int priority: lower runs first, ties in the order of creation; 10 by default
        :param datetime.datetime at: the job does not start before this date, in UTC
        :param delay: the job does not start before so many seconds from now: a number or a ``timedelta``
        :param int max_attempts: how many times the method may raise before the job fails; 1 by default
        :param retry_delay: seconds between two attempts, or a list of them, whose last entry is for all further ones;
            by default 10 seconds to an hour, doubled each time, with jitter
        :param float timeout: seconds that the method may run, at most the server's ``limit_time_real``
        :param str channel: the channel whose limits apply, see ``ir.async.channel``
        :param str key: while a job of this key is waiting, created or processing, ``call`` returns it; keys of ``call`` are
            global in the database, those of ``call_notify`` are per user
        :param str key_until: ``'end'``, the default: the job has its key until it has ended; ``'start'``: until it begins, so
            that a call meanwhile makes a second job
        :param str on_duplicate: if ``call`` finds a queued job of its key, ``'keep'``, the default, leaves it as it is;
            ``'replace'`` gives it the target, arguments, priority and date of the new call. A job that waits for others
            or runs is never replaced. A call with ``after`` that would replace a queued job is an error.
        :param after: jobs that must have ended well first: records of ``ir.async``, of this transaction or saved
        :param int chunk_size: enqueue one job for each so many records of the target, and return them all
        :return: the model ``ir.async``
        :raises TypeError: if an option is unknown, or does not accept its value
        """
        return self.with_context(**{OPTIONS: self._options().update(options)})

    def _options(self) -> Options:
        options = self.env.context.get(OPTIONS)
        return options if isinstance(options, Options) else Options()

    @api.private
    def call(self, target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Self:
        """Enqueue a call of ``target(*args, **kwargs)``, which a worker process runs once this transaction is committed.

        The method runs in a new transaction with the recordset, user, superuser mode and context of ``target``. The job
        belongs to the user of ``target``. If this transaction is rolled back, there is no job.

        As for :class:`threading.Thread`, ``call(target, args=[…], kwargs={…})`` works too, unless ``target`` has parameters
        of these names.

        :param target: a method bound to a recordset; the method may be private, the recordset empty
        :param args: positional arguments: JSON types, recordsets, datetime, date, Decimal, bytes, tuples and sets
        :param kwargs: keyword arguments, of the same types
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
        :raises TypeError: if ``target`` is no such method or does not take these arguments, or if an argument
            cannot be stored; the message names its path, as in ``args[1]['when']``
        :raises odoo.exceptions.UserError: if the records of ``target`` are not saved yet
        """
        return self._enqueue(target, args, kwargs)

    @api.private
    def call_notify(self, description: str | None, target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Self:
        """Do as :meth:`call`, and notify the user of ``target`` of every change of the job's state.

        :param str | None description: the job's name in the list of the user; falsy: not listed, but its changes are sent
        :param target: as for :meth:`call`
        :param args: as for :meth:`call`
        :param kwargs: as for :meth:`call`
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
        :raises TypeError: as :meth:`call`, and if ``description`` is not a text
        :raises odoo.exceptions.UserError: as :meth:`call`
        """
        if callable(description):
            given = describe(description)  # type: ignore[unreachable]  # the caller has forgotten the description
            msg = f"call_notify() takes a description first, then the method; got {given}"
            raise TypeError(msg)
        if description and not is_text(str(description)):
            msg = f"the description cannot be stored: {describe(description)}"
            raise TypeError(msg)
        return self._enqueue(target, args, kwargs, name=str(description) if description else None, notify=True)

    @api.private
    def current(self) -> Self:
        """Return the job that is running this code.

        :return: a record of ``ir.async``, empty outside of a job
        """
        running = Execution.get(self.env.cr)
        return self._plain().browse([running.job.id] if running else [])

    @api.private
    def report_progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report the progress of the running job. The user sees it at once, although the transaction of the job is open.

        Reports cost next to nothing: only the last one is shown, a few times a second.
        Outside of a job, nothing happens.

        :param float done: how much is done
        :param float | None total: how much there is to do, if known
        :param str | None message: a text for the user, such as the current step
        :raises TypeError: if ``done`` or ``total`` is not a number
        """
        for name, value in (('done', done), ('total', 0 if total is None else total)):
            if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:  # nor NaN
                msg = f"{name} must be a finite number, not {describe(value)}"
                raise TypeError(msg)
        if running := Execution.get(self.env.cr):
            running.progress = Report(
                float(done), None if total is None else float(total), message and clean_text(str(message))
            )

    def _plain(self) -> Self:
        """Return this model without sudo and without options, for the caller."""
        context = {key: value for key, value in self.env.context.items() if key != OPTIONS}
        return self.sudo(False).with_context(context)

    def _enqueue(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        notify: bool = False,
    ) -> Self:
        records, method, args, kwargs = check_target(target, args, kwargs)
        if not all(type(id_) is int for id_ in records._ids):
            raise UserError(self.env._("Save %(records)s first. Background jobs need saved records.", records=records))
        env = records.env
        # Enqueue the job in the transaction of the target, even if this model has another one.
        model = self if self.env.cr is env.cr else env[self._name].with_context(**{OPTIONS: self._options()})
        options = model._options()
        options.check_partners()
        if options.after and options.after.env.cr.dbname != env.cr.dbname:
            msg = f"option after takes jobs of the database of the target, not {describe(options.after)} of another one"
            raise TypeError(msg)
        running = Execution.get(env.cr)
        values = {
            'state': 'waiting' if options.after else 'created',
            'name': name,
            'notify': notify,
            'res_model': records._name,
            'res_ids': None,
            'method': method,
            'args': encode(list(args), 'args', env.cr.dbname),
            'kwargs': encode(kwargs, 'kwargs', env.cr.dbname),
            'user_id': env.uid,
            'su': env.su,
            'context': _encode_context(env.context, env.cr.dbname),
            'parent_id': running and running.job.id,
            'stack': json.dumps(caller_stack(), separators=(',', ':')),
            'priority': options.priority,
            'date_scheduled': options.at,
            'max_attempts': options.max_attempts,
            'retry_delay': None if options.retry_delay is None else json.dumps(options.retry_delay),
            'timeout': options.timeout,
            'channel': options.channel,
            'limited': root_of(options.channel) in model.env['ir.async.channel']._limited_names(),
            'key': options.key,
            'key_until': options.key and options.key_until,
        }
        chunks = split_every(options.chunk_size, records._ids) if options.chunk_size else [records._ids]
        return model._plain()._add_call(values, [json.dumps(chunk) for chunk in chunks], options)


def _encode_context(context: Mapping[str, Any], dbname: str) -> str:
    """Return the context as JSON text, without the entries that only this process, request or transaction understands."""
    context = {
        key: value
        for key, value in context.items()
        if key not in PROCESS_CONTEXT and not str(key).startswith(PROCESS_CONTEXT_PREFIXES)
    }
    try:
        return encode(context, 'context', dbname)
    except TypeError:
        for key, value in list(context.items()):
            try:
                encode({key: value}, 'context', dbname)
            except TypeError as exc:
                _logger.debug("An entry of the context is not passed on to the job: %s", exc)
                del context[key]
    return encode(context, 'context', dbname)
