import json

from odoo.tests import HttpCase, no_retry, tagged

from odoo.addons.web.tests import test_js

SUCCESS = '[HOOT] Test suite succeeded'


@tagged('post_install', '-at_install')
class TestJs(HttpCase):
    """The tests of static/tests, with the mouse of a desktop."""

    preset = 'desktop'
    tags = ''

    @no_retry
    def test_hoot(self):
        self.browser_js(
            f'/web/tests?headless&loglevel=2&preset={self.preset}{self.tags}&timeout=15000&id={_hoot_hash("@ir_async")}',
            '',
            '',
            login='admin',
            timeout=600,
            success_signal=SUCCESS,
            error_checker=test_js.unit_test_error_checker,
        )


@tagged('post_install', '-at_install')
class TestJsMobile(TestJs):
    """The same on a phone, but for those that need no screen."""

    browser_size = '375x667'
    touch_enabled = True
    preset = 'mobile'
    tags = '&tag=-headless'


@tagged('post_install', '-at_install')
class TestTour(HttpCase):
    def test_tour(self):
        user = self.env.ref('base.user_admin')
        target = self.env['res.partner'].with_user(user).browse()
        jobs = self.env['ir.async']
        for name, state, payload in (
            (
                "Good Job",
                'succeeded',
                {
                    'result': {
                        'type': 'ir.actions.act_window',
                        'name': "Result of the job",
                        'res_model': 'res.country',
                        'view_mode': 'list',
                    }
                },
            ),
            (
                "Bad Job",
                'failed',
                {
                    'error': {
                        'code': 0,
                        'message': "Odoo Server Error",
                        'data': {
                            'name': 'builtins.ValueError',
                            'message': "Nobody knows",
                            'arguments': [],
                            'context': {},
                            'debug': "Traceback",
                        },
                    }
                },
            ),
        ):
            job = jobs.call_notify(name, target.create, [])
            job.flush_model()
            self.env.cr.execute(
                "UPDATE ir_async SET state = %s, payload = %s, revision = 3, date_start = create_date, date_done = now() WHERE id = %s",
                [state, json.dumps(payload), job.id],
            )
        jobs.invalidate_model()
        self.start_tour('/odoo', 'ir_async_tour', login='admin')


def _hoot_hash(name):
    """Return the id of a suite, as HOOT computes it."""
    digest = 0
    for char in name:
        digest = (digest * 31 + ord(char)) & 0xFFFFFFFF
    return f'{digest:08x}'
