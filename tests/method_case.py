from unittest.mock import patch

from odoo.tests import new_test_user

from .common import AsyncCase

RUNNER = 'odoo.addons.ir_async.service.runner'  # the logger that tells how jobs end


class MethodCase(AsyncCase):
    """Each test makes the methods it needs, on partners."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ir_async = cls.env['ir.async']
        cls.partner = cls.env['res.partner'].create({'name': "Azure Interior"})
        cls.user = new_test_user(cls.env, 'anna', 'base.group_user,base.group_partner_manager')
        cls.other_user = new_test_user(cls.env, 'bert', 'base.group_user,base.group_partner_manager')
        cls.manager = new_test_user(cls.env, 'mona', 'base.group_user,ir_async.ir_async_group_manager')

    def add_method(self, function, name=None, model='res.partner'):
        """Make a function a method of a model until the test is over; a decorator."""
        self.startPatcher(patch.object(self.registry[model], name or function.__name__, function, create=True))
        return function

    def partner_of(self, user):
        return self.partner.with_user(user)

    def row(self, job, *columns):
        """Return what is in the database."""
        job.flush_model()
        self.env.cr.execute(f"SELECT {', '.join(columns)} FROM ir_async WHERE id = %s", [job.id])
        [row] = self.env.cr.fetchall()
        return row if len(columns) > 1 else row[0]

    def count_jobs(self):
        return self.ir_async.search_count([('id', '>', self._last_foreign_job_id)])
