"""Statements about services: SHOW, DESCRIBE, ALTER, DROP."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from . import compute_pools, services
from .catalog import Object, Qualified, account_level
from .containers import CANCELLED, PENDING
from .errors import SnowflakeError, invalid_value, unsupported
from .grammar import Reader, quote_if_needed
from .results import DESCRIBE, SHOW, Result, rows, status
from .scope import read_like, read_scope
from .services import LIVE, container_name, get, is_job, state
from .statements import statement

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

PORT = 5000  # what the container listens on, as Snowflake's does; not a port of this machine
_PROVISIONING = "Endpoints provisioning in progress... check back in a few minutes"
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


def _row(account: Account, service: Object) -> dict[str, Any]:
    found = state(account, service)
    data = service.data
    job = is_job(service)
    target = services.target_instances(service)
    return {
        "name": service.name.name,
        "status": found["status"],
        "database_name": service.name.database,
        "schema_name": service.name.schema,
        "owner": service.owner,
        "compute_pool": data["compute_pool"],
        "dns_name": f"{service.name.name.lower().replace('_', '-')}.local.svc.spcs.internal",
        "current_instances": target if found["status"] in LIVE else 0,
        "target_instances": target if job or not data["suspended"] else 0,
        "min_ready_instances": target if job else data["min_instances"],
        "min_instances": target if job else data["min_instances"],
        "max_instances": target if job else data["max_instances"],
        "auto_resume": not job and data["auto_resume"],
        "created_on": service.created_on,
        "updated_on": datetime.datetime.fromtimestamp(found["time"], datetime.UTC),
        "resumed_on": _time(data.get("resumed_on")),
        "suspended_on": _time(data.get("suspended_on")),
        "auto_suspend_secs": 0 if job else data["auto_suspend_secs"],
        "comment": service.comment or None,
        "owner_role_type": "ROLE",
        "query_warehouse": data["warehouse"],
        "is_job": job,
        "is_async_job": job and data["async"],
        "spec_digest": data["id"],
        "is_upgrading": False,
        "managing_object_domain": "Model",
        "managing_object_name": data["model"],
        "spec": data["spec"],
    }


def _time(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


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
    only_jobs = reader.accept("JOB")
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
        and not (is_job(s) if exclude_jobs else only_jobs and not is_job(s))
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
        ("restart_count", "fixed"), "start_time", "last_exit_code", "last_restart_time",
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
    common = {
        "database_name": service.name.database,
        "schema_name": service.name.schema,
        "service_name": service.name.name,
        "service_status": found["status"],
    }
    if not is_job(service):
        if service.data["suspended"] or service.data["waits_for_pool"]:
            return [{**common, "message": found["message"]}]
        return [
            {**common, **_instance(account, service, i)} for i in range(services.target_instances(service))
        ]
    instance_status = {"DONE": "SUCCEEDED", "RUNNING": "READY", CANCELLED: "TERMINATING"}.get(
        found["status"], found["status"]
    )
    started = None if found["status"] == PENDING else service.created_on.isoformat()
    one = {
        **common,
        "instance_status": instance_status,
        "container_name": container_name(service),
        "status": found["status"] if found["status"] != "RUNNING" else "READY",
        "message": found["message"],
        "image_name": "local/model-inference",
        "restart_count": 0,
        "creation_time": service.created_on.isoformat(),
        "start_time": started,
        "spec_digest": service.data["id"],
    }
    return [{**one, "instance_id": str(i)} for i in range(service.data["replicas"])]


def _instance(account: Account, service: Object, number: int) -> dict[str, Any]:
    """An instance of a model's service, with the one container that it has."""
    id_ = services.instance_ids(service)[number]
    found = services.instance_state(account, id_)
    restarts = account.containers.restarts(id_)
    ready = "READY" if found["status"] == "RUNNING" else found["status"]
    since = datetime.datetime.fromtimestamp(found["time"], datetime.UTC).isoformat()
    return {
        "instance_id": str(number),
        "instance_status": ready,
        "container_name": container_name(service),
        "status": ready,
        "message": found["message"],
        "image_name": service.data["image"],
        "image_digest": service.data["version_id"],
        "restart_count": restarts["count"],
        "creation_time": service.created_on.isoformat(),
        "start_time": None if found["status"] == PENDING else since,
        "last_exit_code": _exit_code(restarts["exit_code"]),
        "last_restart_time": restarts["time"]
        and datetime.datetime.fromtimestamp(restarts["time"], datetime.UTC).isoformat(),
        "spec_digest": service.data["id"],
    }


def _exit_code(code: int | None) -> int | None:
    """A process that was killed by a signal has 128 and its number, as in a container."""
    return code if code is None or code >= 0 else 128 - code


@statement("SHOW ENDPOINTS IN SERVICE", reads_only=True)
def show_endpoints(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "ENDPOINTS", "IN", "SERVICE")
    service = get(session, session.resolve(reader.name()))
    reader.done()
    columns: list[str | tuple[str, str]] = [
        "name", ("port", "fixed"), "port_range", "protocol", "is_public", "ingress_url"
    ]  # fmt: skip
    if is_job(service):
        return rows(columns, [], SHOW)
    public = service.data["ingress_enabled"]
    url = None
    if public:
        pending = state(session.account, service)["status"] == PENDING
        url = _PROVISIONING if pending else ingress_url(session.account, service)
    return rows(columns, [["inference", PORT, None, "HTTP", public, url]], SHOW)


def ingress_url(account: Account, service: Object) -> str:
    """Without the protocol; it ends as Snowflake's do, since its clients show no other."""
    return f"{account.host}/ingress/{service.data['id']}.snowflakecomputing.app"


@statement("ALTER SERVICE")
def alter_service(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "SERVICE")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    account = session.account
    if if_exists and account.catalog.find("SERVICE", name) is None:
        return status("Statement executed successfully.")
    service = get(session, name)
    action = reader.accept_any("SUSPEND", "RESUME", "SET")
    if action is None:
        raise unsupported(f"ALTER SERVICE {name} {reader.rest()}")
    if is_job(service):
        raise SnowflakeError(
            395024, "0A000", f"{name} is a job service, which cannot be altered; cancel or drop it."
        )
    if action == "SET":
        _set(session, service, reader)
        return status("Statement executed successfully.")
    reader.done()
    if action == "SUSPEND":
        services.suspend(account, service)
    else:
        resume(account, service)
    return status("Statement executed successfully.")


def resume(account: Account, service: Object) -> None:
    pool = account.catalog.get("COMPUTE POOL", Qualified("", "", service.data["compute_pool"]))
    services.resume(account, service, pool_is_ready=compute_pools.is_ready(account, pool))


def _set(session: Session, service: Object, reader: Reader) -> None:
    options = reader.options()
    reader.done()
    known = ("MIN_INSTANCES", "MAX_INSTANCES", "AUTO_RESUME", "COMMENT")
    if not options or set(options) - set(known):
        unknown = ", ".join(sorted(set(options) - set(known))) or "nothing"
        raise unsupported(f"ALTER SERVICE ... SET {unknown}; {', '.join(known)} are known")
    account = session.account
    found = dict(service.data)
    for key in ("MIN_INSTANCES", "MAX_INSTANCES"):
        if key in options:
            if not str(options[key]).isdigit():
                raise invalid_value(f"invalid value [{options[key]}] for parameter '{key}'")
            found[key.lower()] = int(options[key])
    check_instances(found["min_instances"], found["max_instances"])
    if "AUTO_RESUME" in options:
        if str(options["AUTO_RESUME"]).upper() not in ("TRUE", "FALSE"):
            raise invalid_value(f"invalid value [{options['AUTO_RESUME']}] for parameter 'AUTO_RESUME'")
        found["auto_resume"] = str(options["AUTO_RESUME"]).upper() == "TRUE"
    before = set(services.instance_ids(service))
    with account.catalog.change("SERVICE", service.name) as changed:
        changed.data.update({k: found[k] for k in ("min_instances", "max_instances", "auto_resume")})
        changed.comment = options.get("COMMENT", changed.comment)
    for id_ in before - set(services.instance_ids(changed)):
        account.containers.end(id_, CANCELLED, "The service has fewer instances")
    if not changed.data["suspended"] and not changed.data["waits_for_pool"]:
        services.start(account, changed)


def check_instances(minimum: int, maximum: int) -> None:
    if minimum < 0 or maximum < max(1, minimum):
        raise invalid_value(
            f"MIN_INSTANCES ({minimum}) must be at least 0 and MAX_INSTANCES ({maximum}) at least 1"
            " and not below it."
        )


@statement("DROP SERVICE")
def drop_service(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "SERVICE")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.accept("FORCE")
    reader.done()
    if if_exists and session.account.catalog.find("SERVICE", name) is None:
        return status(f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped).")
    services.drop(session, get(session, name))
    return status(f"{quote_if_needed(name.name)} successfully dropped.")
