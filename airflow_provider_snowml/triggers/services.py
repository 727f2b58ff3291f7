"""The triggers that wait for a model's service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from dataclasses import asdict, replace
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.model_service import DeploymentIntent
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.core.service_poller import ServicePoller, ServiceVerdict
from airflow_provider_snowml.hooks.query_tag import tag_of
from airflow_provider_snowml.hooks.services import (
    ServicesWatch,
    ServiceWatch,
    end_deployment,
    is_over,
    judge,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import log_change
from airflow_provider_snowml.triggers.shared_poll import Look, alone, poll, poll_key, waiting


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
        return _key(self.serialize()[1])

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Look]:
        """Look at the schema's services again and again. A look that fails is an event too, never raised."""
        schema = QualifiedName.parse(kwargs["service_name"]).parent
        return poll(
            _key(kwargs),
            kwargs["poll_interval"],
            lambda: ServicesWatch(SnowMLHook(**kwargs["hook_arguments"]), schema),
        )

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Judge this trigger's service in each look, and yield the one event."""
        poller, last = ServicePoller(Limits(**self.limits)), ""
        with waiting(self.shared_stream_key(), self.service_name, self.poll_interval) as counts:
            async for look in shared_stream:
                if not counts(look):
                    continue
                verdict = judge(poller, look.seen[self.service_name])
                last = log_change(self.service_name, verdict.detail, last)
                if is_over(verdict):
                    yield TriggerEvent({**_event(verdict), "service_name": self.service_name})  # type: ignore[no-untyped-call]
                    return

    def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, where nothing shares: ``dag.test()``."""
        return alone(self)


def _key(kwargs: dict[str, Any]) -> Hashable:
    schema = QualifiedName.parse(kwargs["service_name"]).parent
    return poll_key("services", kwargs["hook_arguments"], schema, kwargs["poll_interval"])


def _event(verdict: ServiceVerdict) -> dict[str, Any]:
    return {**asdict(verdict), "outcome": verdict.outcome.value}
