"""The routes for monitoring: health and metrics of the queue of a database."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
from typing import TYPE_CHECKING, Any

from odoo import api, http
from odoo.api import SUPERUSER_ID
from odoo.http import request
from odoo.modules.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

_logger = logging.getLogger(__name__)

PROMETHEUS = 'text/plain; version=0.0.4; charset=utf-8'


class MonitoringController(http.Controller):
    """The two routes for monitoring. Both are off until the system parameter ``ir_async.metrics_token`` is set."""

    @http.route('/ir_async/health', type='http', auth='none', methods=['GET'], save_session=False, readonly=False)
    def health(self, **_params: str) -> http.Response:
        """Answer whether the queue of a database is healthy, with the reasons if it is not: JSON, status 200 or 503."""
        return self._answer(self._health)

    @http.route('/ir_async/metrics', type='http', auth='none', methods=['GET'], save_session=False, readonly=False)
    def metrics(self, **_params: str) -> http.Response:
        """Answer with the figures of the queue of a database, in the text format of Prometheus."""
        return self._answer(lambda env: _response(env['ir.async']._metrics(), PROMETHEUS))

    def _health(self, env: api.Environment) -> http.Response:
        return _health_response(**env['ir.async']._health())

    def _answer(self, make: Callable[[api.Environment], http.Response]) -> http.Response:
        try:
            with _environment() as env:
                if env is None or 'ir.async' not in env:
                    return _response(
                        "Not found. With several databases, add ?db=NAME or the header X-Odoo-Database.\n", status=404
                    )
                token = (env['ir.config_parameter'].get_param('ir_async.metrics_token') or '').strip()
                if not token:
                    return _response("Not found\n", status=404)
                if not _is_authorized(token):
                    return _response(
                        "Unauthorized: send the header Authorization: Bearer TOKEN\n",
                        status=401,
                        headers={'WWW-Authenticate': 'Bearer realm="ir_async"'},
                    )
                with env.cr.savepoint(flush=False):
                    return make(env)
        except Exception:
            # Monitoring needs an answer, whatever is wrong with the database. Details only go to the log.
            _logger.warning("Could not answer a request for monitoring", exc_info=True)
            return _health_response(
                'unhealthy',
                [{'code': 'error', 'message': "The state of the queue could not be read. See the log of the server."}],
            )


@contextlib.contextmanager
def _environment() -> Generator[api.Environment | None]:
    """Provide an environment on the database that the request names, or None if it names no database that it may use."""
    name = request.httprequest.args.get('db')
    if not name or name == request.db:
        yield None if request.env is None else request.env(user=SUPERUSER_ID, su=True, context={})
    elif name not in http.db_list(force=True):  # the databases that the filter permits for this host
        yield None
    else:
        with Registry(name).cursor() as cr:
            Registry(name).check_signaling(cr)
            yield api.Environment(cr, SUPERUSER_ID, {})


def _is_authorized(token: str) -> bool:
    scheme, _space, given = request.httprequest.headers.get('Authorization', '').partition(' ')
    # Both sides are bytes, since `compare_digest` refuses text with accents. Headers come decoded as latin-1.
    is_same = hmac.compare_digest(given.strip().encode('latin-1', 'replace'), token.encode())
    return is_same and scheme.lower() == 'bearer'


def _health_response(status: str, reasons: list[dict[str, str]], **more: Any) -> http.Response:
    return _response(
        json.dumps({'status': status, 'reasons': reasons, **more}, indent=2) + '\n',
        'application/json',
        status=200 if status == 'ok' else 503,
    )


def _response(
    body: str,
    content_type: str = 'text/plain; charset=utf-8',
    status: int = 200,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> http.Response:
    return http.Response(
        body, status=status, headers={'Content-Type': content_type, 'Cache-Control': 'no-store', **dict(headers)}
    )
