"""How a service is waited for: one judgement, used by the worker, the triggers and the sensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_snowml.core.batch_poller import Limits, Statement
from airflow_provider_snowml.core.model_service import FAILURES, GOING, KNOWN, RUNNING, SUSPENDED


class ServiceOutcome(StrEnum):
    """What an observation means."""

    WAIT = "wait"
    READY = "ready"
    CREATED = "created"  # it exists; only if that is all that is waited for
    FAILED = "failed"
    SUSPENDED = "suspended"
    LOST = "lost"  # no such service after the grace
    TIMEOUT = "timeout"
    POLL_ERRORS = "poll_errors"


@dataclass(frozen=True)
class ServiceContainer:
    """A container of an instance, as SHOW SERVICE CONTAINERS IN SERVICE lists it.

    :param instance_id: which instance it is of.
    :param instance_status: that instance's status.
    :param name: the container's name.
    :param status: its status.
    :param message: what Snowflake says about it.
    """

    instance_id: str
    instance_status: str
    name: str
    status: str
    message: str = ""


@dataclass(frozen=True)
class ServiceObservation:
    """What one look at Snowflake saw.

    :param status: the service's status, ``None`` if there is no such service.
    :param created_on: when it was made, in ISO format.
    :param target_instances: how many instances should run now.
    :param containers: the containers of its instances.
    :param statement: how the statement that deploys it is doing.
    :param statement_error: Snowflake's message if that failed.
    :param build: the status of the job that builds its image, ``None`` if there is none.
    """

    status: str | None = None
    created_on: str | None = None
    target_instances: int = 1
    containers: tuple[ServiceContainer, ...] = field(default=())
    statement: Statement = Statement.UNKNOWN
    statement_error: str = ""
    build: str | None = None


@dataclass(frozen=True)
class ServiceVerdict:
    """What to do now.

    :param outcome: what the observation means.
    :param detail: one clause for the log or the error.
    :param status: the service's last known status.
    :param instances: how many of its instances are ready.
    """

    outcome: ServiceOutcome
    detail: str
    status: str | None = None
    instances: int = 0


class ServicePoller:
    """Judges one observation after another. It reads no clock and sends nothing.

    :param limits: how long to wait.
    :param until_ready: whether every instance must be ready; else the service need only exist.
    """

    def __init__(self, limits: Limits, *, until_ready: bool = True) -> None:
        self.limits = limits
        self.until_ready = until_ready
        self._errors = 0
        self._suspect_since: float | None = None

    def failed(self, error: str, now: float) -> ServiceVerdict:
        """Judge a look that failed."""
        self._errors += 1
        if self._errors >= self.limits.max_errors:
            return ServiceVerdict(
                ServiceOutcome.POLL_ERRORS, f"{self._errors} polls in a row failed: {error}"
            )
        return self._unless_late(ServiceVerdict(ServiceOutcome.WAIT, f"poll failed ({error})"), now)

    def observed(self, seen: ServiceObservation, now: float) -> ServiceVerdict:
        """Judge a look that succeeded."""
        self._errors = 0
        verdict = self._judge(seen, now)
        return self._unless_late(verdict, now) if verdict.outcome is ServiceOutcome.WAIT else verdict

    def _judge(self, seen: ServiceObservation, now: float) -> ServiceVerdict:
        status = seen.status
        if status is None or status in GOING:
            return self._judge_missing(seen, now)
        if status == SUSPENDED:
            # It lasts for a moment after a resume.
            return self._suspect(ServiceOutcome.SUSPENDED, "the service is SUSPENDED", status, now)
        self._suspect_since = None
        live = [c for c in seen.containers if c.instance_status != "TERMINATING"]
        broken = [c for c in live if "FAILED" in (c.status, c.instance_status)]
        if status in FAILURES or broken:
            said = "; ".join(
                f"container {c.name} of instance {c.instance_id} is {c.status}: {c.message or 'no message'}"
                for c in broken or live
            )
            return ServiceVerdict(
                ServiceOutcome.FAILED, f"the service is {status}" + (f" ({said})" if said else ""), status
            )
        if not self.until_ready:
            return ServiceVerdict(ServiceOutcome.CREATED, f"the service is {status}", status)
        return self._judge_instances(seen, status)

    def _judge_instances(self, seen: ServiceObservation, status: str) -> ServiceVerdict:
        instances = {c.instance_id: c.instance_status for c in seen.containers}
        instances = {i: state for i, state in instances.items() if state != "TERMINATING"}
        ready = list(instances.values()).count("READY")
        wanted = max(seen.target_instances, len(instances), 1)
        if status == RUNNING and ready >= wanted:
            what = f"all {ready} instances are ready" if ready > 1 else "its instance is ready"
            return ServiceVerdict(ServiceOutcome.READY, f"the service is RUNNING, {what}", status, ready)
        known = "" if status in KNOWN else ", a status this version does not know"
        said = "; ".join(
            dict.fromkeys(c.message for c in seen.containers if c.message and c.status != "READY")
        )
        detail = f"the service is {status}{known}, {ready} of {wanted} instances ready"
        return ServiceVerdict(ServiceOutcome.WAIT, detail + (f" ({said})" if said else ""), status, ready)

    def _judge_missing(self, seen: ServiceObservation, now: float) -> ServiceVerdict:
        if seen.statement is Statement.RUNNING:
            self._suspect_since = None
            build = f", the image build is {seen.build}" if seen.build else ""
            return ServiceVerdict(ServiceOutcome.WAIT, f"the statement is running{build}")
        if seen.statement is Statement.FAILED:
            return ServiceVerdict(
                ServiceOutcome.FAILED, f"the statement that deploys it failed: {seen.statement_error}"
            )
        return self._suspect(ServiceOutcome.LOST, "there is no such service", seen.status, now)

    def _suspect(
        self, outcome: ServiceOutcome, detail: str, status: str | None, now: float
    ) -> ServiceVerdict:
        """A state that is wrong if it lasts."""
        if self._suspect_since is None:
            self._suspect_since = now
        if now - self._suspect_since >= self.limits.grace:
            return ServiceVerdict(outcome, f"{detail} for {self.limits.grace:g} s", status)
        return ServiceVerdict(ServiceOutcome.WAIT, detail, status)

    def _unless_late(self, verdict: ServiceVerdict, now: float) -> ServiceVerdict:
        if self.limits.deadline is not None and now >= self.limits.deadline:
            late = f"it took longer than allowed; {verdict.detail}"
            return ServiceVerdict(ServiceOutcome.TIMEOUT, late, verdict.status, verdict.instances)
        return verdict
