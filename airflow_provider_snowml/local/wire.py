"""The protocol that Snowflake's connectors speak, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from . import executor
from .account import Account
from .errors import SnowflakeError
from .information import PARAMETERS
from .ingress import Ingress
from .queries import Query
from .results import DELETE, INSERT, MERGE, UPDATE, Result
from .session import Session
from .stages import part_of
from .types import to_wire

log = logging.getLogger("snowml.local")

_IN_PROGRESS = "333333"
_IN_PROGRESS_ASYNC = "333334"
_ANSWER_WITHIN = 40.0  # seconds, then the client is told to ask for the result again


class Wire:
    """:param password: what a client must log in with; :param tls: whether clients come by https."""

    def __init__(self, account: Account, password: str, *, tls: bool = True) -> None:
        self._account = account
        self._password = password
        self._tls = tls

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/session/v1/login-request", self.login, methods=["POST"]),
                Route("/session/token-request", self.renew, methods=["POST"]),
                Route("/session/heartbeat", self.heartbeat, methods=["GET", "POST"]),
                Route("/session", self.close_session, methods=["POST"]),
                Route("/queries/v1/query-request", self.query, methods=["POST"]),
                Route("/queries/v1/abort-request", self.abort, methods=["POST"]),
                Route("/queries/{id}/result", self.result, methods=["GET"]),
                Route("/queries/{id}/abort-request", self.abort_by_id, methods=["POST"]),
                Route("/monitoring/queries/{id}", self.monitoring, methods=["GET"]),
                Route("/telemetry/send", self.telemetry, methods=["POST"]),
                Route("/telemetry/send/sessionless", self.telemetry, methods=["POST"]),
                Route("/files/{path:path}", self.file, methods=["GET", "HEAD", "PUT"]),
                Route("/healthcheck", self.health, methods=["GET"]),
                *Ingress(self._account, self._password).routes(),
            ],
            exception_handlers={SnowflakeError: _error_response},  # type: ignore[dict-item]
        )

    # Sessions

    async def login(self, request: Request) -> Response:
        data = (await _body(request))["data"]
        given = str(data.get("PASSWORD") or data.get("TOKEN") or "")
        user = str(data.get("LOGIN_NAME", "")).upper()
        if not secrets.compare_digest(given.encode(), self._password.encode()):
            raise SnowflakeError(390100, "08001", "Incorrect username or password was specified.")
        query = request.query_params
        session = await run_in_threadpool(
            self._account.login,
            user,
            _folded(query.get("roleName")),
            _folded(query.get("warehouse")),
            _folded(query.get("databaseName")),
            _folded(query.get("schemaName")),
            dict(data.get("SESSION_PARAMETERS") or {}),
        )
        return JSONResponse(
            {
                "data": {
                    "token": session.token,
                    "masterToken": session.token,
                    "validityInSeconds": 3600,
                    "masterValidityInSeconds": 14400,
                    "displayUserName": user,
                    "serverVersion": "10.0.0",
                    "firstLogin": False,
                    "sessionId": session.id,
                    "parameters": _parameters(session),
                    "sessionInfo": _session_info(session),
                },
                "code": None,
                "message": None,
                "success": True,
            }
        )

    async def renew(self, request: Request) -> Response:
        session = self._session(request)
        return JSONResponse(
            {
                "data": {
                    "sessionToken": session.token,
                    "validityInSecondsST": 3600,
                    "masterToken": session.token,
                    "validityInSecondsMT": 14400,
                    "sessionId": session.id,
                },
                "success": True,
            }
        )

    async def heartbeat(self, request: Request) -> Response:
        self._session(request)
        return JSONResponse({"data": None, "success": True})

    async def close_session(self, request: Request) -> Response:
        session = self._session(request)
        if request.query_params.get("delete") == "true":
            await run_in_threadpool(self._account.logout, session)
        return JSONResponse({"data": None, "success": True})

    async def telemetry(self, request: Request) -> Response:
        return JSONResponse({"data": "Log Received", "success": True})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def _session(self, request: Request) -> Session:
        session = self._account.sessions.get(token_in(request.headers.get("Authorization", "")))
        if session is None:
            raise SnowflakeError(
                390111, "08003", "Session no longer exists. New login required to access the service."
            )
        return session

    # Statements

    async def query(self, request: Request) -> Response:
        session = self._session(request)
        body = await _body(request)
        request_id = request.query_params.get("requestId")
        sql = str(body.get("sqlText") or "")
        bindings = body.get("bindings")
        parameters = body.get("parameters") or {}
        again = self._account.queries.by_request(request_id) if request_id else None
        query = again or self._account.queries.start(session, sql, request_id)
        if "QUERY_TAG" in parameters and not again:
            query.tag = str(parameters["QUERY_TAG"])
        if again is None:
            if body.get("asyncExec"):
                await run_in_threadpool(executor.run_async, session, query, bindings)
            else:
                asyncio.get_running_loop().run_in_executor(
                    None, _run_quietly, session, query, bindings, bool(body.get("describeOnly"))
                )
        if body.get("asyncExec"):
            return JSONResponse(_in_progress(query, _IN_PROGRESS_ASYNC))
        return await self._when_done(request, session, query)

    async def _when_done(self, request: Request, session: Session, query: Query) -> Response:
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(None, query.finished.wait, _ANSWER_WITHIN)
        if not done:
            return JSONResponse(_in_progress(query, _IN_PROGRESS))
        if query.error is not None:
            return failure(query.error, query.id)
        assert query.result is not None
        return await run_in_threadpool(self._answer, request, session, query, query.result)

    def _answer(self, request: Request, session: Session, query: Query, result: Result) -> Response:
        data: dict[str, Any] = {
            "parameters": _parameters(session),
            "queryId": query.id,
            "finalDatabaseName": session.database,
            "finalSchemaName": session.schema,
            "finalWarehouseName": session.warehouse,
            "finalRoleName": session.role,
            "statementTypeId": result.type_id,
            "numberOfBinds": 0,
            "arrayBindSupported": result.type_id == INSERT,
            "sendResultTime": 0,
            "version": 1,
        }
        if result.transfer is not None:
            data.update(self._transfer(request, session, result.transfer))
        else:
            rows = result.table.num_rows
            data.update({"rowtype": result.rowtype, "total": rows, "returned": rows})
            if result.type_id in (INSERT, UPDATE, DELETE, MERGE):
                values = [c.to_pylist() for c in result.table.columns]
                data["rowset"] = [list(map(str, row)) for row in zip(*values, strict=True)]
                data["queryResultFormat"] = "json"
            else:
                wire = to_wire(result.table, result.rowtype) if rows else b""
                data["rowsetBase64"] = base64.b64encode(wire).decode()
                data["queryResultFormat"] = "arrow"
        return JSONResponse({"data": data, "code": None, "message": None, "success": True})

    def _transfer(self, request: Request, session: Session, transfer: Any) -> dict[str, Any]:
        """PUT and GET are done by the client, against the files below.

        Of the storages that the connector knows, Google's is the one that takes a host and a
        token: no disk needs to be shared. Without TLS it does not work, a local path stands in.
        """
        data = {k: v for k, v in transfer.items() if k != "directory"}
        directory: Path = transfer["directory"]
        if self._tls:
            relative = directory.relative_to(self._account.data_dir).as_posix()
            data["stageInfo"] = {
                "locationType": "GCS",
                "location": f"files/{relative}/",
                "path": "",
                "region": "local",
                "storageAccount": None,
                "isClientSideEncrypted": False,
                "creds": {"GCS_ACCESS_TOKEN": session.token},
                "presignedUrl": None,
                "endPoint": f"https://{request.headers['host']}",
            }
        else:
            data["stageInfo"] = {
                "locationType": "LOCAL_FS",
                "location": str(directory),
                "creds": {},
            }
        return data

    async def result(self, request: Request) -> Response:
        session = self._session(request)
        return await self._when_done(request, session, self._query(request))

    async def monitoring(self, request: Request) -> Response:
        self._session(request)
        query = self._account.queries.find(request.path_params["id"])
        if query is None:
            return JSONResponse({"data": {"queries": []}, "code": None, "success": True})
        found: dict[str, Any] = {
            "id": query.id,
            "status": query.status,
            "state": query.status,
            "startTime": int(query.started * 1000),
            "endTime": int((query.ended or 0) * 1000),
            "sqlText": query.sql,
        }
        if query.error is not None:
            found["errorCode"] = f"{query.error.errno:06d}"
            found["errorMessage"] = query.error.message
        return JSONResponse({"data": {"queries": [found]}, "code": None, "success": True})

    async def abort(self, request: Request) -> Response:
        self._session(request)
        body = await _body(request)
        query = self._account.queries.by_request(str(body.get("requestId")))
        if query is not None:
            await run_in_threadpool(query.cancel)
        return JSONResponse({"data": None, "code": None, "message": None, "success": True})

    async def abort_by_id(self, request: Request) -> Response:
        self._session(request)
        await run_in_threadpool(self._query(request).cancel)
        return JSONResponse({"data": None, "code": None, "message": None, "success": True})

    def _query(self, request: Request) -> Query:
        query = self._account.queries.find(request.path_params["id"])
        if query is None:
            raise SnowflakeError(709, "02000", f"Statement {request.path_params['id']} not found")
        return query

    # Files of stages and models

    async def file(self, request: Request) -> Response:
        self._session(request)
        data_dir = self._account.data_dir
        file = Path(os.path.normpath(data_dir / request.path_params["path"]))
        writable = file.is_relative_to(data_dir / "stages")
        if not writable and not file.is_relative_to(data_dir / "models"):
            return Response(status_code=403)
        if request.method == "PUT":
            if not writable:
                return Response(status_code=403)
            await self._receive(request, file)
            return Response()
        if not file.is_file():
            return Response(status_code=404)
        headers = {}
        if request.method == "HEAD":
            digest = await run_in_threadpool(_digest, file)
            headers = {"x-goog-meta-sfc-digest": digest}
        return FileResponse(file, headers=headers, media_type="application/octet-stream")

    async def _receive(self, request: Request, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(file)
        try:
            with part.open("wb") as out:
                async for chunk in request.stream():
                    out.write(chunk)
            part.replace(file)  # a file that is there is whole
        finally:
            part.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    return base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()


def _run_quietly(
    session: Session, query: Query, bindings: dict[str, Any] | None, describe_only: bool
) -> None:
    with contextlib.suppress(SnowflakeError):  # kept in the query, answered from there
        executor.run(session, query, bindings, describe_only)


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if request.headers.get("content-encoding") == "gzip":
        raw = gzip.decompress(raw)
    parsed: dict[str, Any] = json.loads(raw) if raw else {}
    return parsed


def _in_progress(query: Query, code: str) -> dict[str, Any]:
    return {
        "data": {
            "queryId": query.id,
            "getResultUrl": f"/queries/{query.id}/result",
            "queryAbortsAfterSecs": 300,
            "progressDesc": None,
        },
        "code": code,
        "message": "Query execution in progress. Query ID: " + query.id,
        "success": True,
    }


def token_in(header: str) -> str:
    """The session's token in an ``Authorization`` header, as statements and as file transfers carry it."""
    return header.removeprefix('Snowflake Token="').removesuffix('"').removeprefix("Bearer ")


def failure(error: SnowflakeError, query_id: str | None = None) -> JSONResponse:
    """An error, as clients read it."""
    code = f"{error.errno:06d}"
    return JSONResponse(
        {
            "data": {
                "internalError": False,
                "errorCode": code,
                "age": 0,
                "sqlState": error.sqlstate,
                "queryId": query_id,
                "line": -1,
                "pos": -1,
                "type": "COMPILATION",
            },
            "code": code,
            "message": error.message,
            "success": False,
            "headers": None,
        }
    )


async def _error_response(request: Request, error: SnowflakeError) -> Response:
    return failure(error)


def _folded(name: str | None) -> str | None:
    if not name:
        return None
    return name[1:-1] if name.startswith('"') else name.upper()


def _parameters(session: Session) -> list[dict[str, Any]]:
    return [
        {"name": key, "value": session.parameters.get(key, default)}
        for key, (default, _) in PARAMETERS.items()
    ]


def _session_info(session: Session) -> dict[str, Any]:
    return {
        "databaseName": session.database,
        "schemaName": session.schema,
        "warehouseName": session.warehouse,
        "roleName": session.role,
    }
