import json

from odoo.exceptions import UserError
from odoo.tests import mute_logger, tagged

from .method_case import RUNNER, MethodCase
from odoo.addons.bus.tests.common import WebsocketCase
from odoo.addons.ir_async.models.ir_async import BUS_PAYLOAD_MAX_SIZE


class BusCase(MethodCase):
    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self, result=None):
            if isinstance(result, str) and result.startswith("Bad"):
                raise UserError(result)
            return result

    def call_notify(self, *args, name="Export", user=None, **options):
        return self.ir_async.with_options(**options).call_notify(
            name, self.partner_of(user or self.user).async_foo, *args
        )


class TestMessages(BusCase):
    """What the bus tells the owner of a job."""

    def setUp(self):
        super().setUp()
        self.last = self.env['bus.bus'].search([], order='id DESC', limit=1).id or 0

    def messages(self, user=None):
        """Return what a user was told since the last time."""
        self.env.cr.flush()
        found = self.env['bus.bus']._poll([(user or self.user).partner_id], self.last)
        self.assertEqual({message['message']['type'] for message in found} - {'ir.async'}, set())
        self.last = max((message['id'] for message in found), default=self.last)
        return [message['message']['payload'] for message in found]

    def assertTold(self, job, *states, **last):
        messages = self.messages()
        self.assertEqual([message['state'] for message in messages], list(states))
        for message in messages:
            self.assertEqual((message['id'], message['name']), (job.id, job.name))
        revisions = [message['revision'] for message in messages]
        self.assertEqual(revisions, sorted(set(revisions)))
        self.assertEqual(revisions[-1], job.revision)
        self.assertEqual(
            {key: messages[-1][key] for key in messages[-1].keys() - {'id', 'name', 'state', 'revision'}}, last
        )

    def test_result(self):
        job = self.call_notify(42)
        self.assertTold(job, 'created')
        self.run_jobs()
        self.assertTold(job, 'processing', 'succeeded', payload={'result': 42})
        job.with_user(self.user).complete()
        self.assertTold(job, 'done')
        job.with_user(self.user).complete()
        self.assertEqual(self.messages(), [])
        job.with_user(self.user).dismiss()
        self.assertTold(job, 'done', dismissed=True)

    def test_no_result(self):
        job = self.call_notify()
        self.run_jobs()
        self.assertTold(job, 'created', 'processing', 'done')

    def test_failure(self):
        job = self.call_notify("Bad luck", max_attempts=2)
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(job.payload['error']['data']['message'], "Bad luck")
        self.assertTold(
            job, 'created', 'processing', 'created', 'processing', 'failed', payload=job.with_user(self.user).payload
        )
        job.retry()
        self.assertTold(job, 'created')
        job.cancel()
        self.assertTold(job, 'cancelled')

    def test_waiting(self):
        parent = self.call_notify()
        child = self.call_notify(name="Child", after=parent, user=self.other_user)
        self.run_jobs()
        self.assertTold(parent, 'created', 'processing', 'done')
        self.last -= 10
        self.assertEqual(
            [message['state'] for message in self.messages(self.other_user) if message['id'] == child.id],
            ['waiting', 'created', 'processing', 'done'],
        )

    def test_whose(self):
        """Only the owner is told, whoever changes the job."""
        job = self.call_notify(42)
        self.run_jobs()
        job.with_user(self.manager).complete()
        for user in (self.other_user, self.manager, self.env.user):
            self.assertEqual(self.messages(user), [])
        self.assertTold(job, 'created', 'processing', 'succeeded', 'done')

    def test_nameless(self):
        job = self.call_notify(name=False)
        self.assertIs(self.messages()[0]['name'], False)
        self.run_jobs()
        self.assertTold(job, 'processing', 'done')

    def test_call(self):
        """Pure backend jobs tell nobody."""
        job = self.ir_async.call(self.partner_of(self.user).async_foo, 42)
        self.run_jobs()
        job.complete()
        self.assertEqual(self.messages(), [])

    def test_large_payload(self):
        """Its reader asks for it."""
        rest = len(json.dumps({'result': ""}))
        for size, is_told in ((BUS_PAYLOAD_MAX_SIZE - rest, True), (BUS_PAYLOAD_MAX_SIZE - rest + 1, False)):
            with self.subTest(size=size):
                job = self.call_notify("x" * size)
                self.run_jobs()
                self.assertTold(
                    job, 'created', 'processing', 'succeeded', **({'payload': job.payload} if is_told else {})
                )
                [listed] = self.ir_async.with_user(self.user).get_user_jobs(job.ids)[-1:]
                self.assertEqual('payload' in listed, is_told)
                self.assertEqual(len(job.with_user(self.user).read(['payload'])[0]['payload']['result']), size)

    def test_progress(self):
        @self.add_method
        def async_bar(self):
            self.env['ir.async'].report_progress(1, 2, "Half")

        job = self.ir_async.call_notify("Export", self.partner_of(self.user).async_bar)
        self.run_jobs()
        progress = [message for message in self.messages() if 'progress' in message]
        self.assertEqual([message['progress'] for message in progress], [{'done': 1, 'total': 2, 'message': "Half"}])
        self.assertLess(progress[0]['revision'], job.revision)

    def test_rollback(self):
        """Nobody hears of what was rolled back, but for the start and the end."""

        @self.add_method
        def async_bar(self):
            self.env['ir.async'].call_notify("Inner", self.async_foo)
            raise error

        error = UserError("Bad luck")
        job = self.ir_async.call_notify("Outer", self.partner_of(self.user).async_bar)
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertTold(job, 'created', 'processing', 'failed', payload=job.with_user(self.user).payload)


@tagged('post_install', '-at_install')
class TestWebsocket(BusCase, WebsocketCase):
    """What arrives."""

    def connect(self, user):
        password = f'{user.login}-password'
        user.sudo().password = password
        session = self.authenticate(user.login, password)
        websocket = self.websocket_connect(cookie=f'session_id={session.sid}')
        self.subscribe(websocket, last=self.env['bus.bus'].search([], order='id DESC', limit=1).id or 0)
        return websocket

    def receive(self, websocket, user):
        self.trigger_notification_dispatching([user.partner_id])
        return [notification['message'] for notification in json.loads(websocket.recv())]

    def test_life(self):
        websocket = self.connect(self.user)
        job = self.call_notify({'answer': 42})
        [created] = self.receive(websocket, self.user)
        self.assertEqual(
            created,
            {'type': 'ir.async', 'payload': {'id': job.id, 'name': "Export", 'state': 'created', 'revision': 1}},
        )
        self.run_jobs()
        processing, succeeded = (message['payload'] for message in self.receive(websocket, self.user))
        self.assertEqual(processing, {'id': job.id, 'name': "Export", 'state': 'processing', 'revision': 2})
        self.assertEqual(
            succeeded,
            {
                'id': job.id,
                'name': "Export",
                'state': 'succeeded',
                'revision': 3,
                'payload': {'result': {'answer': 42}},
            },
        )
        job.with_user(self.user).complete()
        [done] = self.receive(websocket, self.user)
        self.assertEqual(done['payload']['state'], 'done')

    def test_others(self):
        """Nobody else is told: the next that arrives is what is sent later."""
        websocket = self.connect(self.other_user)
        self.call_notify({'answer': 42})
        self.run_jobs()
        self.other_user._bus_send('later', {})
        self.assertEqual(self.receive(websocket, self.other_user), [{'type': 'later', 'payload': {}}])
