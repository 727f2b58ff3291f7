"""What a model's service is, and what a task does about one that is there already.

The service's name is the lock: Snowflake keeps it unique in a schema. What a try is about to deploy is
remembered before the statement is sent, with Snowflake's time, so that a later try knows its own service
again: it was made after that, for that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from airflow_provider_snowml.core.batch_job import RunRef
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import QualifiedName

# https://docs.snowflake.com/en/sql-reference/sql/show-services
RUNNING = "RUNNING"
SUSPENDED = "SUSPENDED"
FAILURES = frozenset({"FAILED", "INTERNAL_ERROR"})
GOING = frozenset({"DELETING", "DELETED"})
KNOWN = FAILURES | GOING | {"PENDING", RUNNING, "SUSPENDING", SUSPENDED}


@dataclass(frozen=True)
class FoundService:
    """A service as DESCRIBE and SHOW describe it.

    :param name: its full name.
    :param status: its status.
    :param created_on: when it was made; tells it from another one of the same name.
    :param is_job: whether it is a job.
    :param managing_object_domain: ``Model`` for a model's service.
    :param managing_object_name: which model it serves.
    :param dns_name: its host name inside Snowflake.
    :param target_instances: how many instances should run now.
    """

    name: QualifiedName
    status: str
    created_on: datetime
    is_job: bool = False
    managing_object_domain: str | None = None
    managing_object_name: str | None = None
    dns_name: str | None = None
    target_instances: int = 1

    @property
    def is_of_a_model(self) -> bool:
        """Whether it is a model's service: not somebody's own, and not a job."""
        return (self.managing_object_domain or "").upper() == "MODEL" and not self.is_job

    def __str__(self) -> str:
        kind = "a job" if self.is_job else "a service"
        if self.managing_object_domain:
            kind += f" of {self.managing_object_domain.lower()} {self.managing_object_name}"
        return f"{self.name}, {kind}, created on {self.created_on:%Y-%m-%d %H:%M:%S%z}, {self.status}"


@dataclass(frozen=True)
class DeploymentIntent:
    """What a try is about to deploy, in the task's state.

    :param run_id: the DAG run.
    :param clear_number: how often that was cleared.
    :param service_name: the service's full name.
    :param fingerprint: the deployment's.
    :param model: the model's full name.
    :param version_reference: the version as the user named it, such as ``default``.
    :param version: the version it was resolved to.
    :param since: Snowflake's time before the statement was sent, in ISO format; no service of ours is older.
    :param query_id: the statement, added once it is sent.
    :param created_on: when the service was made that was seen since, in ISO format.
    :param reused: whether it is somebody else's service that is used; nothing is deployed then.
    """

    run_id: str
    clear_number: int
    service_name: str
    fingerprint: str
    model: str
    version_reference: str
    version: str
    since: str
    query_id: str | None = None
    created_on: str | None = None
    reused: bool = False

    @property
    def run(self) -> RunRef:
        """Which run, and which of its clears."""
        return RunRef(self.run_id, self.clear_number)

    def made(self, service: FoundService | None) -> bool:
        """Whether a service can be of this intent: the one that was seen, else one that is no older."""
        if service is None or self.reused:
            return False
        if self.created_on is not None:
            return service.created_on == datetime.fromisoformat(self.created_on)
        return service.created_on >= datetime.fromisoformat(self.since)

    def to_dict(self) -> dict[str, Any]:
        """For the task's state."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> DeploymentIntent | None:
        """From the task's state; ``None`` if there is none, or it is none of ours."""
        if not isinstance(values, Mapping):
            return None
        try:
            return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
        except TypeError:
            return None


class ServiceAction(StrEnum):
    """What to do after looking."""

    SUBMIT = "submit"  # nothing is there
    ATTACH = "attach"  # follow what an earlier try of this run has started
    REUSE = "reuse"  # somebody's service of the same version will do
    REPLACE = "replace"  # end and drop what is there, wait until it is gone, then submit
    CONFLICT = "conflict"  # the name is taken


@dataclass(frozen=True)
class ServiceDecision:
    """What to do, and why.

    :param action: what to do.
    :param reason: one clause for the task's log or the error.
    """

    action: ServiceAction
    reason: str


def decide(
    *,
    run: RunRef,
    deployment_fingerprint: str,
    version: str,
    intent: DeploymentIntent | None,
    statement: Statement,
    found: FoundService | None,
    serves: str | None,
    if_exists: Literal["fail", "reuse", "replace"] = "fail",
) -> ServiceDecision:
    """Decide what a task does about its service.

    :param run: the run, with its clear number, that the task is in.
    :param deployment_fingerprint: the fingerprint of what it would deploy.
    :param version: the version that it would deploy.
    :param intent: what an earlier try was about to deploy under the name.
    :param statement: how that try's statement is doing.
    :param found: what is there under the name.
    :param serves: the version of the same model that this serves; ``None`` if it serves something else.
    :param if_exists: what to do about a service of somebody else.
    """
    ours = intent is not None and intent.run_id == run.run_id
    same_try = intent is not None and ours and intent.run == run
    same_work = same_try and intent is not None and intent.fingerprint == deployment_fingerprint
    if found is None:
        if not (ours and statement is Statement.RUNNING):
            return ServiceDecision(ServiceAction.SUBMIT, "there is no such service")
        if same_work:
            return ServiceDecision(ServiceAction.ATTACH, "an earlier try's statement is running")
        return ServiceDecision(ServiceAction.REPLACE, _why_not(same_try) + " while its statement was running")
    if not found.is_of_a_model:
        return ServiceDecision(ServiceAction.CONFLICT, "what is there is not a model's service")
    if found.status in GOING:
        return ServiceDecision(ServiceAction.REPLACE, f"the one that is there is {found.status}")
    # If no try saw the service, only name and time speak for its being ours. They do not if our statement has
    # failed, nor, for a run that was cleared since, if nothing is known of the statement any more.
    seen = intent is not None and intent.created_on is not None
    likely = statement in (Statement.RUNNING, Statement.SUCCEEDED) or (
        statement is Statement.UNKNOWN and same_try
    )
    if ours and intent is not None and intent.made(found) and (seen or likely):
        if same_work and serves in (version, None) and found.status not in FAILURES:
            return ServiceDecision(ServiceAction.ATTACH, f"an earlier try made it, and it is {found.status}")
        if same_work and found.status in FAILURES:
            return ServiceDecision(ServiceAction.REPLACE, f"an earlier try's service is {found.status}")
        # One that serves already is somebody's by now: if_exists decides.
        if not same_work and found.status not in (RUNNING, SUSPENDED):
            return ServiceDecision(ServiceAction.REPLACE, f"{_why_not(same_try)}, and it is {found.status}")
    if if_exists == "replace":
        return ServiceDecision(ServiceAction.REPLACE, "if_exists is 'replace'")
    if if_exists == "reuse":
        if serves == version:
            return ServiceDecision(ServiceAction.REUSE, f"it serves {version} already")
        other = f"version {serves}" if serves else "another model or version"
        return ServiceDecision(ServiceAction.CONFLICT, f"it serves {other}, not {version}")
    return ServiceDecision(
        ServiceAction.CONFLICT, f"it is there already, serving {serves or 'another model'}"
    )


def _why_not(same_try: bool) -> str:
    return "the task's arguments have changed" if same_try else "the run was cleared"
