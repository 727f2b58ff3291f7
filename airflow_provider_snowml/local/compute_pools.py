"""Compute pools: where job services run. Their nodes are this machine."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from . import services
from .catalog import Object, account_level
from .errors import SnowflakeError, compilation_error, does_not_exist, invalid_value
from .grammar import Reader, quote_if_needed
from .results import DESCRIBE, SHOW, Result, now, rows, status
from .scope import read_like
from .statements import statement

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

STARTING_SECONDS = 0.5
FAMILIES = [
    *(f"CPU_X64_{size}" for size in ("XS", "S", "SL", "M", "L")),
    *(f"HIGHMEM_X64_{size}" for size in ("S", "M", "SL", "L")),
    *(f"GPU_NV_{size}" for size in ("XS", "S", "SM", "M", "L", "2M", "3M", "SL")),
    *(f"GPU_GCP_NV_L4_{n}_24G" for n in (1, 4)),
    "GPU_GCP_NV_A100_8_40G",
]
_BOOLEANS = {"AUTO_RESUME", "INITIALLY_SUSPENDED"}
_NUMBERS = {"MIN_NODES", "MAX_NODES", "AUTO_SUSPEND_SECS"}
_TEXTS = {"INSTANCE_FAMILY", "COMMENT", "PLACEMENT_GROUP"}
_COLUMNS: list[str | tuple[str, str]] = [
    "name", "state", ("min_nodes", "fixed"), ("max_nodes", "fixed"), "instance_family",
    ("num_services", "fixed"), ("num_jobs", "fixed"), ("auto_suspend_secs", "fixed"), "auto_resume",
    ("active_nodes", "fixed"), ("idle_nodes", "fixed"), ("target_nodes", "fixed"),
    ("created_on", "timestamp_ltz"), ("resumed_on", "timestamp_ltz"),
    ("updated_on", "timestamp_ltz"), "owner", "comment", "is_exclusive", "application", "budget",
    "error_code", "status_message", "placement_group",
]  # fmt: skip


@statement("CREATE COMPUTE POOL")
def create_compute_pool(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE", "COMPUTE", "POOL")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = account_level(reader.name())
    options = _options(reader)
    missing = {"MIN_NODES", "MAX_NODES", "INSTANCE_FAMILY"} - set(options)
    if missing:
        raise compilation_error(f"Missing option(s): [{', '.join(sorted(missing))}].")
    _check_nodes(options["MIN_NODES"], options["MAX_NODES"])
    if if_not_exists and session.account.catalog.find("COMPUTE POOL", name):
        return status(f"{quote_if_needed(name.name)} already exists, statement succeeded.")
    started = now().isoformat()
    data = {
        "min_nodes": options["MIN_NODES"],
        "max_nodes": options["MAX_NODES"],
        "instance_family": options["INSTANCE_FAMILY"],
        "auto_resume": options.get("AUTO_RESUME", True),
        "auto_suspend_secs": options.get("AUTO_SUSPEND_SECS", 3600),
        "placement_group": options.get("PLACEMENT_GROUP"),
        "suspended": options.get("INITIALLY_SUSPENDED", False),
        "resumed_on": started,
        "updated_on": started,
    }
    session.account.catalog.create("COMPUTE POOL", name, session.role, data, options.get("COMMENT", ""))
    return status(f"Compute Pool {quote_if_needed(name.name)} successfully created.")


def _options(reader: Reader) -> dict[str, Any]:
    found = reader.options()
    reader.done()
    options: dict[str, Any] = {}
    for key, value in found.items():
        if key in _BOOLEANS and str(value).upper() in ("TRUE", "FALSE"):
            options[key] = str(value).upper() == "TRUE"
        elif key in _NUMBERS and str(value).isdigit():
            options[key] = int(value)
        elif key in _TEXTS and isinstance(value, str):
            options[key] = value
        elif key in _BOOLEANS | _NUMBERS | _TEXTS:
            raise invalid_value(f"invalid value [{value}] for parameter '{key}'")
        else:
            raise compilation_error(f"invalid property '{key}' for 'COMPUTE_POOL'")
    if "INSTANCE_FAMILY" in options:
        options["INSTANCE_FAMILY"] = options["INSTANCE_FAMILY"].upper()
        if options["INSTANCE_FAMILY"] not in FAMILIES:
            raise invalid_value(
                f"invalid value [{options['INSTANCE_FAMILY']}] for parameter 'INSTANCE_FAMILY'"
            )
    return options


def _check_nodes(minimum: int, maximum: int) -> None:
    if minimum < 1 or maximum < minimum:
        raise invalid_value(
            f"MIN_NODES ({minimum}) must be at least 1 and MAX_NODES ({maximum}) not below it."
        )


def live_services(session: Session, pool: Object) -> list[Object]:
    found = session.account.catalog.list("SERVICE")
    mine = [s for s in found if s.data["compute_pool"] == pool.name.name]
    return [s for s in mine if services.state(session.account, s)["status"] in services.LIVE]


def _services(session: Session, pool: Object) -> list[Object]:
    """What would be lost with the pool: what runs in it or waits for it, and suspended services."""
    suspended = [
        s
        for s in session.account.catalog.list("SERVICE")
        if s.data["compute_pool"] == pool.name.name and s.data.get("suspended")
    ]
    return [*live_services(session, pool), *suspended]


def _row(session: Session, pool: Object) -> dict[str, Any]:
    live = [s for s in live_services(session, pool) if not s.data["waits_for_pool"]]
    used = min(pool.data["max_nodes"], len(live))
    nodes = 0 if pool.data["suspended"] else max(pool.data["min_nodes"], used)
    resumed = datetime.datetime.fromisoformat(pool.data["resumed_on"])
    if pool.data["suspended"]:
        state = "STOPPING" if live else "SUSPENDED"  # jobs run to their end
    elif (now() - resumed).total_seconds() < STARTING_SECONDS:
        state, used, nodes = "STARTING", 0, 0
    else:
        state = "ACTIVE" if live else "IDLE"
    return {
        **{k: pool.data[k] for k in ("min_nodes", "max_nodes", "instance_family", "auto_resume")},
        "name": pool.name.name,
        "state": state,
        "num_services": len([s for s in _services(session, pool) if not services.is_job(s)]),
        "num_jobs": len([s for s in live if services.is_job(s)]),
        "auto_suspend_secs": pool.data["auto_suspend_secs"],
        "active_nodes": used if not pool.data["suspended"] else 0,
        "idle_nodes": nodes - used if not pool.data["suspended"] else 0,
        "target_nodes": 0 if pool.data["suspended"] else max(pool.data["min_nodes"], used),
        "created_on": pool.created_on,
        "resumed_on": resumed,
        "updated_on": datetime.datetime.fromisoformat(pool.data["updated_on"]),
        "owner": pool.owner,
        "comment": pool.comment,
        "is_exclusive": False,
        "placement_group": pool.data["placement_group"],
    }


@statement("SHOW COMPUTE POOLS", reads_only=True)
def show_compute_pools(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "COMPUTE", "POOLS")
    like = read_like(reader)
    prefix = reader.string() if reader.accept("STARTS", "WITH") else ""
    limit = reader.integer() if reader.accept("LIMIT") else None
    reader.done()
    pools = session.account.catalog.list("COMPUTE POOL", like=like)
    pools = [p for p in pools if p.name.name.startswith(prefix)][:limit]
    return rows(_COLUMNS, [_row(session, p) for p in pools], SHOW)


@statement("DESCRIBE COMPUTE POOL", "DESC COMPUTE POOL", reads_only=True)
def describe_compute_pool(session: Session, reader: Reader) -> Result:
    reader.next()
    reader.expect("COMPUTE", "POOL")
    pool = find(session, reader)
    reader.done()
    return rows(_COLUMNS, [_row(session, pool)], DESCRIBE)


def find(session: Session, reader: Reader) -> Object:
    name = account_level(reader.name())
    found = session.account.catalog.find("COMPUTE POOL", name)
    if found is None:
        raise does_not_exist("Compute Pool", str(name))
    return found


@statement("ALTER COMPUTE POOL")
def alter_compute_pool(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "COMPUTE", "POOL")
    if_exists = reader.accept("IF", "EXISTS")
    name = account_level(reader.name())
    catalog = session.account.catalog
    if catalog.find("COMPUTE POOL", name) is None:
        if if_exists:
            return status("Statement executed successfully.")
        raise does_not_exist("Compute Pool", str(name))
    if reader.accept("STOP", "ALL"):
        reader.done()
        for service in _services(session, catalog.get("COMPUTE POOL", name)):
            services.drop(session, service)
        return status("Statement executed successfully.")
    with catalog.change("COMPUTE POOL", name) as pool:
        pool.data["updated_on"] = now().isoformat()
        if reader.accept("SUSPEND"):
            reader.done()
            pool.data["suspended"] = True
        elif reader.accept("RESUME"):
            reader.done()
            _resume(pool)
        else:
            reader.expect("SET")
            _set(pool, _options(reader))
    if pool.data["suspended"]:
        services.suspend_in(session.account, name.name)
    else:
        services.start_waiting(session.account, name.name)
    return status("Statement executed successfully.")


def _resume(pool: Object) -> None:
    if pool.data["suspended"]:
        pool.data["suspended"] = False
        pool.data["resumed_on"] = now().isoformat()


def _set(pool: Object, options: dict[str, Any]) -> None:
    for key in ("INSTANCE_FAMILY", "INITIALLY_SUSPENDED"):
        if key in options:
            raise compilation_error(f"property '{key}' of a compute pool cannot be changed.")
    comment = options.pop("COMMENT", pool.comment)
    changed = {**pool.data, **{k.lower(): v for k, v in options.items()}}
    _check_nodes(changed["min_nodes"], changed["max_nodes"])
    pool.data, pool.comment = changed, comment


def is_ready(account: Account, pool: Object) -> bool:
    """Whether a new service can start; resumes a suspended pool that may."""
    if pool.data["suspended"] and pool.data["auto_resume"]:
        with account.catalog.change("COMPUTE POOL", pool.name) as changed:
            _resume(changed)
        return True
    return not pool.data["suspended"]


@statement("DROP COMPUTE POOL")
def drop_compute_pool(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "COMPUTE", "POOL")
    if_exists = reader.accept("IF", "EXISTS")
    name = account_level(reader.name())
    reader.done()
    pool = session.account.catalog.find("COMPUTE POOL", name)
    if pool is None:
        if if_exists:
            return status(
                f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped)."
            )
        raise does_not_exist("Compute Pool", str(name))
    live = _services(session, pool)
    if live:
        raise SnowflakeError(
            392503,
            "42601",
            f"Cannot drop compute pool {name}: {len(live)} service(s) are in it"
            f" ({', '.join(str(s.name) for s in live[:5])}). Drop them, or ALTER COMPUTE POOL"
            f" {name} STOP ALL.",
        )
    session.account.catalog.drop("COMPUTE POOL", name)
    return status(f"{quote_if_needed(name.name)} successfully dropped.")
