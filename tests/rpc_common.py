"""Calls of every public method by every kind of user, in two worlds that some of them must not be able to distinguish."""

import inspect
import itertools
import json

from odoo.service.model import call_kw, get_public_method
from odoo.tests import new_test_user
from odoo.tools import json_default

from .method_case import MethodCase

SECRETS = ('sesame-0', 'sesame-1')
TABLES = ('ir_async', 'ir_async_after_rel', 'ir_async_channel', 'ir_async_progress', 'ir_async_stop', 'ir_async_worker')
OWNERS = {'owner', 'company', 'manager', 'admin'}
MANAGERS = {'manager', 'admin'}
READERS = {'ir.async': OWNERS}  # other models: managers
# Who may change rows, by which methods. Any other change by any method is a fault.
CHANGES = {
    'ir.async': {
        **dict.fromkeys(('complete', 'cancel', 'retry', 'dismiss'), OWNERS),
        **dict.fromkeys(('adopt', 'run_anyway'), MANAGERS),
    },
    'ir.async.channel': dict.fromkeys(
        (
            'create',
            'write',
            'unlink',
            'copy',
            'name_create',
            'load',
            'web_save',
            'web_save_multi',
            'web_resequence',
            'action_pause',
            'action_resume',
            'action_pause_everything',
            'action_resume_everything',
        ),
        MANAGERS,
    ),
}
# No method changes what runs, as whom, and who enqueued it.
CALL_COLUMNS = (
    'id',
    'res_model',
    'res_ids',
    'method',
    'args',
    'kwargs',
    'context',
    'user_id',
    'su',
    'parent_id',
    'stack',
    'name',
    'notify',
    'channel',
    'key',
    'key_until',
    'max_attempts',
    'retry_delay',
    'timeout',
    'priority',
    'create_date',
)


class RpcCase(MethodCase):
    """Jobs of each kind of user, and jobs of others."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        company = cls.env['res.company'].create({'name': "Elsewhere"})
        cls.users = {
            'public': cls.env.ref('base.public_user'),
            'portal': new_test_user(cls.env, 'paul', 'base.group_portal'),
            'owner': cls.user,
            'company': new_test_user(cls.env, 'carl', company_id=company.id, company_ids=[company.id]),
            'manager': cls.manager,
            'admin': cls.env.ref('base.user_admin'),
        }
        cls.models = sorted(
            name for name, model in cls.registry.items() if model._original_module == 'ir_async' and not model._abstract
        )

    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self):
            pass

        self.parents = self.make_jobs(self.other_user, 2)
        self.others = self.make_jobs(self.other_user, 3) + self.make_jobs(self.env.ref('base.user_root'), 1)
        self.jobs = {}
        for kind, user in self.users.items():
            self.jobs[kind] = self.make_jobs(user, 4) + self.make_jobs(user, 1, after=self.parents)
        error = {'error': {'message': "Own", 'data': {'message': "Own", 'debug': "Own"}}}
        failed = [*self.parents.ids, *(id_ for jobs in self.jobs.values() for id_ in jobs[:2].ids)]
        self.execute("UPDATE ir_async SET date_start = now() AT TIME ZONE 'UTC', date_done = now() AT TIME ZONE 'UTC'")
        self.execute("UPDATE ir_async SET state = 'failed', payload = %s WHERE id = ANY(%s)", json.dumps(error), failed)
        self.execute(
            "UPDATE ir_async SET state = 'succeeded', payload = '{\"result\": 1}' WHERE id = ANY(%s)",
            [jobs[2].id for jobs in self.jobs.values()],
        )
        self.execute(
            "INSERT INTO ir_async_stop (job_id, reason) SELECT id, 'cancel' FROM ir_async WHERE id IN %s",
            self.others._ids,
        )
        self.execute("INSERT INTO ir_async_progress (job_id) SELECT id FROM ir_async WHERE id IN %s", self.others._ids)
        self.execute("INSERT INTO ir_async_worker (host) VALUES ('x')")
        self.channel = self.env['ir.async.channel'].create({'name': 'x'})
        # sudo - ir.attachment: jobs attach their files like this
        self.file = (
            self.env['ir.attachment']
            .with_user(self.other_user)
            .sudo()
            .create({'name': "x", 'raw': b"x", 'res_model': 'ir.async', 'res_id': self.others[0].id})
        )
        self.env.flush_all()
        self.enter_world(0)

    def make_jobs(self, user, count, **options):
        model = self.ir_async.with_options(**options)
        jobs = self.ir_async.union(
            *(model.call_notify(f"Own {i}", self.partner_of(user).async_foo) for i in range(count))
        )
        jobs.flush_model()
        return jobs

    def execute(self, query, *params):
        self.env.cr.execute(query, params)  # pylint: disable=sql-injection
        self.env.invalidate_all(flush=False)

    def enter_world(self, world):
        """Write what only managers may learn: the protected fields of all jobs, and everything about others' jobs.

        :param int world: 0 or 1: which of two jobs has which secret
        """
        secret = SECRETS[world]
        for i, job in enumerate(itertools.chain.from_iterable(self.jobs.values())):
            text = json.dumps([SECRETS[(i + world) % 2], 1, 'f'])
            self.execute(
                "UPDATE ir_async SET args = %s, kwargs = %s, context = %s, stack = %s, parent_id = %s WHERE id = %s",
                text,
                f'{{"a": {text}}}',
                f'{{"b": {text}}}',
                f'[{text}]',
                self.parents[(i + world) % 2].id,
                job.id,
            )
        self.execute(
            "UPDATE ir_async SET name = %s, method = %s, args = %s WHERE id IN %s",
            secret,
            secret,
            f'["{secret}"]',
            self.parents._ids,
        )
        self.execute(
            """
            UPDATE ir_async SET name = %s, method = %s, key = id || %s, channel = %s, args = %s, state = %s, payload = %s,
                   priority = %s, dismissed = %s, claim_number = %s WHERE id IN %s
            """,
            secret,
            secret,
            secret,
            secret,
            f'["{secret}"]',
            ('done', 'cancelled')[world],
            f'{{"result": "{secret}"}}',
            world,
            bool(world),
            world,
            self.others._ids,
        )
        self.execute(
            "UPDATE ir_async_channel SET name = %s, capacity = %s WHERE id = %s", secret, world, self.channel.id
        )
        self.execute("UPDATE ir_async_worker SET host = %s", secret)
        self.execute("UPDATE ir_async_progress SET message = %s", secret)
        self.execute("UPDATE ir_async_stop SET debug = %s", secret)
        self.execute(
            "UPDATE ir_attachment SET name = %s, mimetype = %s WHERE id = %s", secret, f'text/{secret}', self.file.id
        )

    def digest(self):
        """Return a text that differs when any row of the addon does."""
        self.env.cr.execute(
            ' UNION ALL '.join(  # pylint: disable=sql-injection
                f"(SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} AS t)" for table in TABLES
            )
        )
        return self.env.cr.fetchall()

    def calls_of_jobs(self):
        """Return what the rows of jobs say about what runs, as whom, and who enqueued it."""
        self.env.cr.execute(f"SELECT {', '.join(CALL_COLUMNS)} FROM ir_async ORDER BY id")  # pylint: disable=sql-injection
        return self.env.cr.fetchall()

    def call(self, kind, model, method, arguments, look=None):
        """Call a method as a client does, and take it back.

        :param look: function to call before that, unless there was an error
        :return: the answer as JSON, or the exception; and the result of ``look``
        """
        answer = seen = None
        savepoint = self.env.cr.savepoint()
        try:
            records = self.env(user=self.users[kind].id, su=False, context={})[model]
            is_of_model = getattr(getattr(type(records), method, None), '_api_model', False)
            answer = json.dumps(
                call_kw(records, method, [] if is_of_model else [self.ids(kind, model)], arguments),
                default=json_default,
            )
            self.env.flush_all()
            seen = look and look()
        except Exception as exc:  # noqa: BLE001 -- an answer, too
            answer = exc
        savepoint.close(rollback=True)
        self.env.invalidate_all(flush=False)
        return answer, seen

    def ids(self, kind, model):
        """Return the ids of the records whose methods a kind of user calls: own jobs, or a record of another model."""
        # sudo - ir.async.*: the test looks
        return self.jobs[kind].ids if model == 'ir.async' else self.env[model].sudo().search([], limit=1).ids

    # methods and arguments

    def methods(self, model, is_public=True):
        """Return the names of the methods of a model that clients can call, or of those that they cannot."""
        names = []
        for name in dir(self.registry[model]):
            if not name.startswith('__') and callable(getattr(self.registry[model], name, None)):
                try:
                    get_public_method(self.env[model], name)
                except Exception:  # noqa: BLE001 -- whatever it says
                    names += [] if is_public else [name]
                else:
                    names += [name] if is_public else []
        return names

    def is_ours(self, model, method):
        """Return whether this addon defines or overrides a method."""
        return any(
            method in vars(base) and base.__module__.startswith('odoo.addons.ir_async.')
            for base in self.registry[model].mro()
        )

    def paths(self, model):
        """Return the fields of a model, and of the jobs that it refers to."""
        fields = self.registry[model]._fields
        return [
            *fields,
            *(
                f'{name}.{sub}'
                for name, field in fields.items()
                if field.comodel_name == 'ir.async'
                for sub in self.registry['ir.async']._fields
            ),
        ]

    def values(self, parameter, path):
        """Return what a client may pass for a parameter, aimed at a path of fields.

        :param str parameter: the name of the parameter, which says what it takes
        """
        secret, ids = SECRETS[0], [*self.parents.ids, *self.others.ids, *self.jobs['owner'].ids]
        spec = {}
        for name in reversed(path.split('.')):
            spec = {name: {'fields': spec} if spec else {}}
        domains = [
            [(path, operator, value)]
            for operator, value in (
                ('like', secret),
                ('=', secret),
                ('!=', False),
                ('<', secret),
                ('in', ids[:1]),
                ('any', [('id', '!=', 0)]),
                ('any!', [('args', 'like', secret)]),
                ('child_of', ids[:1]),
                ('parent_of', ids[-3:-2]),
            )
        ]
        domains += [[('id', 'child_of', ids[:1])], ['!', ('after_ids', 'any', [('id', 'parent_of', ids[:1])])]]
        lists = [[path], [path.replace('.', '/')], [f'{path}:max']]
        return {
            'domain': domains,
            'kwargs': [
                {'search_domain': domains[0]},
                {'comodel_domain': domains[0], 'expand': True},
                {'enable_counters': True},
            ],
            'having': [[(f'{path}:max', '<', secret)]],
            'order': [path, f'{path} desc', f'{path}:max'],
            'orderby': [path],
            'groupby': [[path], [f'{path}:day']],
            'group_by': [path],
            'grouping_sets': [[[path], []]],
            'aggregates': [[f'{path}:{how}'] for how in ('array_agg', 'max', 'count_distinct')],
            'fields': lists,
            'fields_to_export': lists,
            'field_names': lists[:1],
            'allfields': lists[:1],
            'field_name': [path],
            'full_name': [f'{path}.x', path],
            'name': [secret],
            'progress_bar': [{'field': path, 'colors': {}}],
            'specification': [spec],
            'fields_spec': [spec],
            'unfold_read_specification': [spec],
            'groupby_read_specification': [spec],
            'vals': [{path: secret}],
            'values': [{path: secret}],
            'vals_list': [[{path: secret}]],
            'default': [{path: secret}],
            'translations': [{'en_US': secret}],
            'data': [
                [[secret]],
                json.dumps(
                    {
                        'model': 'ir.async',
                        'ids': False,
                        'domain': domains[0],
                        'import_compat': False,
                        'fields': [{'name': path.replace('.', '/'), 'label': "x"}],
                    }
                ),
            ],
            'operation': ['read', 'write'],
            'operator': ['ilike', 'child_of'],
            'access_uid': [1, 2],
            'job_ids': [ids],
            'new': [ids],
            'views': [[[False, 'list'], [False, 'search']]],
            'view_type': ['form'],
            'format': ['csv', 'xlsx'],
            'view_id': [False],
            'limit': [1],
            'offset': [1],
            'options': [{}],
            'opening_info': [[]],
            'help_message': ["x"],
            'next_id': ids[:1],
        }.get(parameter, [None, [], {}, secret, True])

    def arguments(self, model, method, path):
        """Yield arguments for a method: each parameter in turn gets each of its values, the required others their first one."""
        parameters = self.parameters(model, method)
        required = {name: self.values(name, path)[0] for name, is_required in parameters.items() if is_required}
        if 'domain' in required:
            required['domain'] = []
        yield required
        for name in parameters:
            for value in self.values(name, path):
                yield {**required, **(value if name == 'kwargs' else {name: value})}

    def parameters(self, model, method):
        """Return the parameters of a method, and which of them are required.

        :rtype: dict[str, bool]
        """
        signature = inspect.signature(getattr(self.registry[model], method))
        return {
            name: parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            for name, parameter in signature.parameters.items()
            if name not in ('self', 'args', 'options')
            or (name == 'options' and parameter.kind is not parameter.VAR_KEYWORD)
        }
