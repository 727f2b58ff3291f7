"""Services, of which there are only job services yet: DESCRIBE, SHOW, DROP, logs, wait, cancel."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from . import job_worker, queries
from .catalog import Object, Qualified, account_level
from .containers import CANCELLED, ENDED, PENDING, RUNNING
from .errors import SnowflakeError, compilation_error, does_not_exist, invalid_value, unsupported
from .functions import system_function, table_function
from .grammar import Reader, parse_name, quote_if_needed, string_literal
from .results import DESCRIBE, SHOW, UNKNOWN, Result, now, rows, status
from .scope import read_like, read_scope
from .statements import statement

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

LIVE = (PENDING, RUNNING)
CONTAINER = "main"
_COLUMNS: list[str | tuple[str, str]] = [
    "name", "status", "database_name", "schema_name", "owner", "compute_pool", "dns_name",
    ("current_instances", "fixed"), ("target_instances", "fixed"), ("min_ready_instances", "fixed"),
    ("min_instances", "fixed"), ("max_instances", "fixed"), "auto_resume",
    "external_access_integrations", ("created_on", "timestamp_ltz"),
    ("updated_on", "timestamp_ltz"), ("resumed_on", "timestamp_ltz"),
    ("suspended_on", "timestamp_ltz"), ("auto_suspend_secs", "fixed"), "comment",
    "owner_role_type", "query_warehouse", "is_job", "is_async_job", "spec_digest",
    "is_upgrading", "managing_object_domain", "managing_object_name",
]  # fmt: skip


def get(session: Session, name: Qualified) -> Object:
    found = session.account.catalog.find("SERVICE", name)
    if found is None:
        raise does_not_exist("Service", str(name))
    return found


def state(account: Account, service: Object) -> dict[str, Any]:
    """``status``, ``message`` and the ``time`` of the last change."""
    return account.containers.state(service.data["id"])


def start_waiting(account: Account, pool: str) -> None:
    """Start the jobs that wait for a pool that was suspended."""
    for service in account.catalog.list("SERVICE"):
        if service.data["compute_pool"] == pool and service.data["waits_for_pool"]:
            with account.catalog.change("SERVICE", service.name) as changed:
                changed.data["waits_for_pool"] = False
            if state(account, service)["status"] == PENDING:
                account.containers.start(service.data["id"], job_worker.main)


def recover(account: Account) -> None:
    """After a restart: a job that the killed server had accepted but not started has failed."""
    for service in account.catalog.list("SERVICE"):
        id_ = service.data["id"]
        started = (account.containers.directory(id_) / "alive").exists()
        if not started and not service.data["waits_for_pool"]:
            account.containers.end(id_, "FAILED", "The server ended before the job was started")


def drop_in(account: Account, database: str, schema: str | None) -> None:
    """What a dropped database or schema takes with it: no process outlives its service."""
    for service in account.catalog.list("SERVICE", database, schema):
        account.containers.end(service.data["id"], CANCELLED, "The service was dropped")


def pause(seconds: float) -> None:
    """Sleep in a statement that waits; ends early, as an error, when the query is cancelled."""
    query = queries.current()
    if query is None:
        time.sleep(seconds)
    elif query.cancelled.wait(seconds):
        raise SnowflakeError(604, "57014", "SQL execution canceled")


def drop(session: Session, service: Object) -> None:
    """Its process ends at once; what became of it stays in the job history."""
    account = session.account
    account.containers.end(service.data["id"], CANCELLED, "The service was dropped")
    gone = Qualified(service.name.database, service.name.schema, service.data["id"])
    data = {
        **service.data,
        "name": service.name.name,
        "created_on": service.created_on.isoformat(),
        "deleted_on": now().isoformat(),
    }
    account.catalog.create("DROPPED SERVICE", gone, service.owner, data)
    account.catalog.drop("SERVICE", service.name)
    shutil.rmtree(account.containers.directory(service.data["id"]) / "input", ignore_errors=True)


def _row(account: Account, service: Object) -> dict[str, Any]:
    found = state(account, service)
    live = found["status"] in LIVE
    data = service.data
    return {
        "name": service.name.name,
        "status": found["status"],
        "database_name": service.name.database,
        "schema_name": service.name.schema,
        "owner": service.owner,
        "compute_pool": data["compute_pool"],
        "dns_name": f"{service.name.name.lower().replace('_', '-')}.local.svc.spcs.internal",
        "current_instances": data["replicas"] if live else 0,
        "target_instances": data["replicas"],
        "min_ready_instances": data["replicas"],
        "min_instances": data["replicas"],
        "max_instances": data["replicas"],
        "auto_resume": False,
        "created_on": service.created_on,
        "updated_on": datetime.datetime.fromtimestamp(found["time"], datetime.UTC),
        "auto_suspend_secs": 0,
        "comment": service.comment or None,
        "owner_role_type": "ROLE",
        "query_warehouse": data["warehouse"],
        "is_job": True,
        "is_async_job": data["async"],
        "spec_digest": data["id"],
        "is_upgrading": False,
        "managing_object_domain": "Model",
        "managing_object_name": data["model"],
        "spec": data["spec"],
    }


@statement("DESCRIBE SERVICE", "DESC SERVICE", reads_only=True)
def describe_service(session: Session, reader: Reader) -> Result:
    reader.next()
    reader.expect("SERVICE")
    service = get(session, session.resolve(reader.name()))
    reader.done()
    columns = [*_COLUMNS[:6], "spec", *_COLUMNS[6:]]
    return rows(columns, [_row(session.account, service)], DESCRIBE)


@statement("SHOW [JOB] SERVICES", reads_only=True)
def show_services(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW")
    reader.accept("JOB")
    reader.expect("SERVICES")
    exclude_jobs = reader.accept("EXCLUDE", "JOBS")
    like = read_like(reader)
    pool = None
    database = schema = None
    if reader.accept("IN", "COMPUTE", "POOL"):
        pool = account_level(reader.name()).name
    else:
        database, schema = read_scope(session, reader)
    prefix = reader.string() if reader.accept("STARTS", "WITH") else ""
    limit, after = None, ""
    if reader.accept("LIMIT"):
        limit = reader.integer()
        after = reader.string() if reader.accept("FROM") else ""
    reader.done()
    found = [
        s
        for s in session.account.catalog.list("SERVICE", database, schema, like)
        if s.name.name.startswith(prefix)
        and (pool is None or s.data["compute_pool"] == pool)
        and (not after or s.name.name > after)
        and not exclude_jobs
    ]
    return rows(_COLUMNS, [_row(session.account, s) for s in found[:limit]], SHOW)


@statement("SHOW SERVICE CONTAINERS IN SERVICE", reads_only=True)
def show_service_containers(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "SERVICE", "CONTAINERS", "IN", "SERVICE")
    service = get(session, session.resolve(reader.name()))
    reader.done()
    columns: list[str | tuple[str, str]] = [
        "database_name", "schema_name", "service_name", "service_status", "instance_id",
        "instance_status", "container_name", "status", "message", "image_name", "image_digest",
        ("restart_count", "fixed"), "start_time", "last_exit_code",
    ]  # fmt: skip
    return rows(columns, _instances(session.account, service), SHOW)


@statement("SHOW SERVICE INSTANCES IN SERVICE", reads_only=True)
def show_service_instances(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "SERVICE", "INSTANCES", "IN", "SERVICE")
    service = get(session, session.resolve(reader.name()))
    reader.done()
    columns = [
        "database_name", "schema_name", "service_name", "service_status", "instance_id", "status",
        "spec_digest", "creation_time", "start_time",
    ]  # fmt: skip
    return rows(columns, _instances(session.account, service), SHOW)


def _instances(account: Account, service: Object) -> list[dict[str, Any]]:
    found = state(account, service)
    instance_status = {"DONE": "SUCCEEDED", "RUNNING": "READY", CANCELLED: "TERMINATING"}.get(
        found["status"], found["status"]
    )
    started = None if found["status"] == PENDING else service.created_on.isoformat()
    one = {
        "database_name": service.name.database,
        "schema_name": service.name.schema,
        "service_name": service.name.name,
        "service_status": found["status"],
        "instance_status": instance_status,
        "container_name": CONTAINER,
        "status": found["status"] if found["status"] != "RUNNING" else "READY",
        "message": found["message"],
        "image_name": "local/model-inference",
        "restart_count": 0,
        "creation_time": service.created_on.isoformat(),
        "start_time": started,
        "spec_digest": service.data["id"],
    }
    return [{**one, "instance_id": str(i)} for i in range(service.data["replicas"])]


@statement("DROP SERVICE")
def drop_service(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "SERVICE")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.accept("FORCE")
    reader.done()
    if if_exists and session.account.catalog.find("SERVICE", name) is None:
        return status(f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped).")
    drop(session, get(session, name))
    return status(f"{quote_if_needed(name.name)} successfully dropped.")


@system_function("SYSTEM$GET_SERVICE_LOGS")
def get_service_logs(
    session: Session, service_name: str, instance: Any, container: str, lines: Any = None
) -> str:
    service = get(session, session.resolve(parse_name(service_name)))
    return "\n".join(_log(session.account, service, instance, container, lines))


def _log(account: Account, service: Object, instance: Any, container: str, lines: Any) -> list[str]:
    if container != CONTAINER:
        raise SnowflakeError(
            395020,
            "22023",
            f"Container '{container}' not found in service {service.name}; it has '{CONTAINER}'.",
        )
    if not str(instance).isdigit() or int(instance) >= service.data["replicas"]:
        raise SnowflakeError(395021, "22023", f"Instance {instance} not found in service {service.name}.")
    found = state(account, service)
    text = account.containers.log(service.data["id"])
    if found["status"] == PENDING and not text:
        raise SnowflakeError(
            395016,
            "55000",
            f"Failed to retrieve logs: Container Status: PENDING, Message: {found['message']}",
        )
    shown = text.splitlines() if int(instance) == 0 else []
    return shown if lines is None or int(lines) < 0 else shown[-int(lines) :]


def call_service_method(session: Session, name: Qualified, method: str, arguments: list[Any]) -> Result:
    """``CALL service!method(...)``."""
    service = get(session, name)
    if method == "spcs_cancel_job":
        _arguments(method, arguments, 0)
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
    known = (PENDING, RUNNING, *ENDED)
    if wanted not in known:
        raise invalid_value(f"invalid state '{wanted}'; expected one of {', '.join(known)}.")
    deadline = time.monotonic() + seconds
    while True:
        found = state(session.account, service)
        if found["status"] == wanted:
            return _answer("spcs_wait_for", f"Service {service.name} reached state {wanted}.")
        if found["status"] in ENDED:
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
    container_name: str = CONTAINER,
) -> Result:
    """``TABLE(service!spcs_get_logs(...))``; a line's time is that of the last change of state."""
    service = get(session, session.resolve(parse_name(service_name)))
    if start_time is not None or end_time is not None:
        raise unsupported("a time range of spcs_get_logs")
    columns: list[str | tuple[str, str]] = [
        ("TIMESTAMP", "timestamp_ltz"), ("INSTANCE_ID", "fixed"), "CONTAINER_NAME", "LOG"
    ]  # fmt: skip
    lines = _log(session.account, service, instance_id, container_name, None)
    written = datetime.datetime.fromtimestamp(state(session.account, service)["time"], datetime.UTC)
    return rows(columns, [[written, int(instance_id), container_name, line] for line in lines], UNKNOWN)


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
