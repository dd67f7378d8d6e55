"""PostgreSQL goes away, and has its own opinion."""

import random
import signal

import pytest
from harness import wait_until


@pytest.mark.parametrize('how', [signal.SIGQUIT, signal.SIGINT], ids=['immediate', 'fast'])
def test_restart_under_load(cluster, database, server, how):
    """Every job ends, every effect is there exactly once, and nobody is blamed."""
    names = {f'job {i}' for i in range(300)}
    expected = ['odoo.sql_db: bad query', 'WARNING .* (taken away|lost the claim|lost its connection)']
    with server(database, workers=4, expected=expected) as odoo:
        with database.env() as env:
            for name in names:
                env['ir.async'].call(env['test.async.effect'].effect, name, random.uniform(0.02, 0.05))
        wait_until(lambda: len(database.runs()) >= 50, "jobs run")
        cluster.stop(how)
        cluster.start()
        states = database.wait_for_all()
        odoo.wait_until_ready()
    assert states == {'done': 300}
    assert database.effects() == dict.fromkeys(names, 1)
    assert database.value("SELECT max(deaths) FROM ir_async") == 0
    assert len(database.runs()) > 300, "jobs were running when PostgreSQL stopped"


def test_numbers_of_workers_after_a_crash(cluster, database):
    """A new worker never gets the number of an old one, whose jobs it would take for its own."""
    next_number = "SELECT nextval('ir_async_worker_id_seq')"
    before = [database.value(next_number) for _ in range(3)]
    cluster.stop(signal.SIGQUIT)
    cluster.start()
    assert database.value(next_number) > max(before)


def test_serialization_failure(database, server, tmp_path):
    """Who loses against another transaction begins again, in the same place and with the same claim."""
    gate = tmp_path / 'gate'
    with database.env() as env:
        record_id = env['test.async.effect'].create({'name': 'sum', 'value': 1}).id
    with server(database, expected=['odoo.sql_db: bad query']):
        with database.env() as env:
            record = env['test.async.effect'].browse(record_id)
            job_id = env['ir.async'].call(record.add, 'add', 10, str(gate)).id
        database.wait_for_run('add')
        claim_number = database.job(job_id).claim_number
        database.sql("UPDATE test_async_effect SET value = value + 100 WHERE id = %s", [record_id])
        gate.touch()
        job = database.wait_for(job_id)
    assert (job.state, job.claim_number, job.starts, job.attempts) == ('done', claim_number, 2, 1)
    assert len(database.runs('add')) == 2
    assert database.value("SELECT value FROM test_async_effect") == 111


def test_work_and_outcome_in_one_transaction(database, server):
    """What the method wrote and the end of its job become visible at once."""
    with server(database):
        assert database.wait_for(database.enqueue('effect', 'job')).state == 'done'
    [[of_job, of_effect]] = database.sql(
        "SELECT job.xmin AS of_job, effect.xmin AS of_effect FROM ir_async job, test_async_effect effect"
    )
    assert of_effect == of_job
