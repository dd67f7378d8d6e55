"""The addon is installed, upgraded, and uninstalled, on a server that works."""
import re
import subprocess
import threading
import xmlrpc.client

import pytest
from harness import ODOO, complaints, wait_until

WITH_HTTP = ('--workers=0', '--max-cron-threads=0', '--load=base,rpc,web')
VERSION = '19.0.1.1.0'
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
        '-d', database.name, *args, '--skip-auto-install', '--stop-after-init', '--no-http', '--max-cron-threads=0',
        expected=expected)


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
    return [tuple(row) for row in database.sql(r"""
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
    """)]


def files(cluster, database):
    """Return the files in the database's filestore whose content is that of the tests'."""
    return [
        path for path in (cluster.folder / 'data' / 'filestore' / database.name).rglob('*')
        if path.is_file() and path.read_bytes().startswith(b'content of a job')]


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
            {'name': 'export.csv', 'raw': b'content of a job, %d' % job.id, 'res_model': 'ir.async', 'res_id': job.id})
        env['ir.async'].with_options(channel='mine', after=job).call(env['test.async.effect'].noop)


def wait_for_lock(database):
    """Wait until a job's transaction holds a lock on the table of jobs."""
    wait_until(lambda: database.value("""
        SELECT count(*) FROM pg_locks
         WHERE relation = 'ir_async'::regclass AND mode = 'RowExclusiveLock' AND granted
           AND pid IN (SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction')
    """), "it has the lock")


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
    assert {row.key: row.value for row in database.sql(
        "SELECT key, value FROM ir_config_parameter WHERE key ~ '^ir_async'")} == {'ir_async.export': 'True', 'ir_async.report': 'True'}


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
    """Have a database as version 19.0.1.0.0 left it."""
    database.sql("""
        ALTER TABLE ir_async ADD COLUMN database varchar DEFAULT current_database();
        UPDATE ir_async SET database = current_database();
        ALTER TABLE ir_async
            DROP COLUMN origin,
            ADD CONSTRAINT ir_async_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES ir_async (id) ON DELETE SET NULL;
        ALTER TABLE ir_async DROP COLUMN IF EXISTS starts;
        ALTER TABLE ir_async_worker ALTER server_start TYPE timestamp USING NULL;
        DROP INDEX ir_async_after_rel_child_idx, ir_async_after_rel_parent_idx;
        CREATE INDEX ir_async_after_rel_unmet_idx ON ir_async_after_rel (job_id) WHERE unmet;
        CREATE INDEX ir_async_after_rel_after_idx ON ir_async_after_rel (after_id) WHERE unmet;
        DELETE FROM ir_async_channel WHERE name = 'report';
        UPDATE ir_module_module SET latest_version = '19.0.1.0.0' WHERE name = 'ir_async';
        UPDATE ir_model_fields SET name = 'database' WHERE model = 'ir.async' AND name = 'origin';
        UPDATE ir_model_data SET name = 'field_ir_async__database' WHERE module = 'ir_async' AND name = 'field_ir_async__origin';
        INSERT INTO ir_model_data (module, name, model, res_id, noupdate)
             SELECT 'ir_async', name, model, id, true
               FROM (SELECT 'ir_async_channel_export', 'ir.async.channel', id FROM ir_async_channel WHERE name = 'export'
                      UNION ALL
                     SELECT 'ir_config_parameter_' || split_part(key, '.', 2), 'ir.config_parameter', id
                       FROM ir_config_parameter WHERE key IN ('ir_async.export', 'ir_async.report')) AS data (name, model, id);
    """)


def test_upgrade(cluster, database, server, tmp_path):
    """What was queued in the previous version runs in this one, but for what belongs to another database."""
    with database.env() as env:
        effect = env['test.async.effect']
        kept, parent = (env['ir.async'].call(effect.effect, name) for name in ('kept', 'parent'))
        child = env['ir.async'].with_options(after=parent).call(effect.effect, 'child')
        copied, ended = (env['ir.async'].call(effect.effect, name) for name in ('copied', 'ended'))
        dead = env['ir.async'].call(effect.effect, 'dead')
        kept_ids, copied_ids, ended_id = (kept + parent + child).ids, (copied + dead).ids, ended.id
    database.leave()
    make_old(database)
    database.sql("UPDATE ir_async SET state = 'done', date_done = now() WHERE id = %s", [ended_id])
    database.sql("UPDATE ir_async SET database = 'production' WHERE id = ANY(%s)", [[*copied_ids, ended_id]])
    database.sql("UPDATE ir_async SET state = 'processing', session = 4711, claims = 1 WHERE id = %s", [copied_ids[1]])

    # Some job uses the table: the upgrade waits for it, but readers do not wait for the upgrade.
    holder = cluster.connect(database.name)
    holder.autocommit = False
    upgrade = None
    try:
        with holder.cursor() as cr:
            cr.execute("SELECT FROM ir_async")
        logs = []
        upgrade = threading.Thread(target=lambda: logs.append(load(database, '-u', 'ir_async', expected=[COPIED])))
        upgrade.start()
        wait_until(lambda: database.value(
            "SELECT count(*) FROM pg_locks WHERE relation = 'ir_async'::regclass AND NOT granted"), "it tries")
        for _i in range(20):
            assert len(database.sql("SET lock_timeout = '2s'; SELECT id FROM ir_async")) == 6
        assert upgrade.is_alive()
    finally:
        holder.close()
        if upgrade:
            upgrade.join()
    [log] = logs
    assert 'Waiting for the jobs that use their table' in log

    assert database.value("SELECT latest_version FROM ir_module_module WHERE name = 'ir_async'") == VERSION
    assert not database.value("SELECT count(*) FROM information_schema.columns WHERE table_name = 'ir_async' AND column_name = 'database'")
    assert not database.value("SELECT count(*) FROM pg_constraint WHERE conname = 'ir_async_parent_id_fkey'")
    assert not database.value("SELECT count(*) FROM ir_model_constraint WHERE name = 'ir_async_parent_id_fkey'")
    assert database.value("SELECT count(*) FROM ir_async_channel WHERE name IN ('export', 'report')") == 2
    with server(database) as odoo_server:
        odoo_server.expected.append(COPIED)
        for job_id in kept_ids:
            assert database.wait_for(job_id).state == 'done'
        assert [database.job(job_id).state for job_id in copied_ids] == ['created', 'processing']
    assert database.effects() == {'kept': 1, 'parent': 1, 'child': 1}
    load(database, '-u', 'ir_async')


def transactions(cluster, database):
    """Return how many transactions a database has seen."""
    [[count]] = cluster.sql("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", [database.name])
    return count


def test_code_before_its_upgrade(cluster, database, server):
    """A database that this server's code did not upgrade yet is left alone, without a noise."""
    job_id = database.enqueue('effect', 'job')
    database.leave()
    make_old(database)
    # The server may come by while the upgrade below is under way.
    with server(database, workers=1, settings={'poll_interval': 1}, expected=['WARNING .* wait because of modules']) as odoo_server:
        odoo_server.wait_for_log("until its modules and this server have the same version")
        # It comes to each database in turn, again and again.
        before = transactions(cluster, database)
        wait_until(lambda: transactions(cluster, database) > before + 2, "it looks again")
        assert len(re.findall(r"until its modules and this server", odoo_server.log)) == 1
        assert not database.runs()
        load(database, '-u', 'ir_async')
        assert database.wait_for(job_id).state == 'done'


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
