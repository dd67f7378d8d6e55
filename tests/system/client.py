"""A browser, without its window."""

import json
import time

import requests
import websocket


class Client:
    """A browser, as far as notifications go."""

    def __init__(self, odoo, database):
        self.url = f'127.0.0.1:{odoo.port}'
        self.session = requests.Session()
        self.rpc('/web/session/authenticate', db=database.name, login='admin', password='admin')
        self.websocket = websocket.create_connection(
            f'ws://{self.url}/websocket', cookie=f'session_id={self.session.cookies["session_id"]}', timeout=1
        )
        self.websocket.send(json.dumps({'event_name': 'subscribe', 'data': {'channels': [], 'last': 0}}))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.websocket.close()

    def rpc(self, route, **params):
        answer = self.session.post(f'http://{self.url}{route}', json={'params': params}, timeout=60).json()
        assert 'error' not in answer, answer['error']['data']['debug']
        return answer['result']

    def call(self, model, method, *args, **kwargs):
        return self.rpc(
            f'/web/dataset/call_kw/{model}/{method}', model=model, method=method, args=list(args), kwargs=kwargs
        )

    def notifications(self, until, timeout=60):
        """Return what is told about jobs, as (time, notification), until something is."""
        found, deadline = [], time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                messages = json.loads(self.websocket.recv())
            except websocket.WebSocketTimeoutException:
                continue
            for message in messages:
                if message['message']['type'] == 'ir.async':
                    found.append((time.time(), message['message']['payload']))
                    if until(found[-1][1]):
                        return found
        raise AssertionError(f"not told: {found}")
