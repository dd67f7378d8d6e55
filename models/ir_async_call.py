"""Enqueue: the public methods, and what they check."""
from __future__ import annotations

import json
import logging
import sys

from odoo import api, models
from odoo.exceptions import UserError
from odoo.tools.misc import split_every

from ..service.execution import Execution
from ..tools.encoding import describe, encode
from ..tools.options import Options, clean_text, is_text
from ..tools.target import caller_stack, check_target

_logger = logging.getLogger(__name__)

OPTIONS = 'ir_async_options'  # key in the context of `ir.async` itself

# Entries of a context that a job does not get. What says how or for whom something is done stays: `lang`, `tz`,
# `allowed_company_ids`, `active_ids`, `default_…`, `tracking_disable`, and also `cron_id`, without which Odoo's
# own cleanup refuses to run.
PROCESS_CONTEXT = frozenset({
    'async_job_id',  # the job that enqueues; the new one has an id of its own
    OPTIONS,  # the options of this very call
    # a run of a scheduled action
    'cron_end_time',  # a reading of this process's clock
    'ir_cron_progress_id',  # the run's own progress, which a job must not write
    # a module that is being installed, upgraded or uninstalled
    'install_mode',  # checks are left to the end of the installation
    'install_module', 'install_filename', 'install_xmlid',  # the record of a data file that is being loaded
    'noupdate',  # the flag of that data file
    'module',  # the module whose data or translations are being loaded
    '_force_unlink',  # a module is being uninstalled: what must not be deleted may be
    # an import
    'import_file',  # what is created comes from a file, so notifications are left out
    'import_flush', 'import_cache',  # functions and caches of the import that is running
    'import_skip_records', 'import_set_empty_fields', 'name_create_enabled_fields', 'import_options',  # how cells are read
    '_import_current_module',  # the module of the external IDs in the file
    # a form that is being edited
    'onchange_self', 'recursive_onchanges', 'foreign_record_to_create',  # the record that is being made up
    # how the answer to this request is to look
    'bin_size',  # files are read as their sizes
    'check_translations', 'edit_translations', 'inherit_branding', 'inherit_branding_auto',  # pages are marked for the website's editor
    '_qweb_error_path_xml',  # the template that is being rendered
})
PROCESS_CONTEXT_PREFIXES = (
    'bin_size_',  # one file field is read as its size
    '__',  # what Odoo is in the middle of: a copy, a sort, a template
)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.private
    def with_options(self, **options):
        """Return this model with options for the jobs that are called with it.

        :param int priority: lower runs first, ties in the order of creation; 10 by default
        :param datetime.datetime at: not before that date, in UTC
        :param delay: not before that many seconds, a number or a ``timedelta``, from now
        :param int max_attempts: how many times the method is tried when it raises; 1 by default
        :param retry_delay: seconds between two tries, or a list of them, the last of which is for all further ones;
            by default 10 seconds to an hour, doubled each time, with jitter
        :param float timeout: seconds that the method may run, at most the server's ``limit_time_real``
        :param str channel: the channel, whose limits apply, see ``ir.async.channel``
        :param str key: while a job of this key is waiting, created or processing, ``call`` returns that one; keys of
            ``call`` are global in the database, those of ``call_notify`` are per user
        :param str key_until: ``'end'``: the job has its key until it has ended, which is the default; ``'start'``: until
            it begins, so that a call meanwhile makes a second job
        :param str on_duplicate: when ``call`` finds a queued job of its key: ``'keep'`` leaves it as it is, which is the
            default; ``'replace'`` gives it the target, arguments, priority and date of the new call. A job that waits
            for others or runs is never replaced.
            No queued job is replaced by a call with ``after``: that is an error.
        :param after: jobs, records of ``ir.async``, that must have ended well first: of this transaction, or saved
        :param int chunk_size: one job for so many records of the target each, all of which are returned
        :return: the model ``ir.async``
        :raises TypeError: when an option is unknown, or its value is not what it takes
        """
        return self.with_context(**{OPTIONS: self._options().update(options)})

    def _options(self):
        options = self.env.context.get(OPTIONS)
        return options if isinstance(options, Options) else Options()

    @api.private
    def call(self, target, /, *args, **kwargs):
        """Have a worker process call ``target(*args, **kwargs)``, once this transaction is committed.

        The method runs in a new transaction with the recordset, user, superuser mode and context of ``target``,
        which also decides whose job it is. If this transaction is rolled back, there is no job.

        ``call(target, args=[…], kwargs={…})`` works too, as it does for :class:`threading.Thread`, where ``target``
        has no parameters of these names.

        :param target: a method bound to a recordset, private or empty ones included
        :param args: positional arguments: JSON types, recordsets, datetime, date, Decimal, bytes, tuples and sets
        :param kwargs: keyword arguments, of the same types
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
        :raises TypeError: when ``target`` is no such method, does not take these arguments, or one of them
            cannot be stored; the message names it by its path, as in ``args[1]['when']``
        :raises odoo.exceptions.UserError: when the records of ``target`` are not saved yet
        """
        return self._enqueue(target, args, kwargs)

    @api.private
    def call_notify(self, description, target, /, *args, **kwargs):
        """Do as :meth:`call` does, and notify the user of ``target`` of every change of the job's state.

        :param str description: what the user sees in the list of their jobs; falsy: they are notified, but see nothing
        :param target: as for :meth:`call`
        :param args: as for :meth:`call`
        :param kwargs: as for :meth:`call`
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
        :raises TypeError: as :meth:`call`, and when ``description`` is not a text
        :raises odoo.exceptions.UserError: as :meth:`call`
        """
        if callable(description):
            msg = f"call_notify() takes a description first, then the method; got {describe(description)}"
            raise TypeError(msg)
        if description and not is_text(str(description)):
            msg = f"the description cannot be stored: {describe(description)}"
            raise TypeError(msg)
        return self._enqueue(target, args, kwargs, name=str(description) if description else None, notify=True)

    @api.private
    def current(self):
        """Return the job that is running this code.

        :return: a record of ``ir.async``, empty outside of a job
        """
        running = Execution.get(self.env.cr)
        return self._plain().browse([running.job.id] if running else [])

    @api.private
    def report_progress(self, done, total=None, message=None):
        """Tell how far the running job is. The user sees it at once, although the transaction of the job is open.

        It costs next to nothing: what is shown is the last of what was reported, a few times a second.
        Outside of a job, nothing happens.

        :param float done: how much is done
        :param float total: of how much, if that is known
        :param str message: what it is about
        :raises TypeError: when ``done`` or ``total`` is not a number
        """
        for name, value in (('done', done), ('total', 0 if total is None else total)):
            if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:  # nor NaN
                msg = f"{name} must be a finite number, not {describe(value)}"
                raise TypeError(msg)
        if running := Execution.get(self.env.cr):
            running.progress = (
                float(done), None if total is None else float(total), message and clean_text(str(message)))

    def _plain(self):
        """Return this model as the caller may have it: neither in sudo, nor with options for the next call."""
        context = {key: value for key, value in self.env.context.items() if key != OPTIONS}
        return self.sudo(False).with_context(context)

    def _enqueue(self, target, args, kwargs, name=None, notify=False):
        records, method, args, kwargs = check_target(target, args, kwargs)
        if not all(type(id_) is int for id_ in records._ids):
            raise UserError(self.env._(
                "Save %(records)s first: what is not saved cannot be worked on in the background.", records=records))
        env = records.env
        # The job comes to exist in the transaction of the target, whatever this one is.
        model = self if self.env.cr is env.cr else env[self._name].with_context(**{OPTIONS: self._options()})
        options = model._options()
        options.check_partners()
        running = Execution.get(env.cr)
        values = {
            'state': 'waiting' if options.after else 'created',
            'name': name,
            'notify': notify,
            'res_model': records._name,
            'res_ids': None,
            'method': method,
            'args': encode(list(args), 'args'),
            'kwargs': encode(kwargs, 'kwargs'),
            'user_id': env.uid,
            'su': env.su,
            'context': _encode_context(env.context),
            'parent_id': running and running.job.id,
            'stack': json.dumps(caller_stack(), separators=(',', ':')),
            'priority': options.priority,
            'date_scheduled': options.at,
            'max_attempts': options.max_attempts,
            'retry_delay': None if options.retry_delay is None else json.dumps(options.retry_delay),
            'timeout': options.timeout,
            'channel': options.channel,
            'limited': options.channel.split('/', 1)[0] in model.env['ir.async.channel']._limited_names(),
            'key': options.key,
            'key_until': options.key and options.key_until,
        }
        chunks = split_every(options.chunk_size, records._ids) if options.chunk_size else [records._ids]
        return model._plain()._add_call(values, [json.dumps(chunk) for chunk in chunks], options)


def _encode_context(context):
    """Return the context as JSON text, without what only means something to this process, request or transaction."""
    context = {
        key: value for key, value in context.items()
        if key not in PROCESS_CONTEXT and not str(key).startswith(PROCESS_CONTEXT_PREFIXES)
    }
    try:
        return encode(context, 'context')
    except TypeError:
        for key, value in list(context.items()):
            try:
                encode({key: value}, 'context')
            except TypeError as exc:
                _logger.debug("Not passed on to the job: %s", exc)
                del context[key]
    return encode(context, 'context')
