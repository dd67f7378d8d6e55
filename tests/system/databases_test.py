"""Databases come, go, change, and share the workers."""
from harness import wait_until


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
        second.wait_for_run('running')
        odoo.expected += [r'WARNING .* lost the claim', r'WARNING .* taken away', r'ERROR .* odoo.sql_db: bad query']
        second.drop()
        odoo.wait_for_log('lost the claim')
        gate.touch()
        with first.env() as env:
            for i in range(2):
                env['ir.async'].call(env['test.async.effect'].effect, f'after {i}', 1)
        assert first.wait_for_all() == {'done': 3}
        assert len({run.pid for run in first.runs() if 'after' in run.name}) == 2, "both workers work"


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
