"""The addon is installed, upgraded, and uninstalled, on a server that works."""

import contextlib
import re
import subprocess
import threading
import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import psycopg2
import pytest
from harness import ODOO, complaints, wait_until

WITH_HTTP = ('--workers=0', '--max-cron-threads=0', '--load=base,rpc,web')
VERSION = '19.0.1.2.0'
COPIED = 'WARNING .* 2 queued jobs came with a copy'


def odoo(*args, expected=()):
    """Run a command of Odoo until it ends, with nothing to complain about; return its log."""
    done = subprocess.run([*ODOO, *args], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert not done.returncode, done.stdout
    assert not (lines := complaints(done.stdout, expected)), '\n'.join(lines)
    return done.stdout


def load(database, *args, expected=()):
    """Have Odoo load a database, with arguments such as ``-u``, and end."""
    return odoo(
        '-d',
        database.name,
        *args,
        '--skip-auto-install',
        '--stop-after-init',
        '--no-http',
        '--max-cron-threads=0',
        expected=expected,
    )


def uninstall_by_command(database, server):
    # Odoo refuses to uninstall a module that is server-wide.
    conf = database.cluster.folder / 'plain.conf'
    conf.write_text((database.cluster.folder / 'odoo.conf').read_text().replace(',ir_async', ''))
    odoo('module', 'uninstall', 'ir_async', '-d', database.name, '-c', conf)


def uninstall_by_interface(database, server):
    # Another server, for the same reason.
    with server(database, args=WITH_HTTP, workers=0, expected=['WARNING .* endpoints are deprecated']) as site:
        site.wait_for_log("HTTP service")
        with xmlrpc.client.ServerProxy(f'http://127.0.0.1:{site.port}/xmlrpc/2/object', allow_none=True) as models:

            def call(model, method, *args):
                return models.execute_kw(database.name, 2, 'admin', model, method, list(args))

            module_ids = call('ir.module.module', 'search', [['name', '=', 'ir_async']])
            call('ir.module.module', 'button_immediate_uninstall', module_ids)
            assert not call('ir.module.module', 'search', [['name', '=', 'ir_async'], ['state', '!=', 'uninstalled']])
            assert not call('ir.model', 'search', [['model', '=like', 'ir.async%']]), "the registry is a new one"


def leftovers(database):
    """Return what is still there of the addon."""
    return [
        tuple(row)
        for row in database.sql(r"""
        SELECT relkind::text, relname::text FROM pg_class WHERE relname ~ '^ir_async'
         UNION ALL SELECT 'function', proname FROM pg_proc WHERE proname ~ '^ir_async'
         UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE tgname ~ 'ir_async'
         UNION ALL SELECT 'xmlid', name FROM ir_model_data WHERE module = 'ir_async'
         UNION ALL SELECT 'model', model FROM ir_model WHERE model ~ '^ir\.async'
         UNION ALL SELECT 'parameter', key FROM ir_config_parameter WHERE key ~ '^ir_async'
         UNION ALL SELECT 'attachment', name FROM ir_attachment WHERE res_model ~ '^ir\.async'
         UNION ALL SELECT 'filter', name FROM ir_filters WHERE model_id ~ '^ir\.async'
         UNION ALL SELECT 'export', name FROM ir_exports WHERE resource ~ '^ir\.async'
         UNION ALL SELECT 'cron', cron_name FROM ir_cron WHERE cron_name ~* 'async job'
         UNION ALL SELECT 'action', name->>'en_US' FROM ir_act_window WHERE res_model ~ '^ir\.async'
         UNION ALL SELECT 'menu', name->>'en_US' FROM ir_ui_menu WHERE name->>'en_US' ~* 'async'
         UNION ALL SELECT 'view', name FROM ir_ui_view WHERE model ~ '^ir\.async' OR key ~ '^ir_async'
         UNION ALL SELECT 'group', name->>'en_US' FROM res_groups WHERE name->>'en_US' ~* 'async'
    """)
    ]


def files(cluster, database):
    """Return the files in the database's filestore whose content is that of the tests'."""
    return [
        path
        for path in (cluster.folder / 'data' / 'filestore' / database.name).rglob('*')
        if path.is_file() and path.read_bytes().startswith(b'content of a job')
    ]


def fill(database):
    """Leave behind what users do in the life of the addon."""
    with database.env() as env:
        set_param = env['ir.config_parameter'].set_param
        set_param('ir_async.retention_days', '3')
        set_param('ir_async.export', False)
        set_param('ir_async.export', 'True')
        env['ir.async.channel'].create({'name': 'mine', 'capacity': 1})
        env['ir.filters'].create({'name': 'My jobs', 'model_id': 'ir.async', 'user_ids': False})
        env['ir.exports'].create({'name': 'My fields', 'resource': 'ir.async'})
        job = env['ir.async'].with_options(delay=3600).call_notify("Later", env['test.async.effect'].noop)
        job._insert_pending()
        env['ir.attachment'].create(
            {'name': 'export.csv', 'raw': b'content of a job, %d' % job.id, 'res_model': 'ir.async', 'res_id': job.id}
        )
        env['ir.async'].with_options(channel='mine', after=job).call(env['test.async.effect'].noop)


def wait_for_lock(database):
    """Wait until a job's transaction holds a lock on the table of jobs."""
    wait_until(
        lambda: database.value("""
        SELECT count(*) FROM pg_locks
         WHERE relation = 'ir_async'::regclass AND mode = 'RowExclusiveLock' AND granted
           AND pid IN (SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction')
    """),
        "it has the lock",
    )


@pytest.mark.parametrize('uninstall', [uninstall_by_command, uninstall_by_interface])
def test_uninstall(cluster, database, server, uninstall):
    """It ends well without workers, leaves nothing, and the addon can be installed again."""
    fill(database)
    assert files(cluster, database)
    uninstall(database, server)
    assert leftovers(database) == []
    assert files(cluster, database) == []
    database.leave()
    load(database, '-i', 'test_ir_async')
    assert {
        row.key: row.value for row in database.sql("SELECT key, value FROM ir_config_parameter WHERE key ~ '^ir_async'")
    } == {'ir_async.export': 'True', 'ir_async.report': 'True'}


@pytest.mark.parametrize('uninstall', [uninstall_by_command, uninstall_by_interface])
def test_uninstall_beside_workers(cluster, database, server, tmp_path, uninstall):
    """It stops the jobs that run, whatever locks they hold. Workers have nothing to complain about."""
    fill(database)
    gate = tmp_path / 'gate'
    with server(database, workers=2):
        job_id = database.enqueue('enqueue_then_wait', 'job', str(gate))
        database.wait_for(job_id, 'processing')
        wait_for_lock(database)
        uninstall(database, server)
        assert leftovers(database) == []
        assert files(cluster, database) == []
        database.leave()
        load(database, '-i', 'test_ir_async')
        assert database.wait_for(database.enqueue('effect', 'installed again')).state == 'done'


def test_uninstall_beside_claims(database, server):
    """Claims in channels lock the same tables. Neither waits for the other."""
    # A claim that waits finds no deadlock before the uninstallation waits, too, as on a slow machine.
    database.sql(f"ALTER DATABASE \"{database.name}\" SET deadlock_timeout = '20ms'")
    from odoo.addons.ir_async.engine.session import Session  # noqa: PLC0415 -- importable once the cluster is there

    errors, session = [], Session.open(database.name, always=True).session

    def claim():
        while not errors:
            session._channels.has_jobs = True
            try:
                session.claim(1)
            except psycopg2.Error as exc:
                errors.append(type(exc))

    thread = threading.Thread(target=claim)
    thread.start()
    uninstall_by_command(database, server)
    thread.join()
    session.close()
    assert errors == [psycopg2.errors.UndefinedTable]
    assert leftovers(database) == []


def test_defaults_are_the_users(database):
    """Neither an upgrade nor a second initialization collides with what users made, or takes it away."""

    def parameters():
        return {row.key for row in database.sql("SELECT key FROM ir_config_parameter WHERE key ~ '^ir_async'")}

    def channels():
        return {row.name: row.capacity for row in database.sql("SELECT name, capacity FROM ir_async_channel")}

    default_channels = channels()
    assert parameters() == {'ir_async.export', 'ir_async.report'}
    for is_on in (False, True):
        with database.env() as env:
            for setting in ('async_export', 'async_report'):
                env['res.config.settings'].create({setting: is_on}).execute()
    with database.env() as env:
        channel = env['ir.async.channel'].search([('name', '=', 'export')])
        channel.unlink()
        channel.create({'name': 'export', 'capacity': 7})
    for args in (['-u', 'ir_async'], ['--reinit', 'ir_async'], ['-i', 'ir_async']):
        database.leave()
        load(database, *args)
        assert parameters() == {'ir_async.export', 'ir_async.report'}
        assert channels() == default_channels | {'export': 7}
    with database.env() as env:
        env['res.config.settings'].create({'async_export': False, 'async_report': True}).execute()
        env['ir.async.channel'].search([('name', '=', 'export')]).unlink()
    for args in (['-u', 'ir_async'], ['--reinit', 'ir_async']):
        database.leave()
        load(database, *args)
        assert parameters() == {'ir_async.report'}
        assert 'export' not in channels()


def test_update_beside_a_running_job(database, server, tmp_path):
    """An update that changes nothing in the tables neither waits for jobs nor has anybody else wait."""
    gate = tmp_path / 'gate'
    with server(database, workers=1):
        job_id = database.enqueue('enqueue_then_wait', 'job', str(gate))
        database.wait_for(job_id, 'processing')
        wait_for_lock(database)
        database.leave()
        load(database, '-u', 'ir_async')
        assert database.job(job_id).state == 'processing'
        gate.touch()
        assert database.wait_for(job_id).state in ('done', 'succeeded')


def make_old(database):
    """Have a database as version 19.0.1.0.0 left it, with jobs in every state."""
    database.leave()
    database.sql(Path(__file__).with_name('version_19.0.1.0.0.sql').read_text())


def structure(database):
    """Return what a database has for the addon: the parts of its tables, its functions, and what Odoo notes about both."""
    return {
        tuple(row)
        for row in database.sql("""
        SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod) || ' ' || attnotnull, pg_get_expr(adbin, adrelid)
          FROM pg_attribute
          JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
     LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE relname ~ '^ir_async' AND attnum > 0 AND NOT attisdropped
     UNION ALL SELECT tablename, indexname, indexdef, obj_description(indexname::regclass) FROM pg_indexes WHERE tablename ~ '^ir_async'
     UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '' FROM pg_constraint WHERE conname ~ '^ir_async'
     UNION ALL SELECT 'function', proname, prosrc, obj_description(oid) FROM pg_proc WHERE proname ~ '^ir_async'
     UNION ALL SELECT 'field', model, name, ttype FROM ir_model_fields WHERE model ~ '^ir.async'
     UNION ALL SELECT 'constraint', name, type, definition FROM ir_model_constraint WHERE name ~ '^ir_async'
     UNION ALL SELECT 'xmlid', name, model, '' FROM ir_model_data WHERE module = 'ir_async'
    """)
    }


def rows(database, table, *, renamed=(), without=()):
    """Return the rows of a table as dicts, under the names that its columns have now."""
    return [
        {dict(renamed).get(name, name): value for name, value in row._asdict().items() if name not in without}
        for row in database.sql(f"SELECT * FROM {table} ORDER BY 1, 2")
    ]


def test_upgrade_keeps_jobs(database, server):
    """An upgrade loses nothing of a populated queue: its jobs run afterwards, in their order, and within their limits."""
    expected_structure = structure(database)
    with database.env() as env:
        file_id = (
            env['ir.attachment'].create({'name': 'job.csv', 'raw': b'content', 'res_model': 'ir.async', 'res_id': 2}).id
        )
        favorite_id = (
            env['ir.filters']
            .create(
                {
                    'name': 'Mine',
                    'model_id': 'ir.async',
                    'domain': "[('claims', '>', 1), ('session', 'in', [7]), ('name', '=', 'session')]",
                    'context': "{'group_by': ['session', 'state']}",
                    'sort': '["session desc", "id"]',
                }
            )
            .id
        )
        template_id = (
            env['ir.exports']
            .create({'name': 'Mine', 'resource': 'ir.async', 'export_fields': [(0, 0, {'name': 'claims'})]})
            .id
        )
    make_old(database)
    database.sql("UPDATE ir_async SET limited = true, date_start = create_date WHERE state = 'done'")
    renamed = {'session': 'worker_id', 'claims': 'claim_number'}
    jobs = rows(database, 'ir_async', renamed=renamed, without=['database'])
    others = {
        table: rows(database, table)
        for table in ('ir_async_after_rel', 'ir_async_progress', 'ir_async_stop', 'ir_async_channel')
    }

    load(database, '-u', 'ir_async')
    assert structure(database) == expected_structure
    for before, now in zip(jobs, rows(database, 'ir_async'), strict=True):
        assert now == now | before
        assert now['origin'] and not now['starts']
    for table, before in others.items():
        now = rows(database, table)
        assert all(row == row | old for row, old in zip(now, before)), table
        assert len(now) == len(before) + (table == 'ir_async_channel'), table  # the channel of reports is new
    started = database.sql("SELECT DISTINCT channel FROM ir_async WHERE limited AND date_start IS NOT NULL")
    assert database.sql("SELECT channel FROM ir_async_start") == started != []
    with database.env() as env:
        favorite = env['ir.filters'].browse(favorite_id)
        assert favorite.domain == "[('claim_number', '>', 1), ('worker_id', 'in', [7]), ('name', '=', 'session')]"
        assert favorite.context == "{'group_by': ['worker_id', 'state']}"
        assert favorite.sort == '["worker_id desc", "id"]'
        assert env['ir.exports'].browse(template_id).export_fields.name == 'claim_number'
        decode = import_module('odoo.addons.ir_async.tools.encoding').decode
        assert decode(env['ir.async'].browse(10).args, env) == [
            env['res.partner'].browse([1, 3]),
            datetime(2026, 11, 28, 1, 2, 3, 4),
            date(2026, 11, 28),
            Decimal('1.10'),
            b'\0\xff',
            (1, (2,)),
            {'a'},
            {'date': None, 'b': [1.5, 2**70]},
            "\xe9\u2028",
        ]
        keyed = env['ir.async'].with_options(key='sync')
        effect = env['test.async.effect'].with_user(2)
        assert (keyed.call(effect.noop).id, keyed.call_notify("Mine", effect.noop).id) == (16, 17)
        assert env['ir.attachment'].browse(file_id).raw == b'content'
    assert len(rows(database, 'ir_async')) == len(jobs)

    with server(database, workers=2):
        expected = {
            1: 'done',
            2: 'succeeded',
            3: 'failed',
            5: 'cancelled',
            7: 'cancelled',
            10: 'created',
            15: 'created',
            19: 'waiting',
        }
        for job_id in {job['id'] for job in jobs} - expected.keys():
            assert database.wait_for(job_id).state == 'done', job_id
        database.wait_for(7)
        assert {job_id: database.job(job_id).state for job_id in expected} == expected
        database.act('retry', 3)
        with database.env() as env:
            env['ir.async.channel'].search([('name', '=', 'paused')]).action_resume()
        for job_id in (3, 15, 19):
            assert database.wait_for(job_id).state == 'done'
    assert database.effects() == dict.fromkeys(
        (
            'again',
            'rescued',
            'plain',
            'urgent',
            'due',
            'keyed',
            'mine',
            'child',
            'first of chain',
            'end of chain',
            'retried',
            'paused',
            'child of failed',
        ),
        1,
    )
    limited = [run.name for run in database.runs() if run.name.startswith('capped')]
    assert limited == [name for i in range(3) for name in (f'capped {i}', f'capped {i} end')], "one at a time"
    rescued, again = database.job(6), database.job(4)
    # A worker may hand claimed jobs back, so a job can be claimed more often than it begins.
    assert rescued.claim_number >= 3
    assert (rescued.deaths, rescued.starts, rescued.worker_id) == (1, 1, None)
    assert again.claim_number >= 2
    assert again.attempts == 2


def test_upgrade_of_copied_jobs(database, server):
    """Queued jobs of another database do not run after the upgrade either."""
    make_old(database)
    database.sql("UPDATE ir_async SET database = 'production' WHERE id IN (1, 6, 16)")
    load(database, '-u', 'ir_async', expected=[COPIED])
    with server(database, expected=[COPIED]):
        assert database.wait_for(17).state == 'done'
        assert [database.job(job_id).state for job_id in (6, 16)] == ['processing', 'created']


def lack_an_index(database):
    """Have a database as version 19.0.1.1.0 left it, as far as a new index goes."""
    database.leave()
    database.sql("UPDATE ir_module_module SET latest_version = '19.0.1.1.0' WHERE name = 'ir_async'")
    database.sql("DROP INDEX ir_async_limited_turn_idx")


@pytest.mark.parametrize('make', [make_old, lack_an_index])
def test_upgrade_waits_for_jobs(cluster, database, make):
    """While a job uses the table, the upgrade waits for it, but others do not wait for the upgrade."""
    make(database)
    holder = cluster.connect(database.name)
    holder.autocommit = False
    upgrade = None
    try:
        with holder.cursor() as cr:
            cr.execute("LOCK TABLE ir_async IN ROW EXCLUSIVE MODE")
        logs = []
        upgrade = threading.Thread(target=lambda: logs.append(load(database, '-u', 'ir_async')))
        upgrade.start()
        wait_until(
            lambda: database.value(
                "SELECT count(*) FROM pg_locks WHERE relation = 'ir_async'::regclass AND NOT granted"
            ),
            "it tries",
            300,  # Odoo has to start first
        )
        for _i in range(20):
            database.sql("SET lock_timeout = '2s'; LOCK TABLE ir_async IN ROW EXCLUSIVE MODE")
        assert upgrade.is_alive()
    finally:
        holder.close()
        if upgrade:
            upgrade.join()
    [log] = logs
    assert 'Waiting for the jobs that use their table' in log
    assert database.value("SELECT latest_version FROM ir_module_module WHERE name = 'ir_async'") == VERSION
    load(database, '-u', 'ir_async')


def transactions(cluster, database):
    """Return how many transactions a database has seen."""
    [[count]] = cluster.sql(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", [database.name]
    )
    return count


def test_code_before_its_upgrade(cluster, database, server):
    """A database that this server's code did not upgrade yet is left alone, without a noise."""
    make_old(database)
    # The server may come by while the upgrade below is under way.
    with server(
        database, workers=1, settings={'poll_interval': 1}, expected=['WARNING .* wait because of modules']
    ) as odoo_server:
        odoo_server.wait_for_log("until its modules and this server have the same version")
        # It comes to each database in turn, again and again.
        before = transactions(cluster, database)
        wait_until(lambda: transactions(cluster, database) > before + 2, "it looks again")
        assert len(re.findall(r"until its modules and this server", odoo_server.log)) == 1
        assert not database.runs()
        load(database, '-u', 'ir_async')
        assert database.wait_for(8).state == 'done'


def test_upgrade_beside_readers(cluster, database):
    """Once the new version is there, so are the workers. The upgrade deletes nothing then, so none waits for the other."""
    make_old(database)
    with ThreadPoolExecutor() as pool, contextlib.closing(cluster.connect(database.name)) as connection:
        upgrade = pool.submit(load, database, '-u', 'ir_async')
        is_new = "SELECT latest_version != '19.0.1.0.0' FROM ir_module_module WHERE name = 'ir_async'"
        while not upgrade.done() and not database.value(is_new):
            pass  # without a sleep: the rest takes a moment
        with connection.cursor() as cr:
            cr.execute("BEGIN; LOCK TABLE ir_async IN ACCESS SHARE MODE")
            is_waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'ir_async'::regclass AND NOT granted"
            wait_until(lambda: upgrade.done() or database.value(is_waiting), "the upgrade ends or waits")
            cr.execute("LOCK TABLE ir_async_worker IN ACCESS SHARE MODE; COMMIT")
        upgrade.result()
    assert not database.sql("SELECT FROM ir_model_fields WHERE model = 'ir.async.worker' AND name = 'date_ready'")


def test_upgrade_beside_views_of_others(database):
    """A view that the version before had is deleted when the modules that inherited it have been upgraded, too."""
    load(database, '-i', 'test_ir_async_web')
    make_old(database)
    with database.env() as env:
        view = env.ref('test_ir_async_web.ir_async_worker_view_list')
        view.inherit_id = old = view.inherit_id.copy()
        view.active = False  # by the user
        env['ir.model.data'].create({'module': 'ir_async', 'name': 'old', 'model': old._name, 'res_id': old.id})
    database.leave()
    load(database, '-u', 'ir_async')
    with database.env() as env:
        assert env.ref('test_ir_async_web.ir_async_worker_view_list') == env['ir.ui.view'].browse(view.id)
        assert not env['ir.ui.view'].browse(view.id).active
        assert not env['ir.ui.view'].browse(old.id).exists()


def test_functions_that_are_missing(database, server):
    """As after a dump was restored without them: nothing runs, the log says why, and an upgrade makes them again."""
    expected = ['WARNING .* backs off from', 'ERROR .* functions of this module are missing']
    with server(database, workers=1, settings={'poll_interval': 1}, expected=expected) as odoo_server:
        assert database.wait_for(database.enqueue('effect', 'before')).state == 'done'
        database.sql("DROP FUNCTION ir_async_begin, ir_async_finish")
        job_id = database.enqueue('effect', 'job')
        odoo_server.wait_for_log("functions of this module are missing")
        assert database.job(job_id).state in ('created', 'processing')
        assert not database.runs('job')
        load(database, '-u', 'ir_async')
        assert database.wait_for(job_id).state == 'done'


def test_functions_of_another_role(database):
    """An upgrade replaces what differs, and leaves the rest to whoever owns it."""
    database.sql("ALTER FUNCTION ir_async_begin OWNER TO postgres")
    load(database, '-u', 'ir_async')
    database.sql("""
        CREATE FUNCTION ir_async_begin(in_id int4) RETURNS int4 LANGUAGE sql AS 'SELECT 1';
        ALTER FUNCTION ir_async_begin(int4) OWNER TO odoo;
        ALTER FUNCTION ir_async_begin(int4, int4, int4) OWNER TO odoo;
    """)
    load(database, '-u', 'ir_async')
    assert database.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'ir\\_async\\_%'") == 2
