"""What services and compute pools are doing, and putting them to sleep."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from airflow_provider_snowml.core.batch_job import ENDED
from airflow_provider_snowml.core.idleness import PoolInUse, ServiceInUse
from airflow_provider_snowml.core.model_service import SUSPENDED
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, literal
from airflow_provider_snowml.exceptions import ComputePoolNotFoundError, ObjectNotFoundError, SnowMLError
from airflow_provider_snowml.hooks.model_retention import models_of
from airflow_provider_snowml.hooks.services import found_service
from airflow_provider_snowml.hooks.snowml import Row, SnowMLHook

_SETTLED = ENDED | {SUSPENDED, "SUSPENDING"}


def services_in_use(hook: SnowMLHook, schema: SchemaName) -> dict[QualifiedName, ServiceInUse]:
    """A schema's services, and what speaks for their being used; jobs are left out.

    Which version they serve is looked for among the models of the same schema.

    :param hook: the hook, with a connection open.
    :param schema: the schema.
    """
    rows = hook.rows(f"SHOW SERVICES EXCLUDE JOBS IN SCHEMA {schema.sql}")
    served = _versions_served(hook, schema) if rows else {}
    found = {}
    for row in rows:
        service = found_service(row)
        version, aliases = served.get(service.name, (None, ()))
        found[service.name] = ServiceInUse(
            status=service.status,
            auto_resume=_is_true(row["auto_resume"]),
            auto_suspend_secs=int(row["auto_suspend_secs"] or 0),
            running_since=_latest(row, "created_on", "resumed_on"),
            is_of_a_model=service.is_of_a_model,
            version=version,
            aliases=aliases,
        )
    return found


def _versions_served(
    hook: SnowMLHook, schema: SchemaName
) -> dict[QualifiedName, tuple[str, tuple[str, ...]]]:
    """By service, a version and its aliases."""
    served = {}
    for model, _ in models_of(hook, schema):
        try:
            rows = hook.rows(f"SHOW VERSIONS IN MODEL {model.sql}")
        except ObjectNotFoundError:  # dropped since it was listed
            continue
        for row in rows:
            for name in json.loads(row["inference_services"] or "[]"):
                try:
                    service = QualifiedName.parse(name)
                except SnowMLError:  # of a personal database, say; none of ours
                    continue
                served[service] = str(row["name"]), tuple(json.loads(row["aliases"] or "[]"))
    return served


def suspend_service(hook: SnowMLHook, service: QualifiedName) -> None:
    """Suspend a service; it need not be there any more. Needs OPERATE on it."""
    hook.rows(f"ALTER SERVICE IF EXISTS {service.sql} SUSPEND")


def pool_in_use(hook: SnowMLHook, pool: Identifier) -> PoolInUse:
    """A compute pool, and what speaks for its being used.

    :param hook: the hook, with a connection open.
    :param pool: the pool.
    :raises ComputePoolNotFoundError: if there is none.
    """
    try:
        live = hook.rows(f"SHOW SERVICES IN COMPUTE POOL {pool.sql}")
    except ObjectNotFoundError:
        live = []
    # Last of all: between this look and what is done about it there should be as little as possible.
    rows = hook.rows(f"SHOW COMPUTE POOLS LIKE {literal(pool.name)}")
    row = next((row for row in rows if row["name"] == pool.name), None)
    if row is None:
        hook.check_compute_pool(pool)
        raise ComputePoolNotFoundError(f"Compute pool {pool} has only just been made.")
    return PoolInUse(
        state=str(row["state"]),
        jobs=int(row["num_jobs"] or 0),
        active_nodes=int(row["active_nodes"] or 0),
        auto_resume=_is_true(row["auto_resume"]),
        running_since=_latest(row, "created_on", "resumed_on"),
        live=[str(each["name"]) for each in live if each["status"] not in _SETTLED],
    )


def suspend_pool(hook: SnowMLHook, pool: Identifier) -> None:
    """Suspend a compute pool: jobs that it has got meanwhile run to their end. Needs OPERATE on it."""
    hook.rows(f"ALTER COMPUTE POOL IF EXISTS {pool.sql} SUSPEND")


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"


def _latest(row: Row, *columns: str) -> float:
    times: list[datetime] = [row[column] for column in columns if row[column] is not None]
    return max(time.timestamp() for time in times)
