"""How a job is waited for: one judgement, used by the worker, the trigger and the sensor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_snowml.core.batch_job import CANCELLATIONS, DONE, FAILURES, KNOWN, NOT_STARTED


class Statement(StrEnum):
    """How the statement that starts the job is doing. It returns when the job service exists, which the
    build of the model's image can delay by minutes."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"  # its query id was lost, or nobody here submitted it


class Outcome(StrEnum):
    """What an observation means."""

    WAIT = "wait"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"  # DONE, but no _SUCCESS after the grace
    LOST = "lost"  # no such job after the grace
    START_TIMEOUT = "start_timeout"
    TIMEOUT = "timeout"
    POLL_ERRORS = "poll_errors"


@dataclass(frozen=True)
class Observation:
    """What one look at Snowflake saw.

    :param status: the job's status, ``None`` if there is no such job or none was named.
    :param success: whether ``_SUCCESS`` is in its output directory.
    :param statement: how the statement that starts it is doing.
    :param statement_error: Snowflake's message if that failed.
    """

    status: str | None = None
    success: bool = False
    statement: Statement = Statement.UNKNOWN
    statement_error: str = ""


@dataclass(frozen=True)
class Verdict:
    """What to do now.

    :param outcome: what the observation means.
    :param detail: one clause for the log or the error.
    :param status: the job's last known status.
    """

    outcome: Outcome
    detail: str
    status: str | None = None


# A Snowflake that cannot be reached for less than this fails no wait, in seconds.
ERROR_GRACE = 300.0


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds; deadlines are epochs, since triggers move between processes.

    :param start_deadline: until when the job must run, ``None`` for no limit.
    :param deadline: until when it must have ended, ``None`` for no limit.
    :param grace: how long a job may be missing after its statement, or ``_SUCCESS`` after DONE.
    :param max_errors: how many polls in a row may fail,
    :param error_grace: and for how long: only after both does the wait fail.
    """

    start_deadline: float | None = None
    deadline: float | None = None
    grace: float = 60.0
    max_errors: int = 10
    error_grace: float = 0.0


# How many looks in a row failed, since when, and since when something is missing.
Memory = tuple[int, float | None, float | None]


class Poller:
    """Judges one observation after another. It reads no clock and sends nothing.

    :param limits: how long to wait.
    :param path_only: wait for ``_SUCCESS`` alone, of a job that nobody named.
    :param memory: what another process' poller remembered of the same wait.
    """

    def __init__(self, limits: Limits, *, path_only: bool = False, memory: Memory = (0, None, None)) -> None:
        self.limits = limits
        self.path_only = path_only
        self._seen = self._started = False
        self._errors, self._failing_since, self._suspect_since = memory

    @property
    def memory(self) -> Memory:
        """What another process needs to go on with the same wait."""
        return self._errors, self._failing_since, self._suspect_since

    def failed(self, error: str, now: float) -> Verdict:
        """Judge a look that failed."""
        self._errors += 1
        if self._failing_since is None:
            self._failing_since = now
        has_lasted = now - self._failing_since >= self.limits.error_grace
        if self._errors >= self.limits.max_errors and has_lasted:
            return Verdict(Outcome.POLL_ERRORS, f"{self._errors} polls in a row failed: {error}")
        verdict = Verdict(Outcome.WAIT, f"poll failed ({error})")
        # Whoever attaches late may find that it has started, or ended: a look that failed cannot tell.
        return self._unless_overdue(verdict, now) if self._seen else verdict

    def observed(self, seen: Observation, now: float) -> Verdict:
        """Judge a look that succeeded."""
        self._errors, self._failing_since, self._seen = 0, None, True
        verdict = self._judge(seen, now)
        return self._unless_late(verdict, now) if verdict.outcome is Outcome.WAIT else verdict

    def _judge(self, seen: Observation, now: float) -> Verdict:
        status = seen.status
        if self.path_only:
            if seen.success:
                return Verdict(Outcome.SUCCEEDED, "_SUCCESS is there")
            return Verdict(Outcome.WAIT, "no _SUCCESS yet")
        if status in FAILURES:
            return Verdict(Outcome.FAILED, f"the job is {status}", status)
        if status in CANCELLATIONS:
            return Verdict(Outcome.CANCELLED, f"the job is {status}", status)
        if status == DONE:
            if seen.success:
                return Verdict(Outcome.SUCCEEDED, "the job is DONE and _SUCCESS is there", status)
            return self._suspect(Outcome.INCOMPLETE, "the job is DONE but wrote no _SUCCESS", status, now)
        if status is None:
            return self._judge_missing(seen, now)
        self._suspect_since = None
        if status not in NOT_STARTED:
            self._started = True
        known = "" if status in KNOWN else ", a status this version does not know"
        return Verdict(Outcome.WAIT, f"the job is {status}{known}", status)

    def _judge_missing(self, seen: Observation, now: float) -> Verdict:
        if seen.statement is Statement.RUNNING:
            self._suspect_since = None
            return Verdict(Outcome.WAIT, "the statement is running (the image is built first, if need be)")
        if seen.success:
            return Verdict(Outcome.SUCCEEDED, "_SUCCESS is there, and the job's metadata is gone", DONE)
        if seen.statement is Statement.FAILED:
            return Verdict(Outcome.FAILED, f"the statement that starts it failed: {seen.statement_error}")
        return self._suspect(Outcome.LOST, "there is no such job", None, now)

    def _suspect(self, outcome: Outcome, detail: str, status: str | None, now: float) -> Verdict:
        """A state that is wrong if it lasts."""
        if self._suspect_since is None:
            self._suspect_since = now
        if now - self._suspect_since >= self.limits.grace:
            return Verdict(outcome, f"{detail} within {self.limits.grace:g} s", status)
        return Verdict(Outcome.WAIT, detail, status)

    def _unless_overdue(self, verdict: Verdict, now: float) -> Verdict:
        if self.limits.deadline is not None and now >= self.limits.deadline:
            return Verdict(Outcome.TIMEOUT, f"it took longer than allowed; {verdict.detail}", verdict.status)
        return verdict

    def _unless_late(self, verdict: Verdict, now: float) -> Verdict:
        verdict, limits = self._unless_overdue(verdict, now), self.limits
        if verdict.outcome is not Outcome.WAIT:
            return verdict
        may_be_late = not self._started and not self.path_only and verdict.status != DONE
        if may_be_late and limits.start_deadline is not None and now >= limits.start_deadline:
            return Verdict(
                Outcome.START_TIMEOUT, f"it did not start in time; {verdict.detail}", verdict.status
            )
        return verdict
