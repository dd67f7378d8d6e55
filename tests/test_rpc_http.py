"""The same calls over HTTP: JSON-RPC, JSON-2 and XML-RPC. And the other routes that lead to jobs."""

import json
import logging
import random
import xmlrpc.client
from datetime import datetime, timedelta

from odoo.http import Request
from odoo.tests import HttpCase, JsonRpcException, mute_logger, tagged

from .rpc_common import MANAGERS, SECRETS, RpcCase

_logger = logging.getLogger(__name__)

LOGGERS = (
    'odoo.http',
    'odoo.sql_db',
    'odoo.models',
    'odoo.domains',
    'odoo.addons.base.models.ir_model',
    'odoo.addons.rpc.controllers.xmlrpc',
    'odoo.addons.web.controllers.export',
)
FAULTS = {2: 'UserError', 3: 'AccessDenied', 4: 'AccessError'}  # the codes of XML-RPC
REFUSED = {'SessionExpiredException', 'Unauthorized', 'AccessDenied'}  # the answers to strangers
SAMPLE = 40  # calls; each goes over all protocols


class HttpClientCase(RpcCase, HttpCase):
    def setUp(self):
        super().setUp()
        self.keys = {}
        for kind, user in self.users.items():
            if kind != 'public':
                user.sudo().password = 'password-1'
                # sudo - res.users.apikeys: the users could make them themselves
                self.keys[kind] = (
                    self.env['res.users.apikeys']
                    .with_user(user)
                    .sudo()
                    ._generate('rpc', "Test", datetime.now() + timedelta(days=1))
                )
        self.env.flush_all()
        self.clients = (self.json_rpc, self.json_2, self.xml_rpc)

    def login(self, kind):
        login = None if kind == 'public' else self.users[kind].login
        self.authenticate(login, login and 'password-1')

    # Each returns the answer, or the name of the error.

    def json_rpc(self, kind, model, method, arguments, ids):
        try:
            return self.make_jsonrpc_request(
                '/web/dataset/call_kw',
                {'model': model, 'method': method, 'args': [] if ids is None else [ids], 'kwargs': arguments},
            )
        except JsonRpcException as exc:
            return str(exc).rpartition('.')[2]

    def json_2(self, kind, model, method, arguments, ids):
        headers = {'Authorization': f'Bearer {self.keys[kind]}'} if kind in self.keys else {}
        response = self.url_open(
            f'/json/2/{model}/{method}',
            json={**arguments, **({} if ids is None else {'ids': ids})},
            headers=headers,
            method='POST',
        )
        return response.json() if response.status_code == 200 else response.json()['name'].rpartition('.')[2]

    def xml_rpc(self, kind, model, method, arguments, ids):
        arguments = {
            name: False if value is None else value for name, value in arguments.items()
        }  # XML-RPC has no null
        try:
            return self.xmlrpc_object.execute_kw(
                self.env.cr.dbname,
                self.users[kind].id,
                self.keys.get(kind, 'x'),
                model,
                method,
                [] if ids is None else [ids],
                arguments,
            )
        except xmlrpc.client.Fault as fault:
            return FAULTS.get(fault.faultCode, fault.faultString)


@tagged('post_install', '-at_install')
class TestRpcHttp(HttpClientCase):
    def test_same(self):
        """A call is refused over each protocol if it is refused to :meth:`RpcCase.call`, on which other tests rely."""
        seed = random.randrange(10**6)
        _logger.info("seed of the calls over HTTP: %s", seed)
        chosen = random.Random(seed)
        for _i in range(SAMPLE):
            kind, model = chosen.choice(list(self.users)), chosen.choice(self.models)
            method = chosen.choice(self.methods(model))
            arguments = chosen.choice(list(self.arguments(model, method, 'args' if model == 'ir.async' else 'id')))
            is_of_model = getattr(getattr(self.registry[model], method), '_api_model', False)
            self.login(kind)
            with mute_logger(*LOGGERS):
                expected, _seen = self.call(kind, model, method, arguments)
            for client in self.clients:
                savepoint = self.env.cr.savepoint()
                with mute_logger(*LOGGERS):
                    answer = client(kind, model, method, arguments, None if is_of_model else self.ids(kind, model))
                savepoint.close(rollback=True)
                self.env.invalidate_all(flush=False)
                with self.subTest(
                    kind=kind, model=model, method=method, arguments=arguments, client=client.__name__, seed=seed
                ):
                    if kind == 'public':
                        self.assertIn(answer, REFUSED)
                    else:
                        self.assertEqual(
                            answer == 'AccessError', type(expected).__name__ == 'AccessError', (answer, expected)
                        )

    def test_private(self):
        """Nobody calls a private method, so nobody enqueues a job."""
        self.login('admin')
        for model in self.models:
            for method in self.methods(model, is_public=False):
                if self.is_ours(model, method):
                    # The other protocols ask the same function of Odoo: see test_same.
                    with self.subTest(model=model, method=method), mute_logger(*LOGGERS):
                        self.assertEqual(self.json_rpc('admin', model, method, {}, []), 'AccessError')
        for client in self.clients:
            for method in ('call', 'with_options', '_perform'):
                with self.subTest(client=client.__name__, method=method), mute_logger(*LOGGERS):
                    self.assertEqual(client('admin', 'ir.async', method, {}, []), 'AccessError')

    def test_forged_context(self):
        """No context makes a client a manager, the superuser, or a job."""
        job = self.jobs['owner'][1]
        self.login('owner')
        for context in (
            {'su': True},
            {'uid': 1, 'user': 1},
            {'async_job_id': self.others[0].id},
            {'ir_async_options': {'key': "x"}},
            {'active_test': False, 'bin_size': True, 'prefetch_fields': False},
            {'default_user_id': 1, 'default_state': 'done'},
            {'install_mode': True, 'import_file': True, '_force_unlink': True, 'module': 'ir_async', 'cron_id': 1},
            {'allowed_company_ids': self.env['res.company'].sudo().search([]).ids},
        ):
            for method, arguments, ids in (
                ('read', {'fields': ['args']}, job.ids),
                ('read', {'fields': ['state']}, self.others.ids),
                ('cancel', {}, self.others.ids),
                ('search', {'domain': [('args', '!=', False)]}, None),
                ('write', {'vals': {'method': 'unlink'}}, job.ids),
                ('unlink', {}, job.ids),
                ('copy', {}, job.ids),
                ('create', {'vals_list': [{'method': 'unlink'}]}, None),
                ('call', {}, []),
                ('run_anyway', {}, self.jobs['owner'].ids),
            ):
                with self.subTest(context=context, method=method), mute_logger(*LOGGERS):
                    self.assertEqual(
                        self.json_rpc('owner', 'ir.async', method, {**arguments, 'context': context}, ids),
                        'AccessError',
                    )
            if 'allowed_company_ids' not in context:
                seen = self.json_rpc('owner', 'ir.async', 'search', {'domain': [], 'context': context}, None)
                self.assertEqual(set(seen), set(self.jobs['owner'].ids))

    def test_routes(self):
        """No route gives protected fields, jobs of others, or their files."""
        job = self.jobs['owner'][0]
        export = json.dumps(
            {
                'model': 'ir.async',
                'ids': job.ids,
                'domain': [],
                'import_compat': False,
                'fields': [{'name': 'args', 'label': "x"}],
            }
        )
        for kind in self.users.keys() - MANAGERS:
            self.login(kind)
            for path in (
                f'/web/content/{self.file.id}',
                f'/web/content/{self.file.id}?access_token=x',
                f'/web/image/{self.file.id}',
                *(
                    f'/web/{route}/ir.async/{id_}/{name}'
                    for route in ('content', 'image')
                    for id_ in (job.id, self.others[0].id)
                    for name in ('args', 'payload', 'name', 'context')
                ),
                f'/odoo/async-jobs/{self.others[0].id}',
                f'/json/1/async-jobs/{self.others[0].id}',
                '/json/1/async-jobs',
                '/ir_async/health',
                '/ir_async/metrics',
            ):
                with self.subTest(kind=kind, path=path), mute_logger(*LOGGERS):
                    response = self.url_open(path)
                    for secret in SECRETS:
                        self.assertNotIn(secret, response.text)
                    self.assertNotEqual(response.content, b"x")
            for route in ('/web/export/csv', '/web/export/xlsx'):
                with self.subTest(kind=kind, route=route), mute_logger(*LOGGERS):
                    response = self.url_open(
                        route, data={'data': export, 'csrf_token': Request.csrf_token(self)}, allow_redirects=False
                    )
                    self.assertNotEqual(response.status_code, 200)

    def test_token(self):
        """Only those who may change the settings read the token of the monitoring."""
        self.env['ir.config_parameter'].set_param('ir_async.metrics_token', SECRETS[0])
        for kind in self.users.keys() - {'admin'}:
            self.login(kind)
            for model, method, arguments in (
                ('ir.config_parameter', 'get_param', {'key': 'ir_async.metrics_token'}),
                ('ir.config_parameter', 'search_read', {'domain': [], 'fields': ['value']}),
                ('res.config.settings', 'default_get', {'fields': ['async_metrics_token']}),
                (
                    'res.config.settings',
                    'onchange',
                    {'values': {}, 'field_names': [], 'fields_spec': {'async_metrics_token': {}}},
                ),
            ):
                with self.subTest(kind=kind, model=model, method=method), mute_logger(*LOGGERS):
                    ids = [] if method == 'onchange' else None
                    self.assertNotIn(SECRETS[0], str(self.json_rpc(kind, model, method, arguments, ids)))

    def test_bus(self):
        """Messages about a job reach its owner alone, whatever channels others name."""
        last = self.env['bus.bus'].search([], order='id DESC', limit=1).id or 0
        self.ir_async.call_notify(SECRETS[0], self.partner_of(self.users['owner']).async_foo)
        self.env.cr.flush()
        self.env.cr.precommit.run()
        message = self.env['bus.bus'].search([('id', '>', last), ('message', 'like', SECRETS[0])])
        self.assertTrue(message)
        partner = self.users['owner'].partner_id
        forged = [
            message[0].channel,
            f'res.partner_{partner.id}',
            f'["{self.env.cr.dbname}","res.partner",{partner.id}]',
            f"res.partner({partner.id},)",
            'ir.async',
            f'ir.async_{self.jobs["owner"][0].id}',
            str(partner),
        ]
        for kind in self.users:
            self.login(kind)
            answer = self.make_jsonrpc_request(
                '/websocket/peek_notifications', {'channels': forged, 'last': last, 'is_first_poll': True}
            )
            with self.subTest(kind=kind):
                self.assertEqual(SECRETS[0] in json.dumps(answer['notifications']), kind == 'owner')
            for channels in (
                [['res.partner', partner.id]],
                [[self.env.cr.dbname, 'res.partner', partner.id]],
                [partner.id],
            ):
                with (
                    self.subTest(kind=kind, channels=channels),
                    mute_logger(*LOGGERS),
                    self.assertRaises(JsonRpcException),
                ):
                    self.make_jsonrpc_request(
                        '/websocket/peek_notifications', {'channels': channels, 'last': last, 'is_first_poll': True}
                    )
