"""The demonstration: see script/run."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from zipfile import BadZipFile

import openpyxl
import requests
import websocket
from devenv import ODOO, STATE, cluster, create_database, databases, fingerprint, psql

DATABASE = 'ir_async_demo'
LOGIN = PASSWORD = 'admin'
LOG = STATE / 'run.log'
PATIENCE = 600
# Each worker process holds this lock while it listens: PROCESS_LOCK_CLASS in engine/connection.py.
LISTENING = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = {int.from_bytes(b'irap', 'big')}"


class Problem(Exception):
    """A problem to print without a traceback."""


def say(*text):
    print(*text, flush=True)


def stamp():
    return datetime.now().astimezone().strftime('%H:%M:%S.%f')[:-3]


def prepare_database():
    made_of, have = fingerprint(), STATE / 'demo_database'
    if DATABASE in databases() and have.exists() and have.read_text(encoding='utf-8') == made_of:
        return
    say('Creating the demo database: 20,000 partners, about half a minute')
    have.unlink(missing_ok=True)
    if bad := create_database(DATABASE, 'web,bus,ir_async,ir_async_demo'):
        raise Problem('\n'.join(['the demo database cannot be installed:', *bad]))
    have.write_text(made_of, encoding='utf-8')


def default_port():
    with open(os.environ['ODOO_RC'], encoding='utf-8') as conf:
        return next(int(line.split('=')[1]) for line in conf if line.startswith('http_port'))


def check_port(port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(('127.0.0.1', port))
        except (OSError, OverflowError) as error:
            msg = f'port {port} cannot be used ({error}): choose another one with --port'
            raise Problem(msg) from None


class Server:
    """A threaded Odoo server, so that the websocket is on the same port. The jobs run in processes of their own."""

    def __init__(self, port):
        self.url = f'http://localhost:{port}'
        self.websocket_url = f'ws://localhost:{port}/websocket'
        self.process = subprocess.Popen(
            [
                *ODOO,
                '-d',
                DATABASE,
                '--workers=0',
                '--http-interface=localhost',
                f'--http-port={port}',
                f'--logfile={LOG}',
            ],
            env={'ODOO_IR_ASYNC_WORKERS': '2'} | os.environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def check(self):
        if self.process.poll() is not None:
            msg = f'Odoo stopped, see {LOG}:\n' + '\n'.join(LOG.read_text(encoding='utf-8').splitlines()[-15:])
            raise Problem(msg)

    def wait_until_ready(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f'{self.url}/web/login', timeout=60).ok and int(psql(LISTENING)[0]):
                    return
            time.sleep(0.1)
        msg = f'Odoo does not answer on {self.url}, see {LOG}'
        raise Problem(msg)

    def close(self):
        """End the server and all its children, which are in its process group."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        deadline = time.monotonic() + 10
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0 if time.monotonic() < deadline else signal.SIGKILL)
                time.sleep(0.05)
                self.process.poll()


class Client:
    """The part of a browser that deals with jobs."""

    def __init__(self, server):
        self.server = server
        self.session = requests.Session()
        self.rpc('/web/session/authenticate', db=DATABASE, login=LOGIN, password=PASSWORD)
        self.websocket = websocket.create_connection(
            server.websocket_url,
            cookie=f'session_id={self.session.cookies["session_id"]}',
            timeout=1,
        )
        self.websocket.send(json.dumps({'event_name': 'subscribe', 'data': {'channels': [], 'last': 0}}))

    def rpc(self, route, **params):
        answer = self.session.post(self.server.url + route, json={'params': params}, timeout=120).json()
        if 'error' in answer:
            raise Problem(answer['error']['data']['message'])
        return answer['result']

    def close(self):
        self.websocket.close()

    def call(self, model, method, *args):
        return self.rpc('/web/dataset/call_kw', model=model, method=method, args=args, kwargs={})

    def changes(self, job_id):
        """Yield the messages on a job as they arrive."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.server.check()
            with contextlib.suppress(websocket.WebSocketTimeoutException):
                for notification in json.loads(self.websocket.recv()):
                    message = notification['message']
                    if message['type'] == 'ir.async' and message['payload']['id'] == job_id:
                        yield message['payload']
        msg = f'no end of the job after {PATIENCE} s, see {LOG}'
        raise Problem(msg)

    def download(self, url, path):
        with self.session.get(self.server.url + url, stream=True, timeout=120) as answer, path.open('wb') as file:
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)


def progress_text(progress):
    if not isinstance(progress, dict):
        return ''
    return progress.get('message') or ' / '.join(
        str(progress[key]) for key in ('done', 'total') if progress.get(key) is not None
    )


def check_file(path, records):
    rows = sum(1 for row in openpyxl.load_workbook(path, read_only=True).active.rows if row[0].value) - 1
    expected = int(psql('SELECT count(*) FROM res_partner WHERE active', DATABASE)[0])
    say(f'{path}: {rows:,} rows, {path.stat().st_size:,} bytes')
    return rows == records == expected


def export(client):
    """Run the export and print its progress.

    :return: the outcome, and whether the file is correct
    """
    job = client.call('res.partner', 'enqueue_export')
    committed = job['committed']
    say(f'{stamp()}  job {job["asyncJobId"]} enqueued: export of all partners')
    for change in client.changes(job['asyncJobId']):
        say(
            f'{stamp()}  {time.time() - committed:7.3f} s  {change["state"]:<10}  {progress_text(change.get("progress"))}'.rstrip()
        )
        if change['state'] in ('succeeded', 'done', 'failed', 'cancelled'):
            break
    outcome = {
        'state': change['state'],
        'records': 0,
        'seconds': round(time.time() - committed, 3),
        'start_ms': None,
        'file': None,
    }
    payload = change.get('payload') or {}
    if 'error' in payload:
        say(payload['error']['data']['debug'])
    if not payload.get('result'):
        return outcome, False
    result = payload['result']
    path = STATE / 'partners.xlsx'
    client.download(result['url'], path)
    outcome |= {
        'records': result['records'],
        'start_ms': round((result['started'] - committed) * 1000, 1),
        'file': str(path),
    }
    say(f'started {outcome["start_ms"]} ms after the commit, done after {outcome["seconds"]} s')
    return outcome, check_file(path, result['records'])


def serve(server):
    say(f'\n{server.url}/odoo  login: {LOGIN}  password: {PASSWORD}\nlog: {LOG}\nCtrl-C to stop')
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            server.check()
            time.sleep(1)


def main(args):
    port = args.port or default_port()
    check_port(port)
    prepare_database()
    LOG.unlink(missing_ok=True)
    with contextlib.closing(Server(port)) as server:
        server.wait_until_ready()
        with contextlib.closing(Client(server)) as client:
            outcome, right = export(client)
        if not right:
            say('The export is NOT right.')
        if not args.once:
            serve(server)
    return outcome, right


if __name__ == '__main__':
    parser = argparse.ArgumentParser(prog='script/run', description=__doc__)
    parser.add_argument('--port', type=int, help="of the web server")
    parser.add_argument('--once', action='store_true', help="stop after the job")
    arguments = parser.parse_args()
    try:
        with cluster():
            outcome, right = main(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except (Problem, OSError, subprocess.CalledProcessError, websocket.WebSocketException, BadZipFile) as error:
        sys.exit(f'script/run: {error}')
    if arguments.once:
        say(json.dumps(outcome))
    sys.exit(not right)
