"""Where the workers come from, and what is said when they cannot."""

import os
import subprocess

import pytest
from harness import ODOO, WITH_US, Server, wait_until

COMMAND = ('ir_async', '--workers=2')


@pytest.fixture
def run(cluster, tmp_path):
    """A function that starts Odoo with a configuration and returns the process, whose output can be read."""

    def run(*args, conf='', **env):
        path = tmp_path / f'{len(processes)}.conf'
        path.write_text(f"{(cluster.folder / 'odoo.conf').read_text()}\n[ir_async]\n{conf}\n")
        process = subprocess.Popen(
            [*WITH_US, 'TERM', 'env', *(f'{key}={value}' for key, value in env.items()), *ODOO, *args, '-c', path],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    processes = []
    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_wrong_configuration(database, run):
    """Whatever is wrong is said, and nothing is started."""
    server, command = (*Server.PREFORK, '-d', database.name), ('ir_async', '-d', database.name)
    cases = [
        (run(*server, ODOO_IR_ASYNC_WORKERS='x'), "ODOO_IR_ASYNC_WORKERS = 'x': expected a whole number"),
        (run(*server, conf="wokers = 2"), "wokers: no such setting"),
        (run(*server, conf="stop_timeout = -1"), "[ir_async] stop_timeout = '-1': expected a number of seconds"),
        (run(*command, ODOO_IR_ASYNC_WORKERS='x'), "ODOO_IR_ASYNC_WORKERS = 'x': expected a whole number"),
        (
            run(*command, conf="limit_time_real = soon"),
            "[ir_async] limit_time_real = 'soon': expected a number of seconds",
        ),
        (run(*command, conf="wokers = 2"), "wokers: no such setting"),
        (run(*command, ODOO_IR_ASYNC_WOKERS='2'), "ODOO_IR_ASYNC_WOKERS: no such setting"),
        (run(*command, '--workers=1', conf="wokers = 2"), "wokers: no such setting"),
        (run(*command, '--workers=x'), "an option has a wrong value: invalid literal for int() with base 10: 'x'"),
        (run(*command, '--workers=0'), "0 workers"),
        (run(*command, '--run=4711'), "no job 4711"),
        (run(*command, '--run=0'), "no job 0"),
        (run(*command, '--run=abc'), "an option has a wrong value"),
        (run('ir_async', '-d', 'nowhere', '--run=1'), 'database nowhere cannot be used: '),
        (run('ir_async', '-d', 'postgres', '--run=1'), "database postgres does not have this version of ir_async"),
    ]
    for process, message in cases:
        output, _ = process.communicate(timeout=180)
        assert process.returncode, process.args
        assert message in output
        assert 'Traceback' not in output
    assert not database.cluster.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", dbname='postgres')


def test_run_in_the_foreground(database, run):
    job_id = database.enqueue('effect', 'job')
    other_id = database.enqueue('effect', 'other')
    process = run('ir_async', '-d', database.name, f'--run={job_id}')
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert database.job(job_id).state == 'done'
    assert database.job(other_id).state == 'created'
    assert [run.pid for run in database.runs()] == [process.pid]


def test_failure_in_the_foreground(database, run, tmp_path):
    """The exit code says whether the job ended well."""
    job_id = database.enqueue('fail_unless', 'job', str(tmp_path / 'gate'))
    process = run('ir_async', '-d', database.name, f'--run={job_id}')
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 1, output
    assert output.splitlines()[-1] == f"ir_async: job {job_id} is now failed"
    waiting_id = database.enqueue('effect', 'child', options={'delay': 1000})
    database.sql("UPDATE ir_async SET state = 'waiting' WHERE id = %s", [waiting_id])
    for id_, why in ((job_id, "failed: retry it first"), (waiting_id, "waiting: it waits for other jobs")):
        process = run('ir_async', '-d', database.name, f'--run={id_}')
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 1, output
        assert output.splitlines()[-1] == f"ir_async: job {id_} is {why}"
    locked_id = database.enqueue('effect', 'locked')
    with database.locked(locked_id):
        output, _ = run('ir_async', '-d', database.name, f'--run={locked_id}').communicate(timeout=180)
    assert output.splitlines()[-1] == f"ir_async: another transaction has locked job {locked_id}: try again later"


@pytest.mark.parametrize(
    'args', [Server.PREFORK, ('--max-cron-threads=0',), COMMAND], ids=['prefork', 'threaded', 'command']
)
def test_workers(database, server, args):
    """Every kind of server has as many workers as it is told to have, and they work."""
    with server(database, args=args) as odoo:
        database.enqueue_all('effect', ['first', 'second'], seconds=1)
        runs = wait_until(lambda: len(runs := database.runs()) == 2 and runs)
        assert {run.pid for run in runs} == {worker.pid for worker in odoo.workers()}
        assert {worker.nice() for worker in odoo.workers()} == {min(os.nice(0) + 10, 19)}
        assert database.wait_for_all() == {'done': 2}
    assert database.effects() == {'first': 1, 'second': 1}


@pytest.mark.parametrize(
    'args', [('--workers=1', '--max-cron-threads=0'), ('--max-cron-threads=0',)], ids=['prefork', 'threaded']
)
def test_no_workers(database, server, args):
    with server(database, args=args, workers=0) as odoo:
        odoo.wait_for_log("HTTP service (werkzeug) running")
        odoo.wait_for_log("Registry loaded")
        database.enqueue('effect', 'job')
        assert not odoo.workers()
        assert not odoo.listening()
    assert database.states() == {'created': 1}
