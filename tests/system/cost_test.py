"""What a job costs the database: statements, notifications, dead rows."""

import pytest
from harness import wait_until

pytestmark = pytest.mark.alone

JOBS = 2000


def test_cost(cluster, database, server, statements, measured):
    """Short jobs are claimed together, each has a transaction of its own, and nothing else is done for them."""

    def rows():
        return database.sql("""
            SELECT n_tup_ins AS inserted, n_tup_upd + n_tup_del AS dead FROM pg_stat_user_tables WHERE relname = 'ir_async'
        """)[0]

    def notifications():
        return cluster.log.read_text().count('pg_notify')

    with server(database, workers=2):
        database.wait_for(database.enqueue('nothing'))
        start, notified = len(statements(database.name)), notifications()
        with database.env() as env:
            for _i in range(JOBS):
                env['ir.async'].call(env['test.async.effect'].nothing)
        database.wait_for_all()
        wait_until(
            lambda: not database.backends("state LIKE 'idle in transaction%%'"), "nobody is left in a transaction"
        )
        executed = [statement for _worker, statement in statements(database.name)[start:]]
        notified = notifications() - notified
    database.leave()
    # now that all sessions are over, all of it is counted
    wait_until(lambda: rows().inserted == JOBS + 1, "PostgreSQL has counted the rows")
    measured(
        f"{len(executed) / JOBS:.2f} statements, {rows().dead / JOBS:.2f} dead rows per job; {notified} notifications in all"
    )
    # BEGIN; all that is forgotten, a new BEGIN and the claim; the end; COMMIT. The statements below are one line of the log each.
    assert len(executed) < 5.5 * JOBS, "four round trips, and one or two for each claim"
    assert executed.count('COMMIT') >= JOBS, "each in its own transaction"
    assert len([statement for statement in executed if 'RESET ALL' in statement]) >= JOBS, "each as on a new connection"
    # One that was claimed for a worker that is not soon free goes back, with a row and a notification more.
    claims = database.value("SELECT sum(claim_number) FROM ir_async")
    assert claims < 1.5 * JOBS
    assert rows().dead < 2.02 * claims
    assert notified < 10 + claims - JOBS


def test_connection(database, server):
    """Jobs that are claimed together have one connection, one after the other, but leave nothing on it to each other."""
    with database.env() as env:
        for _i in range(100):
            env['ir.async'].call(env['test.async.effect'].scratch)
    with server(database, workers=1):
        assert database.wait_for_all() == {'done': 100}


def test_plans_of_an_almost_empty_table(database, server):
    """What PostgreSQL plans while there is hardly a job does not cost more with each job that is queued later."""

    def scans():
        return database.value("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'ir_async'")

    with server(database, workers=1):
        database.wait_for(database.enqueue('nothing'))
        database.sql("VACUUM ANALYZE ir_async")
        for _i in range(15):  # from the sixth time on, a plan is kept
            database.wait_for(database.enqueue('nothing'))
        with database.env() as env:
            for _i in range(JOBS):
                env['ir.async'].call(env['test.async.effect'].nothing)
        before = scans()
        database.wait_for_all()
    database.leave()
    assert scans() - before < JOBS / 2
