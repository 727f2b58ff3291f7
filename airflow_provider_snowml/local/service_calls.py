"""Asking the instances of a service, one after the other: from SQL and from its ingress.

``SELECT service!predict(a, b)`` becomes a function of the SQL engine that sends batches of rows to
the same endpoint that a client of the ingress reaches.
"""

from __future__ import annotations

import http.client
import itertools
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import services, services_sql
from .catalog import Object, Qualified
from .containers import PENDING, RUNNING
from .errors import SnowflakeError, compilation_error
from .model_types import duckdb_type, from_json, method_of, typed_arguments
from .models import Method, method_from_data

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

ROWS_AT_ONCE = 2000
_turn = itertools.count()


class NotReady(Exception):
    """No instance of the service takes requests now; the message says why."""


def ask(
    account: Account, service: Object, verb: str, path: str, body: bytes, seconds: float
) -> tuple[int, bytes]:
    """Send a request to an instance that is ready, to another one if that is gone meanwhile.

    :param seconds: how long to wait for the answer; TimeoutError when it does not come.
    :return: the status and the body of the answer.
    :raises NotReady: when none is ready.
    """
    ids = services.instance_ids(service)
    first = next(_turn)
    for number in range(len(ids)):
        found = services.instance_state(account, ids[(first + number) % len(ids)])
        if found["status"] != RUNNING:
            continue
        connection = http.client.HTTPConnection("127.0.0.1", found["port"], timeout=seconds)
        try:
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    state = services.state(account, service)
    raise NotReady(f"Service {service.name} has no instance that is ready: {state['message']}")


def rewrite_call(session: Session, name: Qualified, method_name: str, arguments: str) -> str:
    """What ``service!method(...)`` is replaced by in SQL."""
    service = services.get(session, name)
    if services.is_job(service):
        raise compilation_error(f"{name} is a job service, which has no functions.")
    offered = map(method_from_data, service.data["methods"])
    method = method_of(offered, method_name, f"service {name}")
    function = f"SNOWML_SERVICE_{service.data['id']}_{method.target_method}".upper()
    _register(session, function, service, method)
    return f"{function}({', '.join(typed_arguments(method, arguments))})"


def _register(session: Session, function: str, service: Object, method: Method) -> None:
    account = session.account
    types = [duckdb_type(t) for _, t in method.inputs]
    returned = duckdb_type(method.return_type)
    path = "/" + method.target_method.replace("_", "-")

    def run(*arrays: pa.ChunkedArray) -> pa.Array:
        current = _ready(session, service.name, service.data["id"])
        columns = [from_json(a) if t == "JSON" else a for a, t in zip(arrays, types, strict=True)]
        rows = list(zip(*(c.to_pylist() for c in columns), strict=True))
        at_once = current.data["max_batch_rows"] or ROWS_AT_ONCE
        values: list[Any] = []
        for i in range(0, len(rows), at_once):
            values += _predict(account, current, path, method, rows[i : i + at_once])
        if returned != "JSON":
            return pa.array([next(iter(v.values())) for v in values], from_pandas=True)
        return pa.ExtensionArray.from_storage(pa.json_(), pa.array(map(json.dumps, values), pa.string()))

    account.register_function(function, run, types, returned)


def _predict(
    account: Account, service: Object, path: str, method: Method, rows: list[tuple[Any, ...]]
) -> list[Any]:
    body = json.dumps({"data": [[i, *row] for i, row in enumerate(rows)]}, default=_json_default)
    try:
        status, answer = ask(account, service, "POST", path, body.encode(), seconds=3600)
    except NotReady as e:
        raise _unreachable(str(e)) from None
    if status != 200:
        raise SnowflakeError(
            395025,
            "P0000",
            f"Request failed for external function {method.name} of service {service.name} with"
            f" remote service error: {status} '{answer.decode(errors='replace')}'",
        )
    return [value for _, value in json.loads(answer)["data"]]


def _json_default(value: Any) -> Any:
    """Decimals as the numbers that models take, bytes in hexadecimal, times as ISO text."""
    if hasattr(value, "as_tuple"):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex().upper()
    return value.isoformat()


def _ready(session: Session, name: Qualified, id_: str) -> Object:
    """The service as it is now; one that was suspended is resumed and waited for."""
    account = session.account
    while True:
        service = account.catalog.find("SERVICE", name)
        if service is None or service.data["id"] != id_:
            raise _unreachable(f"Service {name} was dropped")
        status = services.state(account, service)["status"]
        if status == services.SUSPENDED:
            if not service.data["auto_resume"]:
                raise _unreachable(f"Service {name} is suspended, and its AUTO_RESUME is FALSE")
            services_sql.resume(account, service)
        elif status != PENDING or not service.data.get("resumed_on") or service.data["waits_for_pool"]:
            return service
        services.pause(0.1)


def _unreachable(why: str) -> SnowflakeError:
    return SnowflakeError(395026, "55000", f"Service is not reachable: no service hosts found. {why}.")
