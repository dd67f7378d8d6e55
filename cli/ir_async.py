"""The command ``odoo-bin ir_async``: a server of job workers alone, or one job under a debugger."""

from __future__ import annotations

import optparse
import sys

from odoo.cli import Command
from odoo.cli import server as cli_server
from odoo.service import server
from odoo.tools import config


class IrAsync(Command):
    """Run job workers alone, without HTTP and scheduled actions"""

    name = 'ir_async'

    def run(self, args: list[str]) -> None:
        parser = config.parser
        parser.prog = self.prog
        group = optparse.OptionGroup(parser, "Background jobs")
        group.add_option(
            '--run',
            dest='ir_async_run',
            type='int',
            metavar='ID',
            my_default=None,
            help="run this one job in this process, for example under a debugger, and exit",
        )
        group.add_option(
            '--until-eof', dest='ir_async_until_eof', action='store_true', my_default=False, help=optparse.SUPPRESS_HELP
        )
        parser.add_option_group(group)
        parser.get_option(
            '--workers'
        ).help = "number of job workers to run, instead of the setting workers of the section [ir_async]"

        cli_server.check_root_user()
        try:
            opt = config.parse_config(args, setup_logging=True)
        except ValueError as exc:  # Odoo does not name the option with the wrong value
            sys.exit(f"ir_async: an option has a wrong value: {exc}")
        cli_server.check_postgres_user()
        cli_server.report_configuration()
        # These imports are not at the top, since Odoo loads commands before it knows the addons path.
        from odoo.addons.ir_async.service.server import AsyncServer  # noqa: PLC0415
        from odoo.addons.ir_async.tools import config as async_config  # noqa: PLC0415

        try:
            workers = async_config.settings().workers
        except ValueError as exc:
            sys.exit(f"ir_async: {exc}")
        if opt.workers is not None:
            workers = opt.workers
        if opt.ir_async_run is not None:
            sys.exit(self._run_job(opt.ir_async_run))
        if workers < 1:
            sys.exit(f"ir_async: {workers} workers run no jobs. Use --workers=N with at least 1")

        config['http_enable'] = False
        config['max_cron_threads'] = 0
        for option in ('init', 'update', 'reinit'):
            config[option] = {}
        if not opt.ir_async_until_eof:  # with this option, the PID file belongs to the parent
            cli_server.setup_pid_file()
        server.load_server_wide_modules()
        workers_alone = AsyncServer(workers, opt.ir_async_until_eof)
        server.server = workers_alone  # type: ignore[assignment]  # Odoo only says that it is None at first
        code = workers_alone.run(config['db_name'], False)
        if workers_alone.reload:
            server._reexec()
        sys.exit(code or 0)

    def _run_job(self, job_id: int) -> str | int:
        from odoo.addons.ir_async.service.inline import CannotRun, run_one  # noqa: PLC0415

        if len(config['db_name']) != 1:
            return "ir_async: --run needs the one database of the job. Use -d DATABASE"
        server.load_server_wide_modules()
        try:
            state = run_one(config['db_name'][0], job_id)
        except CannotRun as exc:
            return f"ir_async: {exc}"
        return 0 if state in ('succeeded', 'done') else f"ir_async: job {job_id} is now {state}"
