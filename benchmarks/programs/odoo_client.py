"""A process with Odoo's environment that enqueues jobs. It reads commands, one JSON array a line, and answers with JSON."""

import functools
import json
import os
import random
import sys
import time

from odoo import api
from odoo.modules.registry import Registry
from odoo.service.server import load_server_wide_modules
from odoo.tools import config

ADMIN = 2
CONTEXT = {'lang': 'en_US', 'tz': 'Europe/Brussels', 'allowed_company_ids': [1]}


class Client:
    """Enqueues jobs as an addon would, in transactions of Odoo."""

    def __init__(self, registry, system):
        self.registry = registry
        self.delay = getattr(self, f'delay_{system}')

    # the code that a developer would write

    @staticmethod
    def delay_ir_async(records, method, args, priority=None):
        model = records.env['ir.async']
        if priority is not None:
            model = model.with_options(priority=priority)
        model.call(getattr(records, method), *args)

    @staticmethod
    def delay_queue_job(records, method, args, priority=None):
        getattr(records.with_delay(priority=priority), method)(*args)

    @staticmethod
    def delay_cron(records, method, args, priority=None):
        env = records.env
        code = f'model.{method}(*{args!r})'
        cron = env['ir.cron'].sudo().search([('code', '=', code)], limit=1)
        if not cron:
            cron = (
                env['ir.cron']
                .sudo()
                .create(
                    {
                        'name': f'bench {method}',
                        'model_id': env['ir.model']._get_id(records._name),
                        'state': 'code',
                        'code': code,
                        'user_id': env.uid,
                        'interval_number': 1,
                        'interval_type': 'weeks',
                        'nextcall': '2099-01-01 00:00:00',
                    }
                )
            )
            env.cr.commit()
        cron._trigger()

    # commands

    def enqueue(self, method, args, count, with_record=False, priority=None, chunk_size=None):
        """Enqueue jobs in one transaction.

        :return: the seconds that it took, and when its COMMIT returned
        """
        with self.registry.cursor() as cr:
            env = api.Environment(cr, ADMIN, CONTEXT)
            committed = []
            cr.postcommit.add(lambda: committed.append(time.time()))  # before all other hooks
            records = env['bench.job'].browse(self.record_ids(env, count) if with_record or chunk_size else ())
            start = time.perf_counter()
            if chunk_size:
                env['ir.async'].with_options(chunk_size=chunk_size).call(getattr(records, method), *args)
            elif with_record:
                for record in records:
                    self.delay(record, method, args, priority)
            else:
                for _i in range(count):
                    self.delay(records, method, args, priority)
            cr.commit()
            return {'seconds': time.perf_counter() - start, 'committed': committed[0]}

    def record_ids(self, env, count):
        ids = env['bench.job'].search([], limit=count, order='id').ids
        if len(ids) < count:
            env['bench.job'].create([{'name': str(i)} for i in range(count - len(ids))])
            env.cr.commit()
            ids = env['bench.job'].search([], limit=count, order='id').ids
        return ids

    def latency(self, path, count, pause, priority=None):
        """Enqueue one job after the other while nothing else is running.

        :return: milliseconds from the return of COMMIT to the first line of the method
        """
        latencies = []
        for i in range(count):
            with self.registry.cursor() as cr:
                env = api.Environment(cr, ADMIN, CONTEXT)
                committed = []
                cr.postcommit.add(lambda committed=committed: committed.append(time.time()))
                label = 'cron' if self.delay == self.delay_cron else f'{os.getpid()}-{i}'
                self.delay(env['bench.job'], 'stamp', [path, label], priority)
                cr.commit()
                # After the creation of a cron, which commits first, this time is too early. Only the warm-up creates one.
            started = self.wait_for(path, label, committed[0])
            latencies.append((started - committed[0]) * 1000)
            time.sleep(random.uniform(0.5, 1.5) * pause)
        return latencies

    @staticmethod
    def wait_for(path, label, since, patience=120):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(0.002)
            if os.path.exists(path):
                with open(path, encoding='utf-8') as file:
                    for line in file.read().splitlines():
                        name, _space, stamp = line.partition(' ')
                        if name == label and float(stamp) > since - 0.5 and (name != 'cron' or float(stamp) > since):
                            return float(stamp)
        msg = f"{label} did not start within {patience} s"
        raise TimeoutError(msg)


def main(system, *args):
    # Output of other code must not get between the answers.
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)
    config.parse_config(list(args), setup_logging=True)
    load_server_wide_modules()
    default = config['db_name'][0]
    client = Client(Registry(default), system)
    for line in sys.stdin:
        command, params = json.loads(line)
        try:
            client.registry = Registry(params.pop('database', default))
            answer = {'result': functools.partial(getattr(client, command), **params)()}
        except Exception as exc:  # noqa: BLE001 -- the benchmark reports it
            answer = {'error': f'{type(exc).__name__}: {exc}'}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
