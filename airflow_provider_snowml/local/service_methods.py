"""Methods and functions of services: logs, waiting, cancelling; the history of jobs."""

from __future__ import annotations

import datetime
import json
import time
from typing import TYPE_CHECKING, Any

from . import services
from .catalog import Object, Qualified
from .containers import CANCELLED, ENDED, FAILED, PENDING, RUNNING
from .errors import SnowflakeError, compilation_error, invalid_value, unsupported
from .functions import system_function, table_function
from .grammar import parse_name, string_literal
from .results import UNKNOWN, Result, rows
from .services import SUSPENDED, container_name, get, is_job, pause, state

if TYPE_CHECKING:
    from .account import Account
    from .session import Session


@system_function("SYSTEM$GET_SERVICE_LOGS")
def get_service_logs(
    session: Session, service_name: str, instance: Any, container: str, lines: Any = None
) -> str:
    service = get(session, session.resolve(parse_name(service_name)))
    return "\n".join(_log(session.account, service, instance, container, lines))


def _log(account: Account, service: Object, instance: Any, container: str, lines: Any) -> list[str]:
    if container != container_name(service):
        raise SnowflakeError(
            395020,
            "22023",
            f"Container '{container}' not found in service {service.name}; it has"
            f" '{container_name(service)}'.",
        )
    if not str(instance).isdigit() or int(instance) >= services.target_instances(service):
        raise SnowflakeError(395021, "22023", f"Instance {instance} not found in service {service.name}.")
    found = state(account, service)
    instances = services.instance_ids(service)
    number = int(instance)
    text = account.containers.log(instances[number]) if number < len(instances) else ""
    if found["status"] == PENDING and not text:
        raise SnowflakeError(
            395016,
            "55000",
            f"Failed to retrieve logs: Container Status: PENDING, Message: {found['message']}",
        )
    shown = text.splitlines()
    return shown if lines is None or int(lines) < 0 else shown[-int(lines) :]


def call_service_method(session: Session, name: Qualified, method: str, arguments: list[Any]) -> Result:
    """``CALL service!method(...)``."""
    service = get(session, name)
    if method == "spcs_cancel_job":
        _arguments(method, arguments, 0)
        if not is_job(service):
            raise unsupported(f"method {method} of service {name}, which is no job")
        found = session.account.containers.end(service.data["id"], CANCELLED, "Cancelled by user")
        if found["status"] != CANCELLED:
            return _answer(method, f"Job {name} is in state {found['status']} already.")
        return _answer(method, f"Job {name} cancelled.")
    if method == "spcs_wait_for":
        _arguments(method, arguments, 2)
        return _wait_for(session, service, str(arguments[0]).upper(), float(arguments[1]))
    raise unsupported(f"method {method} of service {name}")


def _arguments(method: str, arguments: list[Any], wanted: int) -> None:
    if len(arguments) != wanted:
        raise compilation_error(f"{method} takes {wanted} argument(s), got {len(arguments)}.")


def _answer(method: str, text: str) -> Result:
    return rows([method.upper()], [[text]], UNKNOWN)


def _wait_for(session: Session, service: Object, wanted: str, seconds: float) -> Result:
    known = (PENDING, RUNNING, *ENDED) if is_job(service) else (PENDING, RUNNING, FAILED, SUSPENDED)
    final = ENDED if is_job(service) else (FAILED,)
    if wanted not in known:
        raise invalid_value(f"invalid state '{wanted}'; expected one of {', '.join(known)}.")
    deadline = time.monotonic() + seconds
    while True:
        service = get(session, service.name)
        found = state(session.account, service)
        if found["status"] == wanted:
            return _answer("spcs_wait_for", f"Service {service.name} reached state {wanted}.")
        if found["status"] in final:
            raise SnowflakeError(
                395022,
                "55000",
                f"Service {service.name} cannot reach state {wanted}: it is {found['status']}"
                f" ({found['message']}).",
            )
        if time.monotonic() >= deadline:
            raise SnowflakeError(
                395023,
                "57014",
                f"Service {service.name} did not reach state {wanted} within {seconds:.0f} seconds;"
                f" it is {found['status']}.",
            )
        pause(0.1)


def table_function_call(name: Qualified, method: str, arguments: str) -> str:
    """What ``service!spcs_get_logs(...)`` is replaced by inside ``TABLE(...)``."""
    if method.lower() != "spcs_get_logs":
        raise unsupported(f"table function {method} of service {name}")
    more = f", {arguments}" if arguments.strip() else ""
    return f"SNOWML_SERVICE_LOGS({string_literal(str(name))}{more})"


@table_function("SNOWML_SERVICE_LOGS")
def spcs_get_logs(
    session: Session,
    service_name: str,
    start_time: Any = None,
    end_time: Any = None,
    *,
    instance_id: Any = 0,
    container_name: str | None = None,
) -> Result:
    """``TABLE(service!spcs_get_logs(...))``; a line's time is that of the last change of state."""
    service = get(session, session.resolve(parse_name(service_name)))
    if start_time is not None or end_time is not None:
        raise unsupported("a time range of spcs_get_logs")
    columns: list[str | tuple[str, str]] = [
        ("TIMESTAMP", "timestamp_ltz"), ("INSTANCE_ID", "fixed"), "CONTAINER_NAME", "LOG"
    ]  # fmt: skip
    container = container_name or services.container_name(service)
    lines = _log(session.account, service, instance_id, container, None)
    written = datetime.datetime.fromtimestamp(state(session.account, service)["time"], datetime.UTC)
    return rows(columns, [[written, int(instance_id), container, line] for line in lines], UNKNOWN)


@table_function("SNOWFLAKE.SPCS.GET_JOB_HISTORY", "SPCS.GET_JOB_HISTORY")
def get_job_history(session: Session, **bounds: Any) -> Result:
    """Jobs, also those that were dropped, the newest first."""
    for key in bounds:
        if key not in ("created_time_start", "created_time_end", "result_limit"):
            raise compilation_error(f"unexpected argument '{key}' of GET_JOB_HISTORY")
    columns: list[str | tuple[str, str]] = [
        "NAME", "STATUS", "MESSAGE", "DATABASE_NAME", "SCHEMA_NAME", "OWNER", "COMPUTE_POOL_NAME",
        ("PARAMETERS", "variant"), ("CREATED_TIME", "timestamp_ltz"),
        ("COMPLETED_TIME", "timestamp_ltz"), ("DELETED_TIME", "timestamp_ltz"),
    ]  # fmt: skip
    account = session.account
    found = [
        _history_row(account, o)
        for kind in ("SERVICE", "DROPPED SERVICE")
        for o in account.catalog.list(kind)
        if is_job(o)
    ]
    if (start := bounds.get("created_time_start")) is not None:
        found = [r for r in found if r["CREATED_TIME"] >= start]
    if (end := bounds.get("created_time_end")) is not None:
        found = [r for r in found if r["CREATED_TIME"] <= end]
    found.sort(key=lambda r: r["CREATED_TIME"], reverse=True)
    return rows(columns, found[: bounds.get("result_limit")], UNKNOWN)


def _history_row(account: Account, job: Object) -> dict[str, Any]:
    found = account.containers.state(job.data["id"])
    changed = datetime.datetime.fromtimestamp(found["time"], datetime.UTC)
    deleted = job.data.get("deleted_on")
    created = job.data.get("created_on")
    return {
        "NAME": job.data.get("name", job.name.name),
        "STATUS": found["status"],
        "MESSAGE": found["message"],
        "DATABASE_NAME": job.name.database,
        "SCHEMA_NAME": job.name.schema,
        "OWNER": job.owner,
        "COMPUTE_POOL_NAME": job.data["compute_pool"],
        "PARAMETERS": json.dumps({"REPLICAS": job.data["replicas"]}),
        "CREATED_TIME": datetime.datetime.fromisoformat(created) if created else job.created_on,
        "COMPLETED_TIME": changed if found["status"] in ENDED else None,
        "DELETED_TIME": datetime.datetime.fromisoformat(deleted) if deleted else None,
    }
