"""The triggers that wait for a model's version, alias or default."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Hashable
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.model_poller import Awaited, ListedModel, ModelPoller
from airflow_provider_snowml.core.names import Identifier
from airflow_provider_snowml.hooks.model_versions import ModelsWatch, is_over, judge
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import log_change
from airflow_provider_snowml.triggers.asset_memory import remember, remembered
from airflow_provider_snowml.triggers.shared_poll import Look, alone, poll, waiting

STATE_KEY = "snowml_model_version"


class SnowMLModelVersionTrigger(BaseEventTrigger):
    """Wait until a version, an alias or another default appears; many share one poll.

    Those with the same hook arguments and poll interval, asset watchers among them, share a connection, on
    which each poll sends one statement for each schema. It yields one event: ``{"outcome", "detail",
    "version", "aliases", "model"}`` (see :class:`~airflow_provider_snowml.core.model_poller.ModelVerdict`).

    :param model_name: the model's full name; it need not be there yet.
    :param awaited: the fields of :class:`~airflow_provider_snowml.core.model_poller.Awaited`.
    :param hook_arguments: the arguments of the hook.
    :param poll_interval: seconds between polls.
    :param limits: the fields of :class:`~airflow_provider_snowml.core.batch_poller.Limits`.
    """

    def __init__(
        self,
        *,
        model_name: str,
        awaited: dict[str, Any],
        hook_arguments: dict[str, Any],
        poll_interval: float,
        limits: dict[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model_name = model_name
        self.awaited = awaited
        self.hook_arguments = hook_arguments
        self.poll_interval = poll_interval
        self.limits = limits

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "model_name": self.model_name,
                "awaited": self.awaited,
                "hook_arguments": self.hook_arguments,
                "poll_interval": self.poll_interval,
                "limits": self.limits,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """One poll for the same connection and interval."""
        return _key(self.hook_arguments, self.poll_interval)

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Look]:
        """Look at the models again and again. A look that fails is an event too, never raised."""
        return _looks(kwargs["hook_arguments"], kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Judge this trigger's model in each look, and yield the one event."""
        poller, last = ModelPoller(Awaited(**self.awaited), Limits(**self.limits)), ""
        with waiting(self.shared_stream_key(), self.model_name, self.poll_interval) as counts:
            async for look in shared_stream:
                if not counts(look):
                    continue
                verdict = judge(poller, look.seen[self.model_name])
                last = log_change(self.model_name, verdict.detail, last)
                if is_over(verdict):
                    event = {**asdict(verdict), "outcome": verdict.outcome.value, "model": self.model_name}
                    yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    return

    def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, where nothing shares: ``dag.test()``."""
        return alone(self)


class SnowMLModelVersionEventTrigger(BaseEventTrigger):
    """Have a model's asset updated whenever it has another champion, whoever made it, for an AssetWatcher::

        CHURN = ModelRef("ML.PUBLIC.CHURN")
        watched = Asset(
            CHURN.uri,
            watchers=[
                AssetWatcher(name="churn", trigger=SnowMLModelVersionEventTrigger(model_name=CHURN))
            ],
        )

    Each event's payload is ``{"model", "version", "alias", "previous_version"}``, in a DAG that is scheduled
    on the asset ``triggering_asset_events[watched][0].extra["payload"]``. Of two changes between two looks
    only what is there in the end is seen. That no version has the alias is no event.

    What is there when the watch begins is no news. What was seen is remembered in Airflow's asset state
    store, so that a new triggerer goes on where the old one ended: with what came meanwhile, and at worst
    with one event again. An asset that shares the trigger with another has no such memory. Watchers with the
    same connection and interval share one poll. A look that fails is logged, and the next one is made.

    Privileges: USAGE on the model, its database and schema. See
    https://docs.snowflake.com/en/sql-reference/sql/show-models.

    :param model_name: the model, ``[[database.]schema.]name`` or a ``ModelRef``; it need not be there yet.
    :param alias: which alias is watched, ``"default"`` among them; ``None`` for new versions, of which each
        is an event, with ``alias`` and ``previous_version`` ``None``.
    :param poll_interval: seconds between looks.
    :param snowflake_conn_id: the Airflow connection; ``warehouse``, ``database``, ``schema`` and ``role``
        override what it says.
    :raises InvalidNameError: if the alias is none.
    """

    def __init__(
        self,
        *,
        model_name: str | ModelRef,
        alias: str | None = "default",
        poll_interval: float = 60.0,
        snowflake_conn_id: str = "snowflake_default",
        warehouse: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        role: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model_name = str(model_name)
        self.alias = alias
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
                "model_name": self.model_name,
                "alias": self.alias,
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
        return _key(_hook_arguments(self.serialize()[1]), self.poll_interval)

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Look]:
        """Look again and again. A look that fails is an event too, never raised."""
        return _looks(_hook_arguments(kwargs), kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each change."""
        alias = Identifier.parse(self.alias, what="alias").name if self.alias is not None else None
        memory = f"{STATE_KEY} {self.model_name} {self.alias}"
        known: list[str] | None = await remembered(self, memory)
        last = ""
        with waiting(self.shared_stream_key(), self.model_name, self.poll_interval) as counts:
            async for look in shared_stream:
                if not counts(look):
                    continue
                seen = look.seen[self.model_name]
                if isinstance(seen, str):
                    last = log_change(self.model_name, f"the look failed: {seen}", last)
                    continue
                last = log_change(self.model_name, "watched", last)
                now = _versions(seen, alias)
                for version in _fresh(known, now) if known is not None else ():
                    payload = {
                        "model": self.model_name,
                        "version": version,
                        "alias": alias,
                        "previous_version": known[0] if alias is not None and known else None,
                    }
                    yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
                # Between two versions no one has the alias.
                if known is None or (now and now != known):
                    known = now
                    await remember(self, memory, known)

    def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing."""
        return alone(self)


def _versions(model: ListedModel | None, alias: str | None) -> list[str]:
    """The version that has the alias, or all."""
    if model is None:
        return []
    if alias is None:
        return list(model.versions)
    return [model.aliases[alias]] if alias in model.aliases else []


def _fresh(known: list[str], now: list[str]) -> list[str]:
    return [version for version in now if version not in known]


def _looks(hook_arguments: dict[str, Any], poll_interval: float) -> AsyncIterator[Look]:
    return poll(
        _key(hook_arguments, poll_interval),
        poll_interval,
        lambda: ModelsWatch(SnowMLHook(**hook_arguments)),
    )


def _hook_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("snowflake_conn_id", "warehouse", "database", "schema", "role")
    return {name: kwargs[name] for name in names}


def _key(hook_arguments: dict[str, Any], poll_interval: float) -> Hashable:
    return ("snowml models", json.dumps(hook_arguments, sort_keys=True), poll_interval)
