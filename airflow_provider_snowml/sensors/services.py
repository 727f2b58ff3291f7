"""Waiting for a model's service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.core.service_poller import ServiceOutcome, ServicePoller, ServiceVerdict
from airflow_provider_snowml.exceptions import (
    ServiceFailedError,
    ServiceNotFoundError,
    ServicePollingError,
    ServiceSuspendedError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import log_tail
from airflow_provider_snowml.hooks.services import ServiceWatch, is_over, service_name
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.sensors.base import SnowMLSensor
from airflow_provider_snowml.triggers.services import SnowMLServiceReadyTrigger


class SnowMLServiceReadySensor(SnowMLSensor):
    """Wait until every instance of a model's service is ready.

    It fails at once, with the container's message, when the service or one of its containers has FAILED. A
    service that is missing or suspended may stay so for ``grace``, then the wait fails: it would not end.
    Deferred sensors of the same connection, schema and ``poke_interval`` share one poll. With
    ``mode="reschedule"`` each look is by a new process, so that ``grace`` and passing errors are not counted
    from one to the next: only ``timeout`` ends a wait for what is missing.

    XCom: ``{"service_name", "status", "instances"}``, the last how many are ready.

    Privileges: MONITOR on the service. See
    https://docs.snowflake.com/en/sql-reference/sql/show-service-containers-in-service.

    :param service_name: the service, ``[[database.]schema.]name``.
    :param grace: seconds that a service may be missing, or suspended.
    :raises ServiceFailedError: if the service or one of its containers failed.
    :raises ServiceSuspendedError: if it is suspended.
    :raises ServiceNotFoundError: if it is missing.
    """

    template_fields: Sequence[str] = (*SnowMLSensor.template_fields, "service_name")

    def __init__(
        self,
        *,
        service_name: str,
        grace: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service_name = service_name
        self.grace = grace
        self._watch: ServiceWatch | None = None
        self._verdict: ServiceVerdict | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait here, or in the triggerer."""
        self.service_name = self._full_name(self.get_hook()).sql
        try:
            if self.deferrable and not is_over(self._look()):
                self._defer()
            self.wait_here(context)
        finally:
            if self._watch is not None:
                self._watch.close()
        return self._result()

    def _defer(self) -> NoReturn:
        deadline = time.time() + float(self.timeout)
        self.wait_there(
            SnowMLServiceReadyTrigger(
                service_name=self.service_name,
                hook_arguments=self.hook_arguments(),
                poll_interval=float(self.poke_interval),
                limits=asdict(Limits(deadline=deadline, grace=self.grace)),
            )
        )

    def poke(self, context: Context) -> bool:
        """Look once."""
        return self._judge(self.get_hook(), self._look())

    def _look(self) -> ServiceVerdict:
        if self._watch is None:
            self._watch = ServiceWatch(
                self.get_hook(), ServicePoller(Limits(grace=self.grace)), service_name=self.service_name
            )
        return self._watch.look()

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        self.service_name = event["service_name"]
        verdict = ServiceVerdict(
            ServiceOutcome(event["outcome"]), event["detail"], event["status"], event["instances"]
        )
        self._judge(self.get_hook(), verdict)
        return self._result()

    def _judge(self, hook: SnowMLHook, verdict: ServiceVerdict) -> bool:
        self._verdict = verdict
        if verdict.outcome in (ServiceOutcome.READY, ServiceOutcome.WAIT):
            return verdict.outcome is ServiceOutcome.READY
        message = f"Service {self.service_name}: {verdict.detail}."
        if verdict.outcome is ServiceOutcome.TIMEOUT:
            raise AirflowSensorTimeout(message)
        kinds: dict[ServiceOutcome, type[SnowMLError]] = {
            ServiceOutcome.FAILED: ServiceFailedError,
            ServiceOutcome.SUSPENDED: ServiceSuspendedError,
            ServiceOutcome.LOST: ServiceNotFoundError,
            ServiceOutcome.POLL_ERRORS: ServicePollingError,
        }
        if verdict.outcome is ServiceOutcome.FAILED:
            tail = log_tail(hook, QualifiedName.parse(self.service_name))
            message += f" The end of its logs:\n{tail}\n"
        raise kinds[verdict.outcome](message)

    def _full_name(self, hook: SnowMLHook) -> QualifiedName:
        return service_name(self.service_name, hook.default_schema())

    def _result(self) -> dict[str, Any]:
        verdict = self._verdict
        return {
            "service_name": self.service_name,
            "status": verdict.status if verdict is not None else None,
            "instances": verdict.instances if verdict is not None else 0,
        }
