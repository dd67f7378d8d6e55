"""Databases come, go, change, and share the workers."""

import io
import itertools
import os
import re
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
from harness import ODOO, Database, Server, wait_until

from odoo.modules.registry import Registry

COPIED = 'WARNING .* queued jobs came with a copy of another database'


def test_many_databases(make_database, server, tmp_path):
    """Without ``-d``, workers serve all databases, those that are made and dropped meanwhile, too."""
    first, second = make_database(), make_database()
    with server() as odoo:
        jobs = [first.enqueue('effect', 'first'), second.enqueue('effect', 'second')]
        assert first.wait_for(jobs[0]).state == 'done'
        assert second.wait_for(jobs[1]).state == 'done'

        third = make_database()
        assert third.wait_for(third.enqueue('effect', 'third')).state == 'done'

        gate = tmp_path / 'gate'
        second.enqueue('effect_then_wait', 'running', str(gate), commits=['before', 'after'])
        second.wait_for_run('running waits')
        odoo.expected += [r'WARNING .* lost the claim', r'WARNING .* taken away', r'ERROR .* odoo.sql_db: bad query']
        second.drop()
        odoo.wait_for_log('lost the claim')
        gate.touch()
        with first.env() as env:
            for i in range(2):
                env['ir.async'].call(env['test.async.effect'].effect, f'after {i}', 1)
        assert first.wait_for_all() == {'done': 3}
        assert len({run.pid for run in first.runs() if 'after' in run.name}) == 2, "both workers work"


def test_replaced_under_the_same_name(make_database, cluster, server):
    """Nothing that was cached of a database is taken for that of another one which has its name now."""
    old, new = make_database(), make_database()
    for database in (old, new):
        with database.env() as env:
            env['ir.config_parameter'].set_param('test.database', database.name)
        database.leave()
    with server(workers=1, settings={'poll_interval': 1}):
        assert old.wait_for(old.enqueue('parameter', 'test.database')).payload == {'result': old.name}
        old.drop()
        cluster.sql(f'ALTER DATABASE "{new.name}" RENAME TO "{old.name}"')
        assert old.wait_for(old.enqueue('parameter', 'test.database')).payload == {'result': new.name}


def test_fairness(make_database, server):
    """The jobs of one database do not wait for those of another."""
    busy, other = make_database(), make_database()
    with server(busy, other, workers=1):
        busy.enqueue_all('effect', [f'job {i}' for i in range(300)], seconds=0.05)
        wait_until(lambda: len(busy.runs()) >= 10)
        other.wait_for(other.enqueue('effect', 'job'))
        left = busy.states()['created']
        busy.sql("DELETE FROM ir_async WHERE state = 'created'")
        busy.wait_for_all()
    assert left > 150


def test_modules_in_flux(database, server):
    """Nothing is run while modules are upgraded."""

    def last_visit():
        visits = [backend.state_change for backend in database.control_backends()]
        return max(visits, default=None)

    with server(database):
        database.wait_for(database.enqueue('effect', 'before'))
        database.sql("UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'web'")
        job_id = database.enqueue('effect', 'job')
        for _i in range(3):
            visit = last_visit()
            wait_until(lambda visit=visit: (now := last_visit()) and now != visit, "a worker looks at the queue")
        assert database.job(job_id).state == 'created'
        assert not database.runs('job')
        database.sql("UPDATE ir_module_module SET state = 'installed' WHERE name = 'web'")
        assert database.wait_for(job_id).state == 'done'


def test_caches_are_cleared_in_time(database, server):
    """A job sees what was changed in the transaction that enqueued it, cached or not."""
    with server(database, workers=1):
        database.wait_for(database.enqueue('parameter', 'test_ir_async.key'))
        for i in range(20):
            with database.env() as env:
                env['ir.config_parameter'].set_param('test_ir_async.key', f'value {i}')
                job_id = env['ir.async'].call(env['test.async.effect'].parameter, 'test_ir_async.key').id
            assert database.wait_for(job_id).payload == {'result': f'value {i}'}


def test_registry_changes(cluster, database, server):
    """Workers follow what happens to the registry."""

    def parameter():
        return database.wait_for(database.enqueue('parameter', 'test_ir_async.key')).payload

    with server(database, workers=1) as odoo:
        assert parameter() == {'result': False}
        for value in ('one', 'two'):
            with database.env() as env:
                env['ir.config_parameter'].set_param('test_ir_async.key', value)
            assert parameter() == {'result': value}

        cluster.odoo('-d', database.name, '-i', 'test_ir_async_later')
        with database.env() as env:
            job_id = env['ir.async'].call(env['test.async.effect'].effect_with_note, 'name', 'note').id
        assert database.wait_for(job_id).state == 'done'
        assert len(odoo.workers()) == 1
    assert database.value("SELECT note FROM test_async_effect") == 'note'


def test_uninstalled_before_the_signal(cluster, database, server):
    """Odoo commits the end of an uninstallation, loads the registry again, and signals it then: no job runs with the old one."""
    cluster.odoo('-d', database.name, '-i', 'test_ir_async_later')
    with server(database, workers=1):
        assert database.wait_for(database.enqueue('effect', 'before')).state == 'done'
        command = [*ODOO, 'module', 'uninstall', 'test_ir_async_later', '-d', database.name]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as odoo:
            log = itertools.takewhile(lambda line: 'Reloading registry once more' not in line, odoo.stderr)
            lines = ''.join(log)
            odoo.send_signal(signal.SIGSTOP)
            try:
                assert database.value("SELECT state FROM ir_module_module WHERE name = 'test_ir_async_later'") == (
                    'uninstalled'
                ), lines
                job = database.wait_for(database.enqueue('effect', 'after'))
            finally:
                odoo.send_signal(signal.SIGCONT)
                odoo.communicate()
        assert job.state == 'done', job.payload


def test_addons_path_without_a_module(cluster, database, server, tmp_path):
    """A server without the code of an installed module runs no job: another one may have it. It says which one is missing."""
    own, others = re.search(r'(.*),(.*)', os.environ['ODOO_ADDONS_PATH']).groups()
    (tmp_path / 'test_ir_async').symlink_to(Path(others) / 'test_ir_async')
    args = [*Server.PREFORK, f'--addons-path={own},{tmp_path}']
    expected = [
        'lacks installed modules: test_ir_async_later. ',
        'not installable, skipped',
        'Some modules are not loaded',
    ]
    with server(database, args=args, expected=expected) as odoo:
        assert database.wait_for(database.enqueue('effect', 'before')).state == 'done'
        cluster.odoo('-d', database.name, '-i', 'test_ir_async_later')
        with database.env() as env:
            job_id = env['ir.async'].call(env['test.async.effect'].effect_with_note, 'name', 'note').id
        odoo.wait_for_log('lacks installed modules')
        command = [*ODOO, args[-1], 'ir_async', '-d', database.name, f'--run={job_id}']
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        assert done.stderr.endswith(
            f"ir_async: the addons path lacks installed modules of database {database.name}: test_ir_async_later\n"
        )
        with server(database):
            job = database.wait_for(job_id)
        assert (job.state, job.starts, job.deaths) == ('done', 1, 0), job.payload
        assert odoo.log.count('lacks installed modules') <= len(odoo.workers()), "once for each worker"

    (tmp_path / 'test_ir_async_later').mkdir()
    (tmp_path / 'test_ir_async_later' / '__manifest__.py').write_text("{'installable': False, 'license': 'LGPL-3'}")
    expected.append('Missing `author` key')
    with server(database), server(database, args=args, expected=expected) as late:
        wait_until(lambda: late.log.count('lacks installed modules') == len(late.workers()), "both have looked")
        # the workers that came last would look for all others
        assert database.wait_for(database.enqueue('effect', 'after')).state == 'done'


def test_module_without_code(cluster, database, server):
    """Modules that were imported as data, such as those of Studio, are on no addons path. Jobs run."""
    cluster.odoo('-d', database.name, '-i', 'base_import_module')
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        archive.writestr('customization/__manifest__.py', repr({'name': "Customization", 'license': 'LGPL-3'}))
    with database.env() as env:
        env['ir.module.module']._import_zipfile(content)
    with server(database):
        assert database.wait_for(database.enqueue('effect', 'job')).state == 'done'


def test_half_of_an_installation_fails(database, server):
    """Jobs have the modules that were installed before another one failed."""
    with server(database, workers=1):
        database.wait_for(database.enqueue('effect', 'before'))
        command = [
            *ODOO,
            '-d',
            database.name,
            '-i',
            'test_ir_async_broken',
            '--stop-after-init',
            '--no-http',
            '--skip-auto-install',
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert 'no such luck' in done.stderr, done.stderr
        states = dict(database.sql("SELECT name, state FROM ir_module_module WHERE name LIKE 'test_ir_async%'"))
        assert (states['test_ir_async_later'], states['test_ir_async_broken']) == ('installed', 'uninstalled')
        Registry.delete(database.name)  # we enqueue with what is installed
        job = database.wait_for(database.enqueue('effect_with_note', 'after', 'text'))
        assert job.state == 'done', job.payload


def test_not_ours(cluster, make_database, server):
    """Databases without the module, of another version, or that are no Odoo's at all, are left alone."""
    ours = make_database()
    without, empty = make_database(template='system_base'), make_database(template='template1')
    other = make_database()
    job_id = other.enqueue('effect', 'of another version')
    other.leave()
    other.sql("UPDATE ir_module_module SET latest_version = '18.0.1.3' WHERE name = 'base'")
    with server():
        assert ours.wait_for(ours.enqueue('effect', 'job')).state == 'done'
        for database in (without, empty, other):
            cluster.sql("SELECT pg_notify('odoo_async', %s)", [database.name])
        assert ours.wait_for(ours.enqueue('effect', 'another job')).state == 'done'
        for database in (without, empty, other):
            wait_until(lambda database=database: not database.backends(), "nobody is in the database")
    assert other.job(job_id).state == 'created'
    assert not other.runs()


def fill_production(database):
    """Leave jobs of each kind in a database; return their ids."""
    with database.env() as env:
        effect = env['test.async.effect']
        env['ir.async.channel'].create([{'name': 'limited', 'capacity': 1}, {'name': 'slow', 'interval': 3600}])

        def call(name, **options):
            return env['ir.async'].with_options(**options).call(effect.effect, f'production {name}')

        parent = call('parent')
        jobs = parent + call('child', after=parent) + call('dated', delay=1) + call('keyed', key='sync')
        jobs += (
            call('limited', channel='limited')
            + call('of a limited kind', channel='limited/a')
            + call('slow', channel='slow')
        )
        jobs += call('running') + call('running limited', channel='limited')
        ids, running_ids = jobs.ids, jobs[-2:].ids
    # The sessions are gone by the time of the copy, or are those of another cluster.
    database.sql(
        "UPDATE ir_async SET state = 'processing', worker_id = 4711, claim_number = 1, date_start = now() WHERE id = ANY(%s)",
        [running_ids],
    )
    database.sql("UPDATE ir_async SET date_scheduled = now() - interval '1 day' WHERE date_scheduled IS NOT NULL")
    database.leave()
    return ids


def by_template(cluster, database, name):
    return Database(cluster, name, template=database.name)


def by_dump(cluster, database, name):
    copy = Database(cluster, name, template='template0')
    settings = ['-h', str(cluster.folder), '-U', 'odoo']
    dump = subprocess.run(
        [cluster._bin / 'pg_dump', *settings, '-Fc', database.name], check=True, stdout=subprocess.PIPE
    ).stdout
    subprocess.run([cluster._bin / 'pg_restore', *settings, '--no-owner', '-d', name], check=True, input=dump)
    return copy


def by_odoo(cluster, database, name):
    copy = Database.__new__(Database)
    copy.cluster, copy.name = cluster, name
    subprocess.run([*ODOO, 'db', 'duplicate', database.name, name], check=True, capture_output=True)
    return copy


@pytest.mark.parametrize('copy_database', [by_template, by_dump, by_odoo])
def test_copy(cluster, database, server, copy_database):
    """Nothing of a copied queue runs in the copy, and what is enqueued there does; until somebody adopts the rest."""
    ids = fill_production(database)
    copy = copy_database(cluster, database, f'{database.name}_copy')
    try:
        states = copy.states()
        with server(copy, workers=2, settings={'poll_interval': 1}, expected=[COPIED]) as odoo:
            odoo.wait_for_log('9 queued jobs came with a copy')
            for _round in range(2):
                with copy.env() as env:
                    effect = env['test.async.effect']
                    own = [
                        env['ir.async'].with_options(**options).call(effect.effect, 'own').id
                        for options in (
                            {},
                            {'channel': 'limited'},
                            {'channel': 'limited/a'},
                            {'key': 'sync'},
                            {'priority': 99},
                        )
                    ]
                assert not set(own) & set(ids)
                for job_id in own:
                    assert copy.wait_for(job_id).state == 'done'
            assert copy.effects() == {'own': 10}
            copy.sql("DELETE FROM ir_async WHERE NOT id = ANY(%s)", [ids])
            assert copy.states() == states
            copy.sql("UPDATE ir_async_channel SET interval = 0")
            with copy.env() as env:
                env['ir.async'].search([('is_elsewhere', '=', True)]).adopt()
            assert copy.wait_for_all() == {'done': len(ids)}
        assert copy.effects() == {'own': 10} | {run.name: 1 for run in copy.runs() if run.name != 'own'}
        assert len(copy.effects()) == len(ids) + 1
    finally:
        copy.drop()


def why_unserved(database):
    """Return why no live worker would start a job there, and be out of the way again."""
    with database.env() as env:
        reason = env['ir.async']._why_unserved()
    database.leave()
    return reason


def wait_until_left(database):
    """Wait until the workers serve a database without a connection to it."""
    wait_until(lambda: why_unserved(database) is None, "a worker serves it")
    wait_until(lambda: not database.backends(), "nobody is in the database", 120)


def test_a_copy_is_not_served(cluster, database, server):
    """The workers of the original, whose rows came along, do not serve the copy."""
    with server(database):
        wait_until_left(database)
        copy = by_template(cluster, database, f'{database.name}_copy')
        try:
            assert why_unserved(copy) == 'no_worker'
            assert why_unserved(database) is None
        finally:
            copy.drop()


@pytest.mark.parametrize('are_all_served', [False, True])
def test_renamed_while_served(cluster, database, server, are_all_served):
    """Workers serve a database under the name that they know; those of all databases learn the new one."""
    old_name, new_name = database.name, f'{database.name}_new'
    with server(*([] if are_all_served else [database]), settings={'poll_interval': 1}):
        wait_until_left(database)
        cluster.sql(f'ALTER DATABASE "{old_name}" RENAME TO "{new_name}"')
        database.name = new_name
        try:
            if are_all_served:
                wait_until(lambda: why_unserved(database) is None, "a worker serves it under its new name", 60)
                assert database.wait_for(database.enqueue('effect', 'job')).state == 'done'
            else:
                assert why_unserved(database) == 'no_worker'
        finally:
            if not are_all_served:
                cluster.sql(f'ALTER DATABASE "{new_name}" RENAME TO "{old_name}"')
                database.name = old_name


def test_upgraded_while_served(database, server):
    """Workers of another version leave the database alone: they do not serve it."""
    with server(database):
        wait_until_left(database)
        version = database.value("SELECT latest_version FROM ir_module_module WHERE name = 'ir_async'")
        for latest, reason in (('19.0.9.9.9', 'no_worker'), (version, None)):
            database.sql("UPDATE ir_module_module SET latest_version = %s WHERE name = 'ir_async'", [latest])
            assert why_unserved(database) == reason


def test_rename(cluster, database, server):
    """A database that is renamed goes on."""
    ids = [database.enqueue('effect', 'job'), database.enqueue('effect', 'limited', options={'channel': 'limited'})]
    database.leave()
    old_name, database.name = database.name, f'{database.name}_new'
    cluster.sql(f'ALTER DATABASE "{old_name}" RENAME TO "{database.name}"')
    with server(database):
        for job_id in ids:
            assert database.wait_for(job_id).state == 'done'


def test_neutralized_under_the_same_name(cluster, database, server, tmp_path):
    """A dump that takes the place of its original, while workers look at all databases, runs nothing of what it had."""
    ids = fill_production(database)
    dump = tmp_path / 'dump.zip'
    subprocess.run([*ODOO, 'db', 'dump', database.name, dump], check=True, capture_output=True)
    for args, states in ((['--neutralize'], {'cancelled': 9}), ([], {'created': 6, 'waiting': 1, 'processing': 2})):
        database.drop()
        # A worker that comes between the restore and the neutralization says so.
        with server(settings={'poll_interval': 1}, expected=[COPIED]) as odoo:
            done = subprocess.run(
                [*ODOO, 'db', 'load', '--force', *args, database.name, dump],
                check=False,
                capture_output=True,
                text=True,
            )
            assert not done.returncode, done.stderr
            own = database.enqueue('effect', 'own')
            assert database.wait_for(own).state == 'done'
            assert database.effects() == {'own': 1}
            database.sql("DELETE FROM ir_async WHERE NOT id = ANY(%s)", [ids])
            assert database.states() == states
            if not args:
                odoo.wait_for_log('9 queued jobs came with a copy')


def test_without_the_privilege(cluster, database, server):
    """The queue works where nobody may ask for the identifier of the cluster."""
    database.sql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    ids = [database.enqueue('effect', 'job'), database.enqueue('effect', 'keyed', options={'key': 'sync'})]
    ids += database.enqueue_all('effect', [f'job {i}' for i in range(60)])
    with server(database):
        for job_id in ids:
            assert database.wait_for(job_id).state == 'done'
        assert database.job(ids[0]).origin.endswith(f'/{database.name}')
