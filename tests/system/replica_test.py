"""A read replica of PostgreSQL."""

import json

import pytest
import requests
from client import Client
from harness import Cluster


@pytest.fixture
def replica(cluster, database, folder):
    """A replica that is late: it has what was there before the test."""
    replica = Cluster(folder)
    replica.copy(cluster)
    replica.PARAMETERS = Cluster.PARAMETERS | {'recovery_min_apply_delay': '1h'}
    replica.start()
    yield replica
    replica.stop()


def test_reads_from_the_primary(replica, database, server):
    """Requests about jobs read the primary. A replica does not know the job yet, and never which workers are alive."""
    with database.env() as env:
        env['ir.config_parameter'].set_param('ir_async.metrics_token', 'token')
        partner = env['res.partner'].create({'name': "New"}).id
        channel = env['ir.async.channel'].create({'name': 'new', 'capacity': 1}).id
        effect = env['test.async.effect'].with_user(env.ref('base.user_admin'))
        job_id = env['ir.async'].call_notify("Job", effect.effect, 'job').id
    args = ('--workers=0', '--max-cron-threads=0', f'--db_replica_host={replica.folder}')
    with server(database, args=args) as odoo, Client(odoo, database) as client:
        assert client.call('res.partner', 'search_count', [('id', '=', partner)]) == 0, "others read the replica"

        assert database.wait_for(job_id).state == 'done'
        here = [('id', '=', job_id)]
        assert [row['id'] for row in client.call('ir.async', 'get_user_jobs', [job_id])] == [job_id]
        assert client.call('ir.async', 'search_count', here) == 1
        assert client.call('ir.async', 'web_read', [job_id], {'state': {}}) == [{'id': job_id, 'state': 'done'}]
        found = client.call('ir.async', 'web_search_read', here, {'state': {}})
        assert found['records'] == [{'id': job_id, 'state': 'done'}]
        [group] = client.call('ir.async', 'web_read_group', here, ['state'], ['__count'])['groups']
        assert group['__count'] == 1
        assert client.call('ir.async.channel', 'search_count', [('id', '=', channel)]) == 1
        assert client.call('ir.async.worker', 'search_count', [('is_alive', '=', True)]) == odoo.workers_count
        for route in ('health', 'metrics'):
            answer = requests.get(
                f'http://127.0.0.1:{odoo.port}/ir_async/{route}',
                headers={'Authorization': 'Bearer token'},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
        assert f'ir_async_workers {odoo.workers_count}' in answer.text


def test_downloads_from_the_primary(replica, database, server):
    """The file of an export can be downloaded as soon as its job has ended."""
    export = {'model': 'res.partner', 'ids': [1], 'domain': [], 'import_compat': False}
    export['fields'] = [{'name': 'name', 'label': "Name"}]
    with database.env() as env:
        env['res.partner'].with_user(env.ref('base.user_admin')).async_export('csv', json.dumps(export))
    job_id = database.value("SELECT id FROM ir_async")
    args = ('--workers=0', '--max-cron-threads=0', f'--db_replica_host={replica.folder}')
    with server(database, args=args) as odoo, Client(odoo, database) as client:
        url = database.wait_for(job_id).payload['result']['url']
        answer = client.session.get(f'http://{client.url}{url}', timeout=60)
        assert answer.status_code == 200
        assert answer.text.startswith('"Name"')
        assert 'attachment' in answer.headers['Content-Disposition']
