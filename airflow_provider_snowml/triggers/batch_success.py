"""The trigger of an asset watcher: jobs that write into one directory, whoever runs them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Hashable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_snowml.hooks.batch_success import SuccessesWatch
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import log_change
from airflow_provider_snowml.triggers.asset_memory import remember, remembered
from airflow_provider_snowml.triggers.shared_poll import Look, alone, poll, waiting

STATE_KEY = "snowml_batch_successes"
# How much older than the newest a file may be and still be found for the first time, in seconds.
_OVERLAP = 600.0


class SnowMLBatchSuccessEventTrigger(BaseEventTrigger):
    """Have an asset updated whenever a batch job's ``_SUCCESS`` appears in a directory, for an AssetWatcher::

        scored = Asset(
            "scored",
            watchers=[
                AssetWatcher(
                    name="scored",
                    trigger=SnowMLBatchSuccessEventTrigger(output_stage_location="@DB.SC.STAGE/daily/"),
                )
            ],
        )

    Each event's payload is ``{"job_output_location", "job_name"}``, in a DAG that is scheduled on the asset
    ``triggering_asset_events[scored][0].extra["payload"]``; ``job_name`` is the directory's name.

    What is there when the watch begins is no news. What was seen is remembered in Airflow's asset state
    store, so that a new triggerer goes on where the old one ended: with what came meanwhile, and at worst
    with one event again. An asset that shares the trigger with another has no such memory. Watchers with the
    same connection and interval share one poll, of one statement for each directory. A look that fails is
    logged, and the next one is made.

    Privileges: READ on the stage, USAGE on its database and schema. See
    https://docs.snowflake.com/en/sql-reference/sql/list.

    :param output_stage_location: the directory that jobs write theirs into.
    :param poll_interval: seconds between looks.
    :param snowflake_conn_id: the Airflow connection; ``warehouse``, ``database``, ``schema`` and ``role``
        override what it says.
    """

    def __init__(
        self,
        *,
        output_stage_location: str,
        poll_interval: float = 60.0,
        snowflake_conn_id: str = "snowflake_default",
        warehouse: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        role: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.output_stage_location = output_stage_location
        self.poll_interval = poll_interval
        self.snowflake_conn_id = snowflake_conn_id
        self.warehouse = warehouse
        self.database = database
        self.schema = schema
        self.role = role

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "output_stage_location": self.output_stage_location,
                "poll_interval": self.poll_interval,
                "snowflake_conn_id": self.snowflake_conn_id,
                "warehouse": self.warehouse,
                "database": self.database,
                "schema": self.schema,
                "role": self.role,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """One poll for the same connection and interval."""
        return _key(self.serialize()[1])

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Look]:
        """Look again and again. A look that fails is an event too, never raised."""
        return poll(
            _key(kwargs),
            kwargs["poll_interval"],
            lambda: SuccessesWatch(SnowMLHook(**_hook_arguments(kwargs))),
        )

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each directory that has become complete."""
        location, last = self.output_stage_location, ""
        known: dict[str, float] | None = await remembered(self, f"{STATE_KEY} {location}")
        with waiting(self.shared_stream_key(), location, self.poll_interval) as counts:
            async for look in shared_stream:
                if not counts(look):
                    continue
                found = look.seen[location]
                if isinstance(found, str):
                    last = log_change(location, f"the look failed: {found}", last)
                    continue
                last = log_change(location, "watched", last)
                first = known is None
                fresh = _fresh(known or {}, found)
                for directory in () if first else sorted(fresh, key=lambda one: (fresh[one], one)):
                    name = directory.rstrip("/").rsplit("/", 1)[1]
                    yield TriggerEvent({"job_output_location": directory, "job_name": name})  # type: ignore[no-untyped-call]
                if first or fresh:
                    known = _recent({**(known or {}), **fresh})
                    await remember(self, f"{STATE_KEY} {location}", known)

    def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing."""
        return alone(self)


def _fresh(known: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """What was not seen before. Of what is long past only the newest is remembered."""
    since = max(known.values(), default=0.0) - _OVERLAP
    return {name: at for name, at in found.items() if at > since and known.get(name) != at}


def _recent(known: dict[str, float]) -> dict[str, float]:
    since = max(known.values(), default=0.0) - _OVERLAP
    return {name: at for name, at in known.items() if at > since}


def _hook_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in kwargs.items()
        if name not in ("output_stage_location", "poll_interval")
    }


def _key(kwargs: dict[str, Any]) -> Hashable:
    hook_arguments = json.dumps(_hook_arguments(kwargs), sort_keys=True)
    return ("snowml batch successes", hook_arguments, kwargs["poll_interval"])
