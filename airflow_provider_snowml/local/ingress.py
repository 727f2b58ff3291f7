"""The public endpoint of services: ``/ingress/<service>/<function>`` of the server's own address."""

from __future__ import annotations

import json
import secrets

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import service_calls, services, services_sql
from .account import Account
from .catalog import Object

ANSWER_WITHIN = 60.0  # seconds, as Snowflake's ingress


class Ingress:
    """:param password: what a client logs in with; it is also taken as a token."""

    def __init__(self, account: Account, password: str) -> None:
        self._account = account
        self._password = password

    def routes(self) -> list[Route]:
        return [Route("/ingress/{service}{path:path}", self.forward, methods=["GET", "POST"])]

    async def forward(self, request: Request) -> Response:
        """401 without a token, 404 for no public service, 503 while no instance is ready."""
        if not self._is_known(request.headers.get("Authorization", "")):
            return _error(401, 'send the header Authorization: Snowflake Token="<token>"')
        id_ = request.path_params["service"].split(".")[0]
        service = await run_in_threadpool(self._find, id_)
        if service is None:
            return _error(404, "no service has this public endpoint")
        path = request.path_params["path"] or "/"
        return await run_in_threadpool(self._ask, service, request.method, path, await request.body())

    def _is_known(self, header: str) -> bool:
        token = header.removeprefix('Snowflake Token="').removesuffix('"')
        if token == header:
            return False
        is_password = secrets.compare_digest(token.encode(), self._password.encode())
        return is_password or token in self._account.sessions

    def _find(self, id_: str) -> Object | None:
        for service in self._account.catalog.list("SERVICE"):
            if service.data["id"] == id_ and service.data.get("ingress_enabled"):
                return service
        return None

    def _ask(self, service: Object, verb: str, path: str, body: bytes) -> Response:
        account = self._account
        if services.state(account, service)["status"] == services.SUSPENDED and service.data["auto_resume"]:
            services_sql.resume(account, service)
            service = account.catalog.get("SERVICE", service.name)
        try:
            status, answer = service_calls.ask(account, service, verb, path, body, ANSWER_WITHIN)
        except service_calls.NotReady as e:
            return _error(503, str(e))
        except TimeoutError:
            return _error(504, f"no answer within {ANSWER_WITHIN:.0f} seconds")
        return Response(answer, status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return Response(json.dumps({"error": message}), status, media_type="application/json")
