import contextlib
import contextvars
import decimal
import io
import locale
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import sql

from odoo import api, models
from odoo.http import _request_stack, request
from odoo.tools import SQL

from odoo.addons.ir_async.exceptions import RetryJob

VARIABLE = contextvars.ContextVar('test_ir_async.variable', default=None)
SIGNALS = [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE]
KEPT = []  # what lives on when the job has ended
LOCK_CLASS = 4711  # of the advisory locks
OUR_LOCK_CLASS = int.from_bytes(b'irac', 'big')  # a name that the queue's own code uses
NAMES = [f'ir_async_finish_{i}' for i in range(20)]


class TestAsyncEffect(models.Model):
    """Jobs that leave something behind, each in its own way, and one that says what it sees of it.

    What they leave is called after its tag, so that it can be found.
    """

    _inherit = 'test.async.effect'

    @api.model
    def leak(self, way, ending, tag):
        """Leave something behind in one way and end in another."""
        cr = self.env.cr

        def leak():
            getattr(self, f'_leak_{way}')(cr, tag)

        def leak_and_commit():
            leak()
            cr.commit()

        if ending == 'hook':
            cr.postcommit.add(leak)
            return
        if ending == 'committing hook':
            cr.postcommit.add(leak_and_commit)
            return
        leak()
        if ending.startswith('commit'):
            cr.commit()
        if ending.startswith('rollback'):
            cr.rollback()
        if ending.endswith('fail'):
            raise ValueError(tag)
        if ending.endswith('retry'):
            raise RetryJob(tag, delay=3600)

    @api.model
    def keep_cursor(self, name, way):
        """Have something happen to the cursor when it is finalized, long after the job."""
        self._trace(name)
        cr, low = self.env.cr, self.env.cr._cnx.cursor()

        def finalize():
            try:
                yield
            finally:
                if way == 'low':
                    low.execute("INSERT INTO test_async_effect (name) VALUES ('ghost')")
                elif way == 'context':
                    with cr:
                        pass
                elif way == 'new':
                    cr._cnx.cursor().execute("INSERT INTO test_async_effect (name) VALUES ('ghost')")
                else:
                    getattr(cr, way)()

        generator = finalize()
        next(generator)
        KEPT.append(generator)

    @api.model
    def finalize_kept(self, name, fails=False):
        """Write a row, and finalize what an earlier job left."""
        self._trace(name)
        self.create({'name': name})
        self.env.cr.flush()
        KEPT.pop()
        if fails:
            raise ValueError(name)

    @api.model
    def leave_thread(self, name, gate, daemon):
        """Leave a thread that waits, and one that has ended."""
        self._trace(name)
        thread = threading.Thread(target=self._trace, args=[f'{name} in thread'])
        thread.start()
        thread.join()
        if gate:
            threading.Thread(target=self._wait, args=[gate], daemon=daemon, name="left").start()

    @api.model
    def create_field(self, name, way):
        """Create a field that is not committed."""
        self._trace(name)
        model = self.env['ir.model']._get('test.async.effect')
        values = {
            'model_id': model.id,
            'name': f'x_{way}',
            'ttype': 'char',
            'field_description': way,
            'state': 'manual',
        }
        if way == 'savepoint':
            with contextlib.suppress(ZeroDivisionError), self.env.cr.savepoint():
                self.env['ir.model.fields'].sudo().create(values)
                1 / 0
            return
        self.env['ir.model.fields'].sudo().create(values)
        if way == 'rollback':
            self.env.cr.rollback()
        elif way == 'exit':
            sys.exit(1)
        elif way == 'fail':
            raise ValueError(name)

    @api.model
    def read_all(self, name):
        """Read all fields; return those that somebody made."""
        self._trace(name)
        self.create({'name': name})
        self.env.invalidate_all()
        self.search([]).read()
        return sorted(field for field in self._fields if field.startswith('x_'))

    @api.model
    def seen(self, tag):
        """Return all that may have been left behind by an earlier job."""
        return {
            **{f'connection: {name}': value for name, value in self._seen_by_client().items()},
            **{f'process: {name}': value for name, value in self._seen_in_process().items()},
            **{f'server: {name}': value for name, value in self._seen_by_server(tag).items()},
        }

    def _seen_by_server(self, tag):
        cr, seen = self.env.cr, {}
        for name in ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable'):
            cr.execute(f"SHOW {name}")
            [seen[name]] = cr.fetchone()
        cr.execute(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' OR setting IS DISTINCT FROM reset_val"
        )
        seen |= {name: setting for name, setting in cr.fetchall() if name not in seen}
        cr.execute("SELECT pg_catalog.current_setting(%s, true)", ['leak.' + tag])
        seen['variable'] = cr.fetchone()[0] or None
        cr.execute("SELECT current_user, session_user, pg_catalog.current_schemas(false)::text, pg_catalog.random()")
        seen['current_user'], seen['session_user'], seen['schemas'], random = cr.fetchone()
        seen['random'] = random if random in self._seeded() else None
        cr.execute(r"""
            SELECT statement FROM pg_catalog.pg_prepared_statements WHERE statement ~ '^PREPARE (leak_|\w+ AS SELECT ''leak'')'
        """)
        seen['prepared'] = [statement for (statement,) in cr.fetchall()] or None
        cr.execute("SELECT name FROM pg_catalog.pg_cursors WHERE name LIKE 'leak%%'")
        seen['cursors'] = [name for (name,) in cr.fetchall()] or None
        cr.execute("SELECT pg_catalog.pg_listening_channels()")
        seen['listens'] = [name for (name,) in cr.fetchall()] or None
        cr.execute("""
            SELECT classid, objid, objsubid, mode FROM pg_catalog.pg_locks
             WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()""")
        seen['locks'] = [str(lock) for lock in cr.fetchall()] or None
        cr.execute("""
            SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind != 'i'
             UNION ALL
            SELECT proname FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()""")
        seen['temporary'] = [name for (name,) in cr.fetchall()] or None
        seen['currval'] = self._seen_sequence("SELECT pg_catalog.currval('leak_seq')")
        lastval = self._seen_sequence("SELECT pg_catalog.lastval()")
        seen['lastval'] = lastval if lastval and lastval > 2**40 else None
        return seen

    def _seen_sequence(self, query):
        try:
            with self.env.cr.savepoint(flush=False):
                self.env.cr.execute(query, log_exceptions=False)
                return self.env.cr.fetchone()[0]
        except psycopg2.errors.ObjectNotInPrerequisiteState:
            return None

    def _seeded(self):
        """Return the random numbers that follow from the seed."""
        if not hasattr(type(self), '_seeded_numbers'):
            with self.env.registry.cursor() as cr:
                cr.execute("SELECT setseed(0.5)")
                cr.execute("SELECT random() FROM generate_series(1, 50)")
                type(self)._seeded_numbers = [number for (number,) in cr.fetchall()]
                cr.execute("SELECT setseed(%s)", [time.time() % 1])
        return self._seeded_numbers

    def _seen_by_client(self):
        cr, connection = self.env.cr, self.env.cr._cnx
        hooks = (cr.precommit, cr.postcommit, cr.prerollback, cr.postrollback)
        return {
            'encoding': connection.encoding,
            'isolation_level': connection.isolation_level,
            'readonly': connection.readonly,
            'deferrable': connection.deferrable,
            'autocommit': connection.autocommit,
            'cursor_factory': repr(connection.cursor_factory),
            'types': [str(oid) for oid in {**connection.string_types, **connection.binary_types}] or None,
            'notices': [notice for notice in connection.notices if 'leak' in notice] or None,
            'notifies': [notify.channel for notify in connection.notifies if 'leak' in notify.channel] or None,
            'attributes': [name for name in {**vars(connection), **vars(cr)} if 'leak' in name] or None,
            'cache': [key for key in cr.cache if 'leak' in str(key)] or None,
            'hook data': [key for hook in hooks for key in hook.data if 'leak' in str(key)] or None,
            'rollback hooks': len(cr.prerollback._funcs) + len(cr.postrollback._funcs),
            'arraysize': cr._obj.arraysize,
            'parameter': self.env['ir.config_parameter'].sudo().get_param('test_ir_async.leak'),
        }

    def _seen_in_process(self):
        mask = os.umask(0)
        os.umask(mask)
        thread = threading.current_thread()
        numbers = locale.localeconv()
        with subprocess.Popen(['cat', '/proc/self/status'], stdout=subprocess.PIPE, text=True) as child:  # noqa: S607
            status = dict(line.split(':\t', 1) for line in child.stdout.read().splitlines())
        return {
            'environment': {
                name: value for name, value in os.environ.items() if 'leak' in name.lower() or name == 'TZ'
            },
            'missing environment': [name for name in ('PATH', 'IR_ASYNC_TEST_TRACE') if name not in os.environ] or None,
            'working directory': os.getcwd(),
            'umask': mask,
            'locale': [locale.setlocale(category) for category in (locale.LC_NUMERIC, locale.LC_CTYPE, locale.LC_TIME)],
            'decimal point': numbers['decimal_point'],
            'time zone': time.strftime('%z', time.localtime(0)),
            'signal mask of a child': status['SigBlk'].strip(),
            'signals ignored by a child': status['SigIgn'].strip(),
            'signal mask': sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            'signal handlers': [repr(signal.getsignal(number)) for number in SIGNALS],
            'timers': [signal.getitimer(timer)[0] > 0 for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
            'context variable': VARIABLE.get(),
            'thread': [name for name in vars(thread) if 'leak' in name] or None,
            'thread user': getattr(thread, 'uid', None) == self.env.uid,
            'request': repr(request._get_current_object()) if request else None,
            'decimal': decimal.getcontext().prec,
            'socket timeout': socket.getdefaulttimeout(),
            'temporary folder': 'leak' in tempfile.gettempdir(),
        }

    # ------------------------------------------------------------
    # One setting, in all ways to make one
    # ------------------------------------------------------------

    def _leak_text(self, cr, tag):
        cr.execute(f"SET leak.{tag} = '1'")

    def _leak_lower(self, cr, tag):
        cr.execute(f"\n\t set\nleak.{tag} = '1'")

    def _leak_session(self, cr, tag):
        cr.execute(f"SET SESSION leak.{tag} TO '1'")

    def _leak_composed(self, cr, tag):
        cr.execute(sql.SQL("SET {} = '1'").format(sql.Identifier('leak', tag)))

    def _leak_odoo_sql(self, cr, tag):
        cr.execute(SQL("SET %s = '1'", SQL("leak.%s" % tag)))

    def _leak_bytes(self, cr, tag):
        cr.execute(f"SET leak.{tag} = '1'".encode())

    def _leak_comment(self, cr, tag):
        cr.execute(f"/* leak */ SET leak.{tag} = '1'")

    def _leak_line_comment(self, cr, tag):
        cr.execute(f"-- leak\nSET leak.{tag} = '1'")

    def _leak_second_statement(self, cr, tag):
        cr.execute(f"SELECT 1;SET leak.{tag} = '1'")

    def _leak_empty_statement(self, cr, tag):
        cr.execute(f";;SET leak.{tag} = '1'")

    def _leak_set_config(self, cr, tag):
        cr.execute("SELECT set_config(%s, '1', false)", [f'leak.{tag}'])

    def _leak_quoted_function(self, cr, tag):
        cr.execute("""SELECT pg_catalog.U&"set\\005Fconfig"(%s, '1', false)""", [f'leak.{tag}'])

    def _leak_where(self, cr, tag):
        cr.execute(
            "UPDATE test_async_effect SET value = 1 WHERE set_config(%s, '1', false) = '2' OR id = 0", [f'leak.{tag}']
        )
        cr.execute("WITH done AS (SELECT set_config(%s, '1', false)) SELECT * FROM done", [f'leak.{tag}'])

    def _leak_callproc(self, cr, tag):
        cr.callproc('set_config', [f'leak.{tag}', '1', False])

    def _leak_executemany(self, cr, tag):
        cr.executemany("SELECT set_config(%s, '1', false)", [[f'leak.{tag}']])

    def _leak_execute_values(self, cr, tag):
        psycopg2.extras.execute_values(
            cr._obj, "SELECT set_config(name, '1', false) FROM (VALUES %s) AS v (name)", [(f'leak.{tag}',)]
        )

    def _leak_execute_batch(self, cr, tag):
        psycopg2.extras.execute_batch(cr._obj, "SELECT set_config(%s, '1', false)", [[f'leak.{tag}']])

    def _leak_copy(self, cr, tag):
        cr.copy_expert(f"COPY (SELECT set_config('leak.{tag}', '1', false)) TO STDOUT", io.BytesIO())

    def _leak_do(self, cr, tag):
        cr.execute(f"DO $$ BEGIN PERFORM set_config('leak.{tag}', '1', false); END $$")

    def _leak_do_execute(self, cr, tag):
        cr.execute(f"DO LANGUAGE plpgsql $$ BEGIN EXECUTE 'SE' || 'T leak.{tag} = 1'; END $$")

    def _leak_sql_function(self, cr, tag):
        cr.execute("SELECT leak_sql(%s)", [tag])

    def _leak_plpgsql_function(self, cr, tag):
        cr.execute("SELECT leak_plpgsql(%s)", [tag])

    def _leak_procedure(self, cr, tag):
        cr.execute("CALL leak_procedure(%s)", [tag])

    def _leak_trigger(self, cr, tag):
        cr.execute("INSERT INTO leak_table (tag) VALUES (%s)", [tag])

    def _leak_prepared(self, cr, tag):
        cr.execute(f"PREPARE leak_{tag} AS SELECT set_config('leak.{tag}', '1', false)")
        cr.execute(f"EXECUTE leak_{tag}")
        cr.execute(f"DEALLOCATE leak_{tag}")

    def _leak_cursor_of_psycopg(self, cr, tag):
        cr._obj.execute(f"SET leak.{tag} = '1'")

    def _leak_other_cursor(self, cr, tag):
        with cr._cnx.cursor() as other:
            other.execute(f"SET leak.{tag} = '1'")

    def _leak_named_cursor(self, cr, tag):
        with cr._cnx.cursor(name='other') as other:
            other.execute(f"SELECT set_config('leak.{tag}', '1', false)")
            other.fetchall()

    def _leak_savepoint(self, cr, tag):
        with cr.savepoint():
            cr.execute(f"SET leak.{tag} = '1'")

    def _leak_log_exceptions(self, cr, tag):
        cr.execute(f"SET leak.{tag} = '1'", log_exceptions=False)

    # ------------------------------------------------------------
    # Settings of PostgreSQL's own
    # ------------------------------------------------------------

    def _leak_search_path(self, cr, tag):
        cr.execute("SET search_path = leak_schema, public")

    def _leak_date_style(self, cr, tag):
        cr.execute("SET DateStyle = 'SQL, DMY'")

    def _leak_time_zone(self, cr, tag):
        cr.execute("SET TIME ZONE 'Asia/Tokyo'")

    def _leak_interval_style(self, cr, tag):
        cr.execute("SET IntervalStyle = 'iso_8601'")

    def _leak_names(self, cr, tag):
        cr.execute("SET NAMES 'LATIN1'")

    def _leak_client_encoding(self, cr, tag):
        cr.execute("SELECT set_config('client_encoding', 'LATIN9', false)")

    def _leak_statement_timeout(self, cr, tag):
        cr.execute("SELECT leak_execute('SET statement_timeout = 50000')")

    def _leak_lock_timeout(self, cr, tag):
        cr.execute("SELECT set_config('lock_timeout', '50s', false)")

    def _leak_idle_timeout(self, cr, tag):
        cr.execute("SELECT set_config('idle_in_transaction_session_timeout', '50s', false)")

    def _leak_synchronous_commit(self, cr, tag):
        cr.execute("SELECT leak_execute('SET synchronous_commit = off')")

    def _leak_planner(self, cr, tag):
        cr.execute("SELECT set_config('enable_hashjoin', 'off', false), set_config('work_mem', '64kB', false)")

    def _leak_application_name(self, cr, tag):
        cr.execute("SELECT set_config('application_name', %s, false)", [tag])

    def _leak_strings(self, cr, tag):
        cr.execute("SELECT set_config('bytea_output', 'escape', false), set_config('extra_float_digits', '0', false)")

    def _leak_row_security(self, cr, tag):
        cr.execute("SELECT leak_execute('SET row_security = off')")

    def _leak_replication_role(self, cr, tag):
        cr.execute("SELECT set_config('session_replication_role', 'replica', false)")

    def _leak_seed(self, cr, tag):
        cr.execute("SELECT setseed(0.5)")

    # ------------------------------------------------------------
    # Roles
    # ------------------------------------------------------------

    def _leak_role(self, cr, tag):
        cr.execute("SET ROLE leaked")

    def _leak_role_by_function(self, cr, tag):
        cr.execute("SELECT set_config('role', 'leaked', false)")

    def _leak_role_in_function(self, cr, tag):
        cr.execute("SELECT leak_execute('SET ROLE leaked')")

    def _leak_authorization(self, cr, tag):
        cr.execute("SET SESSION AUTHORIZATION leaked")

    def _leak_authorization_by_function(self, cr, tag):
        cr.execute("SELECT set_config('session_authorization', 'leaked', false)")

    def _leak_authorization_in_function(self, cr, tag):
        cr.execute("SELECT leak_execute('SET SESSION AUTHORIZATION leaked')")

    # ------------------------------------------------------------
    # Characteristics of transactions
    # ------------------------------------------------------------

    def _leak_characteristics(self, cr, tag):
        cr.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def _leak_default_isolation(self, cr, tag):
        cr.execute("SELECT leak_execute('SET default_transaction_isolation = serializable')")

    def _leak_default_deferrable(self, cr, tag):
        cr.execute("SELECT leak_execute('SET default_transaction_deferrable = on')")

    def _leak_transaction_isolation(self, cr, tag):
        cr.commit()
        cr.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def _leak_transaction_serializable(self, cr, tag):
        cr.rollback()
        cr.execute("SELECT set_config('transaction_isolation', 'serializable', false)")

    def _leak_transaction_deferrable(self, cr, tag):
        cr.commit()
        cr.execute("SET TRANSACTION DEFERRABLE")

    def _leak_isolation_of_client(self, cr, tag):
        cr.rollback()
        cr._cnx.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED)

    def _leak_isolation_attribute(self, cr, tag):
        cr.rollback()
        cr._cnx.isolation_level = psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE

    def _leak_deferrable_of_client(self, cr, tag):
        cr.rollback()
        cr._cnx.set_session(deferrable=True)

    def _leak_read_only_of_client(self, cr, tag):
        cr.rollback()
        cr._cnx.set_session(readonly=True)

    def _leak_autocommit(self, cr, tag):
        cr.rollback()
        cr._cnx.autocommit = True

    def _leak_isolation_autocommit(self, cr, tag):
        cr.rollback()
        cr._cnx.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)

    def _leak_read_only(self, cr, tag):
        cr.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    def _leak_transaction_read_only(self, cr, tag):
        cr.execute("SET TRANSACTION READ ONLY")

    # ------------------------------------------------------------
    # Objects of the session
    # ------------------------------------------------------------

    def _leak_temporary(self, cr, tag):
        cr.execute(f"CREATE TEMP TABLE leak_{tag} (a int)")

    def _leak_temporary_unlogged(self, cr, tag):
        cr.execute(f"CREATE/**/GLOBAL/**/TEMPORARY/**/TABLE leak_{tag} AS SELECT 1 AS a")

    def _leak_temporary_schema(self, cr, tag):
        cr.execute(f"CREATE TABLE pg_temp.leak_{tag} (a int)")

    def _leak_temporary_into(self, cr, tag):
        cr.execute(f"SELECT 1 AS a INTO TEMP\nleak_{tag}")

    def _leak_temporary_by_function(self, cr, tag):
        cr.execute("SELECT leak_temporary(%s)", [f'leak_{tag}'])

    def _leak_temporary_sequence(self, cr, tag):
        cr.execute(f"CREATE TEMP SEQUENCE leak_{tag}")

    def _leak_temporary_view(self, cr, tag):
        cr.execute(f"CREATE TEMP VIEW leak_{tag} AS SELECT 1 AS a")

    def _leak_temporary_function(self, cr, tag):
        cr.execute(f"CREATE FUNCTION pg_temp.leak_{tag}() RETURNS int LANGUAGE sql AS 'SELECT 1'")

    def _leak_temporary_held(self, cr, tag):
        """A table that an open cursor reads cannot be dropped."""
        cr.execute(f"CREATE TEMP TABLE leak_{tag} AS SELECT 1 AS a")
        cr.execute(f"DECLARE leak_c{tag} CURSOR WITH HOLD FOR SELECT a FROM leak_{tag}")

    def _leak_temporary_of_our_name(self, cr, tag):
        """Tables of those names come first in the search path."""
        cr.execute(
            "SELECT leak_temporary(name) FROM unnest(ARRAY['ir_async_stop', 'res_groups', 'ir_module_module']) AS name"
        )

    def _leak_temporary_of_our_table(self, cr, tag):
        cr.execute("SELECT leak_temporary('ir_async')")

    def _leak_prepare(self, cr, tag):
        cr.execute(f"PREPARE leak_{tag} AS SELECT 1")

    def _leak_prepare_by_function(self, cr, tag):
        cr.execute("SELECT leak_execute(%s)", [f"PREPARE leak_{tag} AS SELECT 1"])

    def _leak_prepare_of_our_name(self, cr, tag):
        cr.execute("SELECT name FROM pg_prepared_statements")
        taken = {name for (name,) in cr.fetchall()}
        for name in NAMES:
            if name not in taken:
                cr.execute(f"PREPARE {name} AS SELECT 'leak'")

    def _leak_deallocate(self, cr, tag):
        cr.execute("SELECT leak_execute('DEALLOCATE ALL')")

    def _leak_cursor(self, cr, tag):
        cr.execute(f"DECLARE leak_{tag} CURSOR WITH HOLD FOR SELECT 1")

    def _leak_cursor_of_client(self, cr, tag):
        cr._cnx.cursor(name=f'leak_{tag}', withhold=True).execute("SELECT 1")

    def _leak_listen(self, cr, tag):
        cr.execute(f"LISTEN leak_{tag}")

    def _leak_listen_by_function(self, cr, tag):
        cr.execute("SELECT leak_execute(%s)", [f"LISTEN leak_{tag}"])

    def _leak_notified(self, cr, tag):
        cr.execute(f"/**/LISTEN leak_{tag}")
        cr.execute(f"NOTIFY leak_{tag}")

    def _leak_lock(self, cr, tag):
        cr.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [LOCK_CLASS, tag])

    def _leak_lock_shared(self, cr, tag):
        cr.execute("SELECT pg_advisory_lock_shared(hashtext(%s))", [tag])

    def _leak_lock_try(self, cr, tag):
        cr.callproc('pg_try_advisory_lock', [LOCK_CLASS])

    def _leak_lock_twice(self, cr, tag):
        cr.execute("SELECT leak_lock(hashtext(%s)), leak_lock(hashtext(%s))", [tag, tag])

    def _leak_lock_of_ours(self, cr, tag):
        cr.execute("SELECT pg_try_advisory_lock(%s, hashtext('limited'))", [OUR_LOCK_CLASS])

    def _leak_sequence(self, cr, tag):
        cr.execute("SELECT nextval('leak_seq')")

    def _leak_discard(self, cr, tag):
        """Drop all that somebody else may have put there."""
        cr.execute("SELECT leak_execute('DISCARD PLANS'), leak_execute('DISCARD SEQUENCES'), leak_execute('RESET ALL')")

    # ------------------------------------------------------------
    # The connection and the cursor in Python
    # ------------------------------------------------------------

    def _leak_attributes(self, cr, tag):
        cr._cnx.leak = cr.leak = tag

    def _leak_types(self, cr, tag):
        psycopg2.extensions.register_type(psycopg2.extensions.new_type((23,), 'leak', lambda _value, _cr: tag), cr._cnx)

    def _leak_factory(self, cr, tag):
        cr._cnx.cursor_factory = psycopg2.extras.DictCursor

    def _leak_encoding_of_client(self, cr, tag):
        cr.rollback()
        cr._cnx.set_client_encoding('LATIN1')

    def _leak_notice(self, cr, tag):
        cr.execute("DO $$ BEGIN RAISE WARNING 'leak'; END $$")

    def _leak_arraysize(self, cr, tag):
        cr._obj.arraysize = 4711

    def _leak_cache(self, cr, tag):
        cr.cache['leak'] = tag

    def _leak_hooks(self, cr, tag):
        for hook in (cr.precommit, cr.postcommit, cr.prerollback, cr.postrollback):
            hook.data['leak'] = tag
        cr.prerollback.add(lambda: None)
        cr.postrollback.add(lambda: None)

    def _leak_parameter(self, cr, tag):
        """Cache something that is rolled back."""
        self.env['ir.config_parameter'].sudo().set_param('test_ir_async.leak', tag)
        assert self.env['ir.config_parameter'].sudo().get_param('test_ir_async.leak') == tag
        cr.rollback()

    # ------------------------------------------------------------
    # The process
    # ------------------------------------------------------------

    def _leak_environment(self, cr, tag):
        os.environ['LEAK'] = tag

    def _leak_missing_environment(self, cr, tag):
        os.environ.pop('PATH', None)

    def _leak_working_directory(self, cr, tag):
        os.chdir('/tmp')

    def _leak_umask(self, cr, tag):
        os.umask(0o077)

    def _leak_locale(self, cr, tag):
        for category in (locale.LC_CTYPE, locale.LC_TIME, locale.LC_NUMERIC):
            locale.setlocale(category, 'C.UTF-8' if locale.setlocale(category) == 'C' else 'C')

    def _leak_time_zone_of_process(self, cr, tag):
        os.environ['TZ'] = 'Asia/Tokyo'
        time.tzset()

    def _leak_signal_mask(self, cr, tag):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGWINCH})

    def _leak_signal_handler(self, cr, tag):
        with contextlib.suppress(ValueError):  # jobs may run in a thread that cannot set any
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _leak_timers(self, cr, tag):
        signal.setitimer(signal.ITIMER_PROF, 3600)
        signal.setitimer(signal.ITIMER_VIRTUAL, 3600)

    def _leak_context_variable(self, cr, tag):
        VARIABLE.set(tag)

    def _leak_thread(self, cr, tag):
        threading.current_thread().leak = tag

    def _leak_thread_user(self, cr, tag):
        threading.current_thread().uid = 4711

    def _leak_request(self, cr, tag):
        _request_stack.push(self.env)

    def _leak_decimal(self, cr, tag):
        decimal.getcontext().prec = 3

    def _leak_decimal_context(self, cr, tag):
        decimal.setcontext(decimal.Context(prec=4))

    def _leak_socket_timeout(self, cr, tag):
        socket.setdefaulttimeout(4711)

    def _leak_temporary_folder(self, cr, tag):
        tempfile.tempdir = '/tmp/leak'

    # ------------------------------------------------------------
    # Children, and what is written below Odoo's cursor
    # ------------------------------------------------------------

    @api.model
    def terminate_child(self):
        """Return how a child ends that is asked to."""
        child = subprocess.Popen(['sleep', '600'])  # noqa: S607
        child.terminate()
        try:
            return child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return 'it does not'

    @api.model
    def terminate_forked_child(self):
        """Return how a forked child ends that is asked to."""
        context = multiprocessing.get_context('fork')
        ready = context.Event()
        child = context.Process(target=lambda: ready.set() or time.sleep(600))
        child.start()
        ready.wait()
        child.terminate()
        child.join(10)
        child.kill()
        child.join()
        return child.exitcode

    @api.model
    def fork(self, name, way):
        """Fork a child that leaves the method, or a hook, in one way. Return its exit code."""
        self._trace(name)
        self.create({'name': name})
        self.env.flush_all()
        if way == 'hook':
            self.env.cr.postcommit.add(os.fork)
            return None
        if not (pid := os.fork()):
            if way == 'exit':
                sys.exit(3)
            if way == 'raise':
                raise ValueError(name)
            return None
        _pid, status = os.waitpid(pid, 0)
        self.create({'name': f'{name} after'})
        return os.waitstatus_to_exitcode(status)

    @api.model
    def fork_and_die(self, name):
        """Die and leave a child behind that outlives the process, only the first time."""
        self._trace(name)
        self.env.cr.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_CLASS])
        if len(self._read_trace(name)) > 1:
            return
        if not os.fork():
            os.setpgid(0, 0)
            self._trace('child')
            time.sleep(600)
            os._exit(0)
        while not self._read_trace('child'):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    @api.model
    def write_in_hook(self, way, tag, commits=False, fails=False):
        """Write below Odoo's cursor once the job is committed. Nobody commits that."""
        cr = self.env.cr

        def hook():
            self._trace(tag)
            getattr(self, f'_write_{way}')(cr, f'hook {tag}')
            if fails:
                raise ValueError(tag)

        self.create({'name': tag})
        if commits:
            cr.commit()
        cr.postcommit.add(hook)

    def _write_copy_expert(self, cr, name):
        cr.copy_expert("COPY test_async_effect (name) FROM STDIN", io.StringIO(f'{name}\n'))

    def _write_copy_from(self, cr, name):
        cr.copy_from(io.StringIO(f'{name}\n'), 'test_async_effect', columns=['name'])

    def _write_executemany(self, cr, name):
        cr.executemany("INSERT INTO test_async_effect (name) VALUES (%s)", [[name]])

    def _write_callproc(self, cr, name):
        cr.callproc('leak_write', [name])

    def _write_cursor_of_psycopg(self, cr, name):
        cr._obj.execute("INSERT INTO test_async_effect (name) VALUES (%s)", [name])

    def _write_other_cursor(self, cr, name):
        with cr._cnx.cursor() as other:
            other.execute("INSERT INTO test_async_effect (name) VALUES (%s)", [name])

    def _write_execute_values(self, cr, name):
        psycopg2.extras.execute_values(cr._obj, "INSERT INTO test_async_effect (name) VALUES %s", [(name,)])

    def _write_execute(self, cr, name):
        cr.execute("INSERT INTO test_async_effect (name) VALUES (%s)", [name])

    def _write_orm(self, cr, name):
        self.create({'name': name})

    def _write_hidden(self, cr, name):
        cr.copy_expert("COPY test_async_effect (name) FROM STDIN", io.StringIO(f'{name}\n'))
        cr.sql_log_count = 0
