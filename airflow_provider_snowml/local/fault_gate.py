"""Where the network's faults are: between the socket and the protocol."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any

from .errors import SnowflakeError
from .faults import Fault
from .wire import failure, token_in

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .account import Account

_CONTROL = "SYSTEM$SNOWML_LOCAL_"  # a statement about faults meets none, else they could not be cleared
_UNSEEN = ("/telemetry/send", "/healthcheck", "/session/heartbeat")


class FaultGate:
    """Lets a request through, late, in part or not at all.

    :param app: the protocol.
    :param account: whose faults and sessions they are.
    """

    def __init__(self, app: ASGIApp, account: Account) -> None:
        self._app = app
        self._account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_UNSEEN):
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        user, statement = self._told(scope, body)
        control = _CONTROL in statement.upper()
        fault = (
            None
            if control
            else self._account.faults.for_request(user, statement, f"{scope['method']} {scope['path']}")
        )
        again = _replayed(body, receive)
        if fault is None:
            await self._app(scope, again, send)
        elif fault.kind == "drop_request":
            await _hang_up(send)
        elif fault.kind == "drop_reply":
            await self._app(scope, again, _nowhere)
            await _hang_up(send)
        elif fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, again, send)
        elif fault.kind == "refuse":
            await failure(SnowflakeError(fault.errno, "XX000", fault.message))(scope, again, send)
        elif fault.kind == "expire_session":
            self._account.sessions.pop(_token(scope), None)
            await self._app(scope, again, send)
        else:
            await self._hold(fault, scope, again, send)

    async def _hold(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        fault.held = True
        while not fault.released:
            await asyncio.sleep(0.02)
        if fault.released == "carry_out":
            await self._app(scope, receive, _nowhere)
        self._account.faults.forget(fault)
        if fault.released == "answer":
            await self._app(scope, receive, send)
        else:
            await _hang_up(send)

    def _told(self, scope: Scope, body: bytes) -> tuple[str, str]:
        """Who asks, and with which statement."""
        session = self._account.sessions.get(_token(scope))
        told: dict[str, Any] = {}
        if body and scope["path"].endswith(("/query-request", "/login-request")):
            told = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        user = session.user if session is not None else str((told.get("data") or {}).get("LOGIN_NAME", ""))
        return user.upper(), str(told.get("sqlText") or "")


def _token(scope: Scope) -> str:
    return token_in(dict(scope["headers"]).get(b"authorization", b"").decode())


async def _whole_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


async def _nowhere(message: Message) -> None:
    """An answer that nobody gets."""


async def _hang_up(send: Send) -> None:
    """Break the connection. ASGI has no word for it: the transport is uvicorn's."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)  # until uvicorn has noticed, else it answers with an error of its own
