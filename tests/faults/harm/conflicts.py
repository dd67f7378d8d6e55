"""Statements that lose races."""

from __future__ import annotations

import time

FUNCTION = """
    CREATE OR REPLACE FUNCTION ir_async_fault() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        {body}
        RETURN NULL;
    END
    $$
"""
# A sequence counts on when a transaction is rolled back. A deadlock is what READ COMMITTED may meet instead.
RAISE = """
    IF nextval('ir_async_fault_count') %% {every} = 0 THEN
        RAISE EXCEPTION 'raised by the suite' USING ERRCODE = CASE
            WHEN '{code}' = '40001' AND current_setting('transaction_isolation') = 'read committed' THEN '40P01'
            ELSE '{code}' END;
    END IF;
""".replace('%%', '%')
TRIGGERS = """
    CREATE SEQUENCE ir_async_fault_count;
    CREATE TRIGGER fault AFTER UPDATE ON ir_async FOR EACH ROW EXECUTE FUNCTION ir_async_fault();
    CREATE TRIGGER fault AFTER INSERT ON ir_async_ledger FOR EACH ROW EXECUTE FUNCTION ir_async_fault();
    CREATE CONSTRAINT TRIGGER fault_at_commit AFTER INSERT ON ir_async_ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION ir_async_fault();
"""
CODES = ['40001', '40001', '40P01', '55P03', '53200']


def prepare(database):
    """Create the triggers. They do nothing until the body of their function is replaced, which takes no lock."""
    database.sql(FUNCTION.format(body=''))
    database.sql(TRIGGERS)


class Conflicts:
    WEIGHTS = {'raise_at_statement': 3}

    def raise_at_statement(self):
        """serialization failure, deadlock, lock timeout or lack of memory at each n-th UPDATE of a job, INSERT or COMMIT of a method"""
        database, code, every = self._database(), self.rng.choice(CODES), self.rng.choice([2, 3, 5, 7, 11])

        def toggle(seconds):
            database.sql(FUNCTION.format(body=RAISE.format(every=every, code=code)))
            time.sleep(seconds)
            self._repeat(self._reset_conflicts)

        self._meanwhile(toggle, self.rng.uniform(2, 10))

    def _reset_conflicts(self):
        for database in self.world.databases:
            database.sql(FUNCTION.format(body=''))
