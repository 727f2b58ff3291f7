"""The triggers that wait for a model's service."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from dataclasses import asdict, replace
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.model_service import DeploymentIntent, FoundService
from airflow_provider_snowml.core.names import QualifiedName, SchemaName
from airflow_provider_snowml.core.service_poller import ServiceObservation, ServicePoller, ServiceVerdict
from airflow_provider_snowml.exceptions import StatementError
from airflow_provider_snowml.hooks.kept_connection import KeptConnection
from airflow_provider_snowml.hooks.query_tag import tag_of
from airflow_provider_snowml.hooks.services import (
    ServiceWatch,
    end_deployment,
    is_over,
    list_services,
    log_change,
    observe,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook


class SnowMLServiceDeploymentTrigger(BaseTrigger):
    """Wait until a service that a task deploys is ready, by the same judgement as the worker.

    It polls over one connection that it keeps open, in a thread. It yields one event: ``{"outcome", "detail",
    "status", "instances", "intent"}`` (see
    :class:`~airflow_provider_snowml.core.service_poller.ServiceVerdict`).

    :param intent: what the task deploys, the fields of
        :class:`~airflow_provider_snowml.core.model_service.DeploymentIntent`.
    :param hook_arguments: the arguments of the hook.
    :param poll_interval: seconds between polls.
    :param limits: the fields of :class:`~airflow_provider_snowml.core.batch_poller.Limits`.
    :param until_ready: whether every instance must be ready; else the service need only exist.
    :param cancel_on_kill: whether a user's kill of the task ends the deployment. Only this one: a service
        that another try has made is left alone.
    """

    def __init__(
        self,
        *,
        intent: dict[str, Any],
        hook_arguments: dict[str, Any],
        poll_interval: float,
        limits: dict[str, Any],
        until_ready: bool,
        cancel_on_kill: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.intent = intent
        self.hook_arguments = hook_arguments
        self.poll_interval = poll_interval
        self.limits = limits
        self.until_ready = until_ready
        self.cancel_on_kill = cancel_on_kill
        self._watch: ServiceWatch | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "intent": self.intent,
                "hook_arguments": self.hook_arguments,
                "poll_interval": self.poll_interval,
                "limits": self.limits,
                "until_ready": self.until_ready,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    def _hook(self) -> SnowMLHook:
        ti = getattr(self, "task_instance", None)
        return SnowMLHook(**self.hook_arguments, query_tag=tag_of(ti) if ti is not None else None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield the one event."""
        watch = self._watch = ServiceWatch(
            await asyncio.to_thread(self._hook),
            ServicePoller(Limits(**self.limits), until_ready=self.until_ready),
            service_name=self.intent["service_name"],
            query_id=self.intent["query_id"],
        )
        try:
            # Whoever deferred has looked already. A trigger that fires at once can wake the task before
            # Airflow has noticed that it deferred.
            await asyncio.sleep(self.poll_interval)
            while not is_over(verdict := await asyncio.to_thread(watch.look)):
                await asyncio.sleep(self.poll_interval)
            yield TriggerEvent({**_event(verdict), "intent": self._seen_intent().to_dict()})  # type: ignore[no-untyped-call]
        finally:
            await asyncio.to_thread(watch.close)

    def _seen_intent(self) -> DeploymentIntent:
        """With the time that tells this service from the next one of its name."""
        intent = DeploymentIntent(**self.intent)
        seen = self._watch.created_on if self._watch is not None else None
        return replace(intent, created_on=seen or intent.created_on)

    async def on_kill(self) -> None:
        """A user killed, cleared or marked the deferred task: end what this trigger carries."""
        if not self.cancel_on_kill:
            return
        name = self.intent["service_name"]
        try:
            done = await asyncio.to_thread(lambda: end_deployment(self._hook(), self._seen_intent()))
            self.log.info("Killed while it waited for service %s: %s.", name, done)
        except Exception as error:
            self.log.error("Deployment of service %s could not be ended and may go on: %s", name, error)


class SnowMLServiceReadyTrigger(BaseEventTrigger):
    """Wait until a service is ready; all that wait in one schema share one poll.

    Those with the same hook arguments, schema and poll interval share a connection, on which each poll lists
    the schema's services once and looks into those that are waited for. It yields one event: ``{"outcome",
    "detail", "status", "instances", "service_name"}``.

    :param service_name: the service's full name.
    :param hook_arguments: the arguments of the hook.
    :param poll_interval: seconds between polls.
    :param limits: the fields of :class:`~airflow_provider_snowml.core.batch_poller.Limits`.
    """

    # How many triggers of this process wait for each service. The stream is opened with the arguments of one
    # of them; here it finds what the others wait for.
    _waited_for: Counter[tuple[Hashable, str]] = Counter()

    def __init__(
        self,
        *,
        service_name: str,
        hook_arguments: dict[str, Any],
        poll_interval: float,
        limits: dict[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.service_name = service_name
        self.hook_arguments = hook_arguments
        self.poll_interval = poll_interval
        self.limits = limits

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "service_name": self.service_name,
                "hook_arguments": self.hook_arguments,
                "poll_interval": self.poll_interval,
                "limits": self.limits,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """One poll for the same connection, schema and interval."""
        return _key(self.service_name, self.hook_arguments, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """Look at the schema's services again and again. A look that fails is an event too, never raised."""
        key = _key(kwargs["service_name"], kwargs["hook_arguments"], kwargs["poll_interval"])
        schema = QualifiedName.parse(kwargs["service_name"]).parent
        watch = _SchemaWatch(await asyncio.to_thread(SnowMLHook, **kwargs["hook_arguments"]), schema)
        try:
            while True:
                await asyncio.sleep(kwargs["poll_interval"])
                names = {name for waited, name in cls._waited_for if waited == key}
                yield await asyncio.to_thread(watch.look, names)
        finally:
            await asyncio.to_thread(watch.connection.close)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Judge this trigger's service in each look, and yield the one event."""
        waited = (self.shared_stream_key(), self.service_name)
        poller = ServicePoller(Limits(**self.limits))
        started, last = time.time(), ""
        self._waited_for[waited] += 1
        try:
            async for snapshot in shared_stream:
                if self.service_name not in snapshot.seen or snapshot.time < started + self.poll_interval / 2:
                    continue  # begun before this trigger was there, or too soon after its task deferred
                verdict = snapshot.judge(self.service_name, poller)
                last = log_change(self.service_name, verdict, last)
                if is_over(verdict):
                    yield TriggerEvent({**_event(verdict), "service_name": self.service_name})  # type: ignore[no-untyped-call]
                    return
        finally:
            self._waited_for[waited] -= 1
            if self._waited_for[waited] <= 0:
                del self._waited_for[waited]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, where nothing shares: ``dag.test()``."""
        stream = self.open_shared_stream(self.serialize()[1])
        try:
            async for event in self.filter_shared_stream(stream):
                yield event
                return
        finally:
            await stream.aclose()  # type: ignore[attr-defined]


class Snapshot:
    """One look at a schema.

    :param seen: what it saw of each service that it looked into, or why it could not.
    """

    def __init__(self, seen: dict[str, ServiceObservation | str]) -> None:
        self.time = time.time()
        self.seen = seen

    def judge(self, name: str, poller: ServicePoller) -> ServiceVerdict:
        """What it means for one service."""
        seen = self.seen[name]
        if isinstance(seen, str):
            return poller.failed(seen, self.time)
        return poller.observed(seen, self.time)


class _SchemaWatch:
    """Looks at a schema's services, over one connection that it keeps and replaces when it breaks."""

    def __init__(self, hook: SnowMLHook, schema: SchemaName) -> None:
        self.connection = KeptConnection(hook)
        self.schema = schema

    def look(self, names: set[str]) -> Snapshot:
        try:
            with self.connection.use() as hook:
                found = {service.name.sql: service for service in list_services(hook, self.schema).values()}
                return Snapshot({name: self._observe(hook, found.get(name)) for name in names})
        except Exception as error:  # whatever it is, each subscriber counts it
            return Snapshot(dict.fromkeys(names, f"{type(error).__name__}: {error}"))

    @staticmethod
    def _observe(hook: SnowMLHook, service: FoundService | None) -> ServiceObservation | str:
        """A service that cannot be looked into is no reason for the others to wait."""
        try:
            return observe(hook, service)
        except StatementError as error:
            return str(error)


def _key(service_name: str, hook_arguments: dict[str, Any], poll_interval: float) -> Hashable:
    schema = QualifiedName.parse(service_name).parent.sql
    return ("snowml services", json.dumps(hook_arguments, sort_keys=True), schema, poll_interval)


def _event(verdict: ServiceVerdict) -> dict[str, Any]:
    return {**asdict(verdict), "outcome": verdict.outcome.value}
