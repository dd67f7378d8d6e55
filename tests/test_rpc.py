import functools
import itertools
import logging
import random
import time

from odoo.exceptions import AccessError, UserError
from odoo.tests import mute_logger, tagged

from .rpc_common import CALL_COLUMNS, CHANGES, MANAGERS, OWNERS, READERS, RpcCase

_logger = logging.getLogger(__name__)

BUDGET = 15  # seconds for the random calls
LOGGERS = (
    'odoo.sql_db',
    'odoo.models',
    'odoo.domains',
    'odoo.fields',
    'odoo.orm.models',
    'odoo.addons.base.models.ir_model',
)


@tagged('post_install', '-at_install')
class TestRpcRights(RpcCase):
    """What clients can learn and change. New methods, fields and models are covered without a change of these tests."""

    def test_changes(self):
        """Each method changes rows only for those who may use it, and never what a job runs."""
        before, calls = self.digest(), self.calls_of_jobs()
        for kind, model in itertools.product(self.users, self.models):
            for method in self.methods(model):
                arguments_of_method = self.arguments(
                    model, method, 'name' if 'name' in self.registry[model]._fields else 'id'
                )
                for arguments in itertools.islice(arguments_of_method, None if kind in ('owner', 'admin') else 1):
                    with mute_logger(*LOGGERS):
                        _answer, seen = self.call(
                            kind, model, method, arguments, lambda: (self.digest(), self.calls_of_jobs())
                        )
                    if not seen or seen == (before, calls) or self._is_enqueued(kind, method, seen[1], calls):
                        continue
                    with self.subTest(kind=kind, model=model, method=method, arguments=arguments):
                        self.assertEqual(seen[1], calls)
                        self.assertIn(kind, CHANGES.get(model, {}).get(method, ()))

    def _is_enqueued(self, kind, method, calls, before):
        """Return whether the call has done nothing but to enqueue an export or a report of the caller."""
        if not method.startswith('async_') or kind not in OWNERS:
            return False
        new = [dict(zip(CALL_COLUMNS, row)) for row in calls if row not in before]
        return len(calls) == len(before) + len(new) and all(
            row['user_id'] == self.users[kind].id and not row['su'] and row['method'] in ('_export_file', '_print_file')
            for row in new
        )

    def test_changes_of_own_jobs(self):
        """The methods for owners work, so that the tests above mean something."""
        for kind in OWNERS:
            for method, i in (('complete', 2), ('cancel', 3), ('retry', 0), ('dismiss', 1)):
                with self.subTest(kind=kind, method=method):
                    job = self.jobs[kind][i].with_user(self.users[kind])
                    self.assertIs(getattr(job, method)(), True)

    def test_others(self):
        """Nobody but managers calls a method of jobs of others."""
        others, jobs = self.others[0], self.jobs
        for kind in self.users.keys() - MANAGERS:
            for method in self.methods('ir.async'):
                if self.is_ours('ir.async', method) and not getattr(
                    getattr(self.registry['ir.async'], method), '_api_model', False
                ):
                    for mixed in (others, jobs[kind] + others):
                        self.jobs = {**jobs, kind: mixed}
                        required = {
                            name: [] for name, is_required in self.parameters('ir.async', method).items() if is_required
                        }
                        with self.subTest(kind=kind, method=method), mute_logger(*LOGGERS):
                            self.assertIsInstance(self.call(kind, 'ir.async', method, required)[0], AccessError)
        self.jobs = jobs

    def test_outsiders(self):
        """Portal and public users cannot use any method of this addon, on any model."""
        for model in (*self.models, 'res.partner', 'ir.actions.report'):
            for method in filter(functools.partial(self.is_ours, model), self.methods(model)):
                arguments = next(self.arguments(model, method, 'id'))
                for kind in self.users.keys() - READERS.get(model, MANAGERS if model in self.models else OWNERS):
                    with self.subTest(kind=kind, model=model, method=method), mute_logger(*LOGGERS):
                        answer, _seen = self.call(kind, model, method, arguments)
                        if answer not in ('false', 'null'):  # nothing learned
                            self.assertIsInstance(answer, UserError)  # AccessError is one

    def test_nothing(self):
        """A method of channels that is called on none of them does nothing, whoever calls it."""
        channels = self.env['ir.async.channel'].with_user(self.users['portal'])
        self.registry.cache_invalidated.clear()
        for method, arguments in (
            ('action_pause', []),
            ('action_resume', []),
            ('unlink', []),
            ('write', [{'paused': True}]),
            ('create', [[]]),
        ):
            with self.subTest(method=method):
                getattr(channels, method)(*arguments)
                self.assertFalse(self.registry.cache_invalidated)

    def test_enqueued_by(self):
        """Odoo follows ``parent_id`` in sudo: users must not learn by that which job has enqueued theirs."""
        for path, operator in itertools.product(
            ('id', 'parent_id', 'after_ids', 'after_ids.parent_id'), ('child_of', 'parent_of')
        ):
            for domain in (
                [(path, operator, self.parents.ids)],
                ['!', (path, operator, self.parents.ids)],
                [('after_ids', 'any', [(path, operator, self.parents.ids)])],
            ):
                with self.subTest(domain=domain):
                    for method in ('search', 'search_count', 'search_read', 'name_search', 'formatted_read_group'):
                        self.assertIsInstance(
                            self.call('owner', 'ir.async', method, {'domain': domain})[0], AccessError
                        )
                    self.assertIsInstance(self.call('manager', 'ir.async', 'search', {'domain': domain})[0], str)

    def test_payload(self):
        """JSON has no order and no equality. A call that needs them is refused, and no error of PostgreSQL."""
        for method, arguments in (
            ('search', {'domain': [], 'order': 'payload'}),
            ('search_read', {'order': 'id, payload desc'}),
            ('web_search_read', {'domain': [], 'specification': {}, 'order': 'payload'}),
            ('read_group', {'domain': [], 'fields': [], 'groupby': ['payload']}),
            ('formatted_read_group', {'domain': [], 'groupby': ['payload']}),
            ('formatted_read_grouping_sets', {'domain': [], 'grouping_sets': [['payload'], []]}),
            ('web_read_group', {'domain': [], 'groupby': ['payload']}),
            *(
                ('formatted_read_group', {'domain': [], 'aggregates': [f'payload:{how}']})
                for how in ('max', 'count_distinct', 'sum')
            ),
            ('formatted_read_group', {'domain': [], 'groupby': ['state'], 'having': [('payload:max', '=', 'x')]}),
            *(
                ('search', {'domain': [('payload', operator, value)]})
                for operator, value in (
                    ('=', 'x'),
                    ('!=', 'x'),
                    ('in', [0]),
                    ('not in', ['x', False]),
                    ('<', 'x'),
                    ('>=', 'x'),
                )
            ),
        ):
            for kind in ('owner', 'manager'):
                with self.subTest(method=method, arguments=arguments, kind=kind), mute_logger('odoo.sql_db'):
                    self.assertIsInstance(self.call(kind, 'ir.async', method, arguments)[0], UserError)
        jobs = self.ir_async.with_user(self.user)
        own = self.jobs['owner']
        self.assertEqual(jobs.search([('payload', 'like', 'Own')], order='id'), own[:2])
        self.assertEqual(jobs.search([('payload', '!=', False)], order='id'), own[:3])
        self.assertEqual(jobs.search([('payload', '=', False)], order='id'), own[3:])
        description = jobs.fields_get(['payload'])['payload']
        self.assertEqual((description['sortable'], description['groupable']), (False, False))

    def test_protected(self):
        """Users learn nothing about protected fields and jobs of others: with other secrets, each answer is the same."""
        for model in self.models:
            paths = (
                ['args', 'parent_id', 'after_ids.args', 'child_ids.args', 'payload'] if model == 'ir.async' else ['id']
            )
            self.assertSame(
                'owner',
                [
                    (model, method, arguments)
                    for method in self.methods(model)
                    for path in paths
                    for arguments in self.arguments(model, method, path)
                ],
            )

    def test_random(self):
        seed = random.randrange(10**6)
        _logger.info("seed of the random calls: %s", seed)
        chosen = random.Random(seed)
        end = time.monotonic() + BUDGET
        while time.monotonic() < end:
            calls = []
            for _i in range(50):
                model = chosen.choice([*self.models, 'ir.async', 'ir.async'])
                method = chosen.choice(self.methods(model))
                arguments = {}
                for name, is_required in self.parameters(model, method).items():
                    if is_required or chosen.random() < 0.5:
                        value = chosen.choice(self.values(name, chosen.choice(self.paths(model))))
                        arguments.update(value if name == 'kwargs' else {name: value})
                if 'order' in arguments and 'group' not in method:
                    arguments['order'] += ', id'  # PostgreSQL may answer ties in any order
                calls.append((model, method, arguments))
            self.assertSame(chosen.choice(['public', 'portal', 'owner', 'company']), calls, seed)

    def assertSame(self, kind, calls, seed=None):
        answers = []
        with mute_logger(*LOGGERS):
            for world in (0, 1):
                self.enter_world(world)
                answers.append([self.call(kind, *call)[0] for call in calls])
            self.enter_world(0)
        for call, first, second in zip(calls, *answers):
            with self.subTest(kind=kind, call=call, seed=seed):
                self.assertEqual(repr(first), repr(second))
