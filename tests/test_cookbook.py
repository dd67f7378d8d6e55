import io
import re
from types import SimpleNamespace
from unittest.mock import Mock, patch

from odoo import SUPERUSER_ID, Command, api
from odoo.exceptions import UserError
from odoo.tests import tagged
from odoo.tools import file_open, mute_logger
from odoo.tools.convert import convert_xml_import

from .common import AsyncCase
from odoo.addons.ir_async.exceptions import RetryJob

RUNNER = 'odoo.addons.ir_async.service.runner'


@tagged('post_install', '-at_install')
class TestCookbook(AsyncCase):
    """The recipes of docs/cookbook.md, as they stand there."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with file_open('ir_async/docs/cookbook.md') as file:
            cls.chapters = re.split(r'^## \d+\. ', file.read(), flags=re.MULTILINE)[1:]
        cls.partners = cls.env['res.partner'].create(
            [{'name': f"cook {i}", 'email': f"cook{i}@example.com", 'ref': f" C{i} "} for i in range(3)]
        )

    def prepare(self, number):
        """Give the models the methods of a recipe.

        :return: what the recipe uses of the world outside, as mocks
        """
        blocks = re.findall(r'```python\n(.*?)```', self.chapters[number - 1], re.DOTALL)
        world = SimpleNamespace(requests=Mock(), request=Mock())
        names = {
            '__name__': __name__,
            'SUPERUSER_ID': SUPERUSER_ID,
            'RetryJob': RetryJob,
            'UserError': UserError,
            'api': api,
            'http': SimpleNamespace(Controller=object, route=lambda *args, **kwargs: lambda method: method),
            'models': SimpleNamespace(Model=object),
            **vars(world),
        }
        for code in blocks:
            exec(compile(code, 'docs/cookbook.md', 'exec'), names)  # noqa: S102 -- it is our own
            for cls in filter(
                lambda value: isinstance(value, type) and hasattr(value, '_inherit'), list(names.values())
            ):
                model = type(self.env[cls._inherit])
                for name, method in vars(cls).items():
                    if not name.startswith('__') and name != '_inherit':
                        patcher = patch.object(model, name, method, create=True)
                        patcher.start()
                        self.addCleanup(patcher.stop)
        world.names = names
        return world

    def load(self, number):
        """Load the data of a recipe."""
        for xml in re.findall(r'```xml\n(.*?)```', self.chapters[number - 1], re.DOTALL):
            file = io.BytesIO(xml.encode())
            file.name = 'cookbook.xml'
            convert_xml_import(self.env, 'ir_async', file, {}, 'init')

    def assertStates(self, jobs, *states):
        self.assertEqual(jobs.mapped('state'), list(states), jobs.mapped('payload'))

    def test_contents(self):
        self.assertEqual(len(self.chapters), 12)
        with file_open('ir_async/docs/cookbook.md') as file:
            text = file.read()
        anchors = {
            re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')
            for title in re.findall(r'^## (.*)$', text, re.MULTILINE)
        }
        self.assertEqual(set(re.findall(r'\]\(#(.*?)\)', text)), anchors)

    def test_imports(self):
        with file_open('ir_async/docs/cookbook.md') as file:
            [imports] = re.findall(r'```python\n(import .*?)```', file.read(), re.DOTALL)
        exec(compile(imports, 'docs/cookbook.md', 'exec'), {})  # noqa: S102 -- it is our own

    def test_01_export(self):
        self.prepare(1)
        answer = self.partners.export_cards()
        [job] = self.run_jobs()
        self.assertEqual(answer, {'asyncJobId': job.id})
        self.assertStates(job, 'succeeded')
        self.assertEqual((job.name, job.channel), ("3 cards", 'export'))
        attachment = self.env['ir.attachment'].search([('res_model', '=', 'ir.async'), ('res_id', '=', job.id)])
        self.assertEqual(job.payload['result']['url'], f'/web/content/{attachment.id}?download=true')
        self.assertEqual(attachment.raw.count(b'FN:cook'), 3)

    def test_02_mass_mailing(self):
        self.prepare(2)
        self.env.company.email = "us@example.com"
        self.partners.action_send_now("News", "There are some.")
        sent = []

        def send_email(_self, message):
            if len(sent) == 1:
                sent.append(None)
                raise ConnectionError
            sent.append((message['To'], message['Subject']))

        with patch.object(type(self.env['ir.mail_server']), 'send_email', send_email), mute_logger(RUNNER):
            jobs = self.run_jobs()
        self.assertStates(jobs, 'done', 'done', 'done')
        self.assertEqual(
            sorted(filter(None, sent)), [(partner.email, "News") for partner in self.partners.sorted('email')]
        )

    def test_03_webhook(self):
        world = self.prepare(3)
        controller = world.names['Webhook']()
        world.request.env = self.env(user=self.env.ref('base.public_user'))
        world.request.get_json_data.return_value = {'id': 7, 'ref': self.partners[0].ref, 'email': "new@example.com"}
        controller.receive()
        controller.receive()
        world.request.make_json_response.assert_called_with({'received': 7}, status=202)
        [job] = self.run_jobs()
        self.assertStates(job, 'done')
        self.assertEqual(job.user_id.id, SUPERUSER_ID)
        self.assertEqual(self.partners[0].email, "new@example.com")

    def test_04_companies(self):
        self.prepare(4)
        companies = self.env.company + self.env['res.company'].create({'name': "Other"})
        self.env.user.company_ids = [Command.set(companies.ids)]
        companies.action_close()
        jobs = self.run_jobs()
        self.assertStates(jobs, 'done', 'done')
        self.assertEqual(jobs.mapped('channel'), [f'closing/{company.id}' for company in companies])
        for company in companies:
            self.assertIn(f"in {company.name}", company.partner_id.comment)

    def test_05_batch(self):
        self.prepare(5)
        self.load(5)
        cron = self.env.ref('ir_async.ir_cron_clean_references')
        self.assertEqual(cron.interval_type, 'days')
        self.env['res.partner'].create([{'name': "more", 'ref': " M"}] * 999)
        cron.ir_actions_server_id.run()
        jobs = self.run_jobs()
        self.assertStates(jobs, 'done', 'done', 'done')
        self.assertEqual(jobs.mapped('priority'), [20] * 3)
        self.assertEqual(self.partners.mapped('ref'), ["C0", "C1", "C2"])
        self.assertFalse(self.env['res.partner'].search([('ref', '=like', ' %')]))

    def test_06_rate(self):
        world = self.prepare(6)
        self.load(6)
        self.partners.action_locate()
        world.requests.get.return_value.json.return_value = {'lat': 50.8, 'lon': 4.3}
        self.assertTrue(all(self.queued_jobs().mapped('limited')))
        self.assertStates(self.run_jobs(), 'done', 'done', 'done')
        self.assertEqual(set(self.partners.mapped('partner_latitude')), {50.8})
        self.assertEqual(world.requests.get.call_count, 3)

    def test_07_not_now(self):
        world = self.prepare(7)
        partner = self.partners[0]
        partner.action_push()
        world.requests.post.return_value = Mock(status_code=503, headers={'Retry-After': '30'})
        [job] = self.run_jobs()
        self.assertEqual((job.state, job.attempts), ('created', 0))
        self.assertIn("The shop is closed", job.payload['error']['data']['message'])
        world.requests.post.return_value = Mock(status_code=201)
        world.requests.post.return_value.json.return_value = {'number': '4711'}
        self.assertStates(self.run_jobs(), 'done')
        self.assertEqual(partner.ref, '4711')

        partner.action_push()
        world.requests.post.return_value.raise_for_status.side_effect = ConnectionError
        with mute_logger(RUNNER):
            [job] = self.run_jobs()
        self.assertEqual((job.state, job.attempts), ('failed', 3))

    def test_08_results(self):
        self.prepare(8)
        partners = self.env['res.partner'].create([{'name': "more", 'email': "more@example.com"}] * 1500)
        total = partners.action_count()
        self.assertEqual(total.state, 'waiting')
        jobs = self.run_jobs()
        self.assertStates(jobs, 'done', 'done', 'succeeded')
        self.assertEqual(total.payload, {'result': 1500})

    def test_09_progress(self):
        self.prepare(9)
        self.partners[2].email = False
        self.partners.action_check()
        [job] = self.run_jobs()
        self.assertStates(job, 'done')
        self.assertEqual(job.progress, {'done': 2, 'total': 3, 'message': "cook 2"})
        self.assertEqual(self.partners.mapped('active'), [True, True, False])

    def test_10_once(self):
        world = self.prepare(10)
        partner = self.partners[0]
        for name in ("first", "second", "third"):
            partner.name = name
            partner.action_sync()
        self.assertStates(self.run_jobs(), 'done')
        [call] = world.requests.put.call_args_list
        self.assertEqual(call.kwargs['json'], {'name': "third"})

        def change_meanwhile(url, json, timeout):
            if json['name'] == "third":
                self.env.invalidate_all()  # another transaction
                partner.name = "fourth"
                partner.action_sync()
                self.env.cr.flush()  # as its commit does
            return Mock()

        partner.action_sync()
        world.requests.put.reset_mock()
        world.requests.put.side_effect = change_meanwhile
        self.assertStates(self.run_jobs(), 'done', 'done')
        self.assertEqual(
            [call.kwargs['json']['name'] for call in world.requests.put.call_args_list], ["third", "fourth"]
        )

    def test_11_at_most_once(self):
        world = self.prepare(11)
        partner = self.partners[0]
        partner.ref = False
        world.requests.post.return_value.raise_for_status.side_effect = ConnectionError
        partner.action_charge(10)
        with mute_logger(RUNNER):
            [job] = self.run_jobs()
            self.assertEqual((job.state, partner.ref), ('failed', f'payment-{job.id}'))
            job.retry()
            self.run_jobs()
        self.assertIn("was begun before", job.payload['error']['data']['message'])
        world.requests.post.assert_called_once()

    def test_12_order(self):
        world = self.prepare(12)
        last = self.partners[0].action_replay(["a", "b", "c"])
        world.requests.post.return_value.raise_for_status.side_effect = [ConnectionError, None, None, None]
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(last.state, 'done')
        self.assertEqual([call.kwargs['json'] for call in world.requests.post.call_args_list], ["a", "a", "b", "c"])
