"""Putting to sleep what costs and does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.idleness import ServiceInUse
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError, ServiceNotFoundError
from airflow_provider_snowml.hooks.idleness import (
    pool_in_use,
    services_in_use,
    suspend_pool,
    suspend_service,
)
from airflow_provider_snowml.hooks.services import service_name, snowflake_time
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, seconds, true_or_false


class SnowMLSuspendIdleOperator(SnowMLOperator):
    """Suspend model services that nobody needs any more, and compute pools without work.

    A **service** of the connection's schema is idle if it runs a version of a model there that is neither the
    default nor has an alias, has run for ``idle_for``, would resume when it is called, and is not suspended
    by Snowflake itself. A **compute pool** is idle if Snowflake says IDLE, counts no job and no active node
    in it, whoever's they would be, it has run for ``idle_for``, and would resume for the next job. Pools
    belong to the account: only those that are named are looked at.

    What it cannot know: when a service was called last, which Snowflake does not say; so that of a champion
    is never called idle, and that of a version that was replaced is, even if somebody still calls it, which
    resumes it. Since when a pool has no work: ``idle_for`` counts from when it was resumed. A job that comes
    in the moment between the look and the suspension runs to its end; a service that does is suspended, and
    resumes when it is called.

    It does nothing but plan unless told otherwise: read the log first, then say ``plan_only=False``.

    XCom: ``{"suspended": {"services": [name], "compute_pools": [name]}, "kept": {name: reason}}``. With
    ``plan_only``, ``suspended`` has what would be.

    Privileges: OPERATE on the services and pools, and USAGE on the models; others are not seen. See
    https://docs.snowflake.com/en/sql-reference/sql/alter-compute-pool.

    :param compute_pools: the compute pools that may be suspended: a list, or one.
    :param service_names: only these services; all of the connection's schema if it is left out, and none if
        it is empty.
    :param idle_for: how long they must have run: a ``timedelta`` or seconds, by Snowflake's clock.
    :param plan_only: suspend nothing, and say what would be.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a pool or service that is named and isn't there.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "compute_pools",
        "service_names",
        "idle_for",
        "plan_only",
    )

    def __init__(
        self,
        *,
        compute_pools: Sequence[str] | str = (),
        service_names: Sequence[str] | str | None = None,
        idle_for: timedelta | float | str = timedelta(minutes=30),
        plan_only: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.compute_pools = compute_pools
        self.service_names = service_names
        self.idle_for = idle_for
        self.plan_only = plan_only

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, and suspend."""
        plan_only = true_or_false("plan_only", self.plan_only)
        idle_for = seconds("idle_for", self.idle_for)
        pools = [
            Identifier.parse(pool, what="compute pool")
            for pool in _names("compute_pools", self.compute_pools)
        ]
        wanted = None if self.service_names is None else _names("service_names", self.service_names)
        hook = self.get_hook()
        suspended: dict[str, list[str]] = {"services": [], "compute_pools": []}
        kept: dict[str, str] = {}

        def judge(kind: str, name: str, reason: str | None) -> bool:
            if reason is not None:
                kept[name] = reason
                self.log.info("%s stays: it %s.", name, reason)
                return False
            suspended[kind].append(name)
            self.log.info("%s %s.", name, "would be suspended" if plan_only else "is suspended")
            return not plan_only

        with hook.open_connection():
            now = snowflake_time(hook).timestamp()
            # Services first: they may be all that a pool has.
            for service, use in self._services(hook, wanted):
                if judge("services", service.sql, use.kept_because(idle_for=idle_for, now=now)):
                    suspend_service(hook, service)
            for pool in pools:
                reason = pool_in_use(hook, pool).kept_because(idle_for=idle_for, now=now)
                if judge("compute_pools", pool.sql, reason):
                    suspend_pool(hook, pool)
        return {"suspended": suspended, "kept": kept}

    def _services(
        self, hook: SnowMLHook, wanted: list[str] | None
    ) -> list[tuple[QualifiedName, ServiceInUse]]:
        if wanted == []:
            return []
        schema = hook.default_schema()
        if wanted is None:
            return list(services_in_use(hook, schema).items())
        names = [service_name(name, schema) for name in wanted]
        found = {
            each: use
            for parent in {n.parent for n in names}
            for each, use in services_in_use(hook, parent).items()
        }
        missing = [name.sql for name in names if name not in found]
        if missing:
            raise ServiceNotFoundError(
                f"There is no service {', '.join(missing)}, or the role may not see it."
            )
        return [(name, found[name]) for name in names]


def _names(argument: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) and value else list(value or ())
    if not all(isinstance(name, str) for name in names):
        raise InvalidArgumentError(f"{argument} is {value!r}; it must be a list of names.")
    return names
