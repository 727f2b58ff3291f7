"""What a batch inference job is: whose it is, what it is called, and what to do after looking.

The promise is *at most one live job for one piece of work*. Snowflake keeps names unique in a schema, so a
name derived from the owner is the lock, and a manifest beside the job's input is the memory. The manifest is
written after the input is complete and before the job is submitted: where there is a manifest, there is an
input.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from airflow_provider_snowml.exceptions import InvalidArgumentError

PREFIX = "SNOWML"
MAX_JOB_NAME = 63
MANIFEST_FILE = "manifest.json"
SUCCESS_FILE = "_SUCCESS"

# https://docs.snowflake.com/en/sql-reference/sql/show-services; DELETED is added by snowflake-ml.
DONE = "DONE"
FAILURES = frozenset({"FAILED", "INTERNAL_ERROR"})
CANCELLATIONS = frozenset({"CANCELLED", "DELETED"})
ENDED = FAILURES | CANCELLATIONS | {DONE}
NOT_STARTED = frozenset({"PENDING"})
ENDING = frozenset({"CANCELLING", "DELETING"})
KNOWN = ENDED | ENDING | NOT_STARTED | {"RUNNING", "SUSPENDING", "SUSPENDED"}


@dataclass(frozen=True)
class JobOwner:
    """The piece of work that a job does. Never the try number: a retry is the same work.

    :param dag_id: the DAG.
    :param task_id: the task.
    :param run_key: partition key, else data interval start, else run id.
    :param map_index: the mapped task's index, -1 for none.
    """

    dag_id: str
    task_id: str
    run_key: str
    map_index: int = -1

    @property
    def stem(self) -> str:
        """The name of its jobs without the attempt: readable in front, hashed behind."""
        digest = hashlib.sha256(json.dumps(list(asdict(self).values())).encode()).hexdigest()[:12].upper()
        key = re.sub(r"[^A-Z0-9]", "", self.run_key.upper())[:8]
        head = re.sub(r"[^A-Z0-9]+", "_", f"{self.dag_id}_{self.task_id}".upper()).strip("_")
        room = MAX_JOB_NAME - len(f"{PREFIX}____{digest}_A9999") - len(key)
        return "_".join(part for part in (PREFIX, head[:room].rstrip("_"), key, digest) if part)

    def job_name(self, attempt: int) -> str:
        """The name of its n-th job, an unquoted identifier of at most 63 characters."""
        if not 1 <= attempt <= 9999:
            raise InvalidArgumentError(f"{attempt} is no attempt number (1 to 9999).")
        return f"{self.stem}_A{attempt}"

    def attempt_of(self, job_name: str) -> int | None:
        """The attempt number in a job's name, ``None`` for a name that is not this owner's."""
        match = re.fullmatch(re.escape(self.stem) + r"_A([1-9][0-9]{0,3})", job_name)
        return int(match.group(1)) if match else None

    def __str__(self) -> str:
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} for {self.run_key}"


def run_key(*, partition_key: str | None, data_interval_start: datetime | None, run_id: str) -> str:
    """What a run is about: its partition, else the start of its interval, else itself."""
    if partition_key:
        return partition_key
    if data_interval_start is not None:
        return data_interval_start.astimezone(UTC).isoformat()
    return run_id


@dataclass(frozen=True)
class RunRef:
    """A DAG run, and how often it was cleared.

    :param run_id: the run's id.
    :param clear_number: ``dag_run.clear_number``.
    """

    run_id: str
    clear_number: int = 0

    def __str__(self) -> str:
        return f"{self.run_id}/{self.clear_number}"


def fingerprint(parts: Mapping[str, Any]) -> str:
    """A digest of everything that would make a job's result different."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class JobManifest:
    """What is remembered about an attempt, as a JSON file beside its input.

    :param dag_id: with ``task_id``, ``run_key`` and ``map_index`` the owner.
    :param run_id: the DAG run that submitted it, with ``clear_number``.
    :param attempt: the attempt number.
    :param job_name: the job's full name.
    :param fingerprint: see :func:`fingerprint`.
    :param model: the model's full name.
    :param version_reference: the version as the user named it, such as ``default``.
    :param version: the version it was resolved to.
    :param function: the method that is called.
    :param input_location: the directory that the job reads.
    :param output_location: the directory that the job writes, ``<base>/<job name>/``.
    :param input_rows: rows of the input, ``None`` if it was not counted.
    :param keeps_row_count: whether as many rows must come out.
    :param query_id: the statement that starts the job, added once that is sent.
    :param submitted_at: when it was sent, or the input was complete, an epoch by the worker's clock.
    :param replaced: the runs whose job another run has ended in favour of its own, and that run's id. They
        do not come back, else two runs could end each other's jobs in turn.
    """

    dag_id: str
    task_id: str
    run_key: str
    map_index: int
    run_id: str
    clear_number: int
    attempt: int
    job_name: str
    fingerprint: str
    model: str
    version_reference: str
    version: str
    function: str
    input_location: str
    output_location: str
    input_rows: int | None
    keeps_row_count: bool
    query_id: str | None = None
    submitted_at: float | None = None
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> JobOwner:
        """Whose it is."""
        return JobOwner(self.dag_id, self.task_id, self.run_key, self.map_index)

    @property
    def run(self) -> RunRef:
        """Which run, and which of its clears, submitted it."""
        return RunRef(self.run_id, self.clear_number)

    def replaced_by(self, run: RunRef) -> JobManifest:
        """The same, once a run has decided to end this job in favour of its own."""
        return replace(self, replaced={**self.replaced, str(self.run): run.run_id})

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> JobManifest | None:
        """Read the file's text; ``None`` if it is no manifest of ours."""
        try:
            values = json.loads(text)
            return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Attempt:
    """What was found of an attempt: its job, its files, its manifest.

    :param number: the attempt number.
    :param status: the job's status, ``None`` if there is no such job (any more).
    :param manifest: its manifest, ``None`` if there is none or it is not ours.
    :param has_output: whether there are files in its output directory.
    :param has_success: whether ``_SUCCESS`` is among them.
    """

    number: int
    status: str | None = None
    manifest: JobManifest | None = None
    has_output: bool = False
    has_success: bool = False

    @property
    def is_live(self) -> bool:
        """Whether its job exists and has not ended; an unknown status counts as live."""
        return self.status is not None and self.status not in ENDED

    @property
    def has_result(self) -> bool:
        """Whether it is DONE, or its metadata has expired and ``_SUCCESS`` is there."""
        return self.status == DONE or (self.status is None and self.has_success)


class Action(StrEnum):
    """What to do after looking."""

    SUBMIT = "submit"  # a new input, then a job, under decision.attempt
    RESUBMIT = "resubmit"  # the input is complete, the job is missing: submit under the same name
    ATTACH = "attach"  # follow the job, or take its result
    REPLACE = "replace"  # end the latest attempt, wait for its end, then SUBMIT
    WAIT = "wait"  # until another run's job has ended, then look again
    CONFLICT = "conflict"  # another run's job lives
    REPLACED = "replaced"  # another run has ended this run's job in favour of its own
    FOREIGN = "foreign"  # somebody else's job bears our name


@dataclass(frozen=True)
class Decision:
    """What to do, under which attempt number, and why.

    :param action: what to do.
    :param attempt: the attempt that is submitted, followed or in the way.
    :param reason: one sentence for the task's log or the error.
    """

    action: Action
    attempt: int
    reason: str


def decide(
    *,
    owner: JobOwner,
    run: RunRef,
    job_fingerprint: str,
    attempts: Iterable[Attempt],
    on_conflict: Literal["fail", "wait", "replace"] = "fail",
    on_rerun: Literal["replace", "reuse"] = "replace",
) -> Decision:
    """Decide what a task does about its job.

    :param owner: the piece of work.
    :param run: the run, with its clear number, that the task is in.
    :param job_fingerprint: the fingerprint of what it would submit.
    :param attempts: what was found under the owner's names.
    :param on_conflict: what to do about a live job of another run of the same key.
    :param on_rerun: whether another run's finished result of the same fingerprint may be used.
    """
    latest = max(attempts, key=lambda attempt: attempt.number, default=None)
    if latest is None:
        return Decision(Action.SUBMIT, 1, "there is no earlier attempt")
    n, manifest = latest.number, latest.manifest
    if manifest is None:
        if latest.is_live:
            return Decision(Action.FOREIGN, n, "the job lives and has no manifest of this task here")
        if latest.status is not None:
            # Ours, with another output_stage_location, or somebody's: it has ended, and is left as it is.
            return Decision(Action.SUBMIT, n + 1, f"attempt {n} is {latest.status}, and not of this output")
        if latest.has_output:
            return Decision(Action.SUBMIT, n + 1, f"attempt {n} left output and nothing else")
        return Decision(Action.SUBMIT, n, f"attempt {n} ended before its input was complete")
    if manifest.owner != owner:
        return Decision(Action.FOREIGN, n, f"the job belongs to {manifest.owner}")
    if by := manifest.replaced.get(str(run)):
        return Decision(Action.REPLACED, n, f"run {by} has replaced this run's job of the same key")
    same_work = manifest.fingerprint == job_fingerprint
    if manifest.run == run and same_work:
        return _same_try(latest)
    if manifest.run_id == run.run_id:
        if manifest.clear_number > run.clear_number:
            return Decision(Action.CONFLICT, n, "the run was cleared since, and a newer try owns the job")
        why = "the run was cleared" if manifest.run != run else "the task's arguments have changed"
        return _next(latest, why)
    if latest.is_live and on_conflict != "replace":
        action = Action.WAIT if on_conflict == "wait" else Action.CONFLICT
        return Decision(action, n, f"run {manifest.run_id} of the same key has a live job")
    if on_rerun == "reuse" and same_work and latest.has_result:
        return Decision(Action.ATTACH, n, f"run {manifest.run_id} has the same result already")
    return _next(latest, f"attempt {n} is of run {manifest.run_id}")


def _same_try(latest: Attempt) -> Decision:
    """The same run, the same clear, the same work: a retry."""
    n, status = latest.number, latest.status
    if status is None:
        if latest.has_success:
            return Decision(Action.ATTACH, n, f"attempt {n} has finished; its job's metadata is gone")
        if latest.has_output:
            return Decision(Action.SUBMIT, n + 1, f"the job of attempt {n} is gone and its output is partial")
        return Decision(Action.RESUBMIT, n, f"attempt {n} has its input but no job")
    if status in ENDING:
        return _next(latest, f"attempt {n} is {status}")
    if status in FAILURES | CANCELLATIONS:
        return Decision(Action.SUBMIT, n + 1, f"attempt {n} is {status}")
    return Decision(Action.ATTACH, n, f"attempt {n} is {status}")


def _next(latest: Attempt, why: str) -> Decision:
    """The next attempt, after the latest one is ended if it lives."""
    action = Action.REPLACE if latest.is_live else Action.SUBMIT
    return Decision(action, latest.number + 1, why)
