from odoo import api, models

GATE = 4711


class TestAsyncWeb(models.AbstractModel):
    """What the buttons of the page call."""

    _name = 'test.async.web'
    _description = "Test of the web client"

    @api.model
    def start(self, outcome):
        return {'asyncJobId': self.env['ir.async'].call_notify(f"Job with {outcome}", self._work, outcome).id}

    @api.model
    def start_many(self, count):
        jobs = self.env['ir.async']
        for number in range(1, count + 1):
            jobs.call_notify(f"Job {number}", self._do_nothing)

    def _do_nothing(self):
        return

    def _work(self, outcome):
        """Wait until the test opens the gate."""
        self.env['ir.async'].report_progress(3, 4, "Nearly there")
        self.env.cr.execute("SELECT pg_advisory_xact_lock_shared(%s)", [GATE])
        if outcome == 'error':
            return 1 / 0
        return {
            'nothing': None,
            'action': {
                'type': 'ir.actions.act_window',
                'name': "Countries",
                'res_model': 'res.country',
                'view_mode': 'list',
            },
            'large': "x" * 100_000,
        }[outcome]
