import os

import psycopg2

from odoo import api, models

LOCKS = []  # connections that hold locks for as long as the process lives, or until `release_locks`


class TestAsyncEffect(models.Model):
    """Jobs that meet with trouble, or make some."""
    _inherit = 'test.async.effect'

    def _connect(self):
        """Return a connection of our own, in a transaction."""
        return psycopg2.connect(host=os.environ['PGHOST'], user='odoo', dbname=self.env.cr.dbname, application_name='test')

    @api.model
    def break_connections(self, name):
        """Lock the jobs that were claimed with this one, and terminate the connections of this process; once."""
        self._trace(name)
        if len(self._read_trace(name)) > 1:
            return
        connection = self._connect()
        LOCKS.append(connection)
        with connection.cursor() as cr:
            cr.execute("""
                SELECT id FROM ir_async
                 WHERE state = 'processing' AND session = (SELECT session FROM ir_async WHERE id = %s) AND id != %s
                   FOR UPDATE
            """, [self.env['ir.async'].current().id] * 2)
            if cr.fetchall():
                self._trace(name.replace('breaking', 'locked'))
            cr.execute("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = %s AND datname = current_database()
            """, [f'odoo-{os.getpid()}'])
        self.env.cr.execute("SELECT 1")

    @api.model
    def release_locks(self, name):
        self._trace(name)
        while LOCKS:
            LOCKS.pop().close()
