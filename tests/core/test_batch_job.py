from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.batch_job import (
    ENDED,
    KNOWN,
    MAX_JOB_NAME,
    Action,
    Attempt,
    JobManifest,
    JobOwner,
    RunRef,
    decide,
    fingerprint,
    run_key,
)

OWNER = JobOwner("flight_delays_score", "score", "2013-06-01")
RUN = RunRef("scheduled__2013-06-01")
MANIFEST = JobManifest(
    dag_id=OWNER.dag_id,
    task_id=OWNER.task_id,
    run_key=OWNER.run_key,
    map_index=OWNER.map_index,
    run_id=RUN.run_id,
    clear_number=0,
    attempt=1,
    job_name="DB.SC." + OWNER.job_name(1),
    fingerprint="same",
    model="DB.SC.M",
    version_reference="default",
    version="V1",
    function="predict",
    input_location="@DB.SC.ST/in/",
    output_location="@DB.SC.ST/out/",
    input_rows=10,
    keeps_row_count=True,
)

owners = st.builds(
    JobOwner,
    dag_id=st.text(min_size=1, max_size=250),
    task_id=st.text(min_size=1, max_size=250),
    run_key=st.text(min_size=1, max_size=250),
    map_index=st.integers(-1, 10_000),
)


@given(owners, st.integers(1, 9999))
def test_a_name_is_always_a_legal_bounded_identifier(owner: JobOwner, attempt: int) -> None:
    name = owner.job_name(attempt)
    assert re.fullmatch(r"[A-Z_][A-Z0-9_]*", name)
    assert len(name) <= MAX_JOB_NAME
    assert owner.attempt_of(name) == attempt
    assert owner.job_name(attempt) == name


@given(owners, owners, st.integers(1, 9999), st.integers(1, 9999))
def test_two_owners_or_attempts_never_share_a_name(a: JobOwner, b: JobOwner, m: int, n: int) -> None:
    assert (a.job_name(m) == b.job_name(n)) == ((a, m) == (b, n))
    if a != b:
        assert a.attempt_of(b.job_name(n)) is None


def test_a_name_is_readable_in_front() -> None:
    assert OWNER.job_name(3).startswith("SNOWML_FLIGHT_DELAYS_SCORE_SCO")
    assert "_20130601_" in OWNER.job_name(3)


def test_run_key_prefers_partition_then_interval_then_run() -> None:
    start = datetime(2013, 6, 1, tzinfo=UTC)
    assert run_key(partition_key="2013-06-01", data_interval_start=start, run_id="r") == "2013-06-01"
    assert run_key(partition_key=None, data_interval_start=start, run_id="r") == "2013-06-01T00:00:00+00:00"
    assert run_key(partition_key=None, data_interval_start=None, run_id="r") == "r"


def test_manifest_survives_its_file_and_anything_else_is_none() -> None:
    assert JobManifest.from_json(MANIFEST.to_json().encode()) == MANIFEST
    for text in (b"", b"{}", b"[1]", b"\xff", b"null"):
        assert JobManifest.from_json(text) is None


def test_fingerprint_does_not_depend_on_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def decided(*attempts: Attempt, run: RunRef = RUN, work: str = "same", **options: str) -> tuple[Action, int]:
    decision = decide(owner=OWNER, run=run, job_fingerprint=work, attempts=attempts, **options)  # type: ignore[arg-type]
    return decision.action, decision.attempt


SUBMIT, RESUBMIT, ATTACH = Action.SUBMIT, Action.RESUBMIT, Action.ATTACH
REPLACE, WAIT, CONFLICT, FOREIGN = Action.REPLACE, Action.WAIT, Action.CONFLICT, Action.FOREIGN
CLEARED = RunRef(RUN.run_id, 1)
OTHER = RunRef("backfill__2013-06-01")

# What a status of the job means to: a retry; a cleared try; another run, that fails, waits or replaces on
# conflict.
TABLE: dict[str | None, tuple[tuple[Action, int], ...]] = {
    "PENDING": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "RUNNING": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "SUSPENDING": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "SUSPENDED": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "DELETING": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "NEVER_SEEN_BEFORE": ((ATTACH, 1), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "CANCELLING": ((REPLACE, 2), (REPLACE, 2), (CONFLICT, 1), (WAIT, 1), (REPLACE, 2)),
    "DONE": ((ATTACH, 1), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
    "FAILED": ((SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
    "INTERNAL_ERROR": ((SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
    "CANCELLED": ((SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
    "DELETED": ((SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
    None: ((RESUBMIT, 1), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2), (SUBMIT, 2)),
}


@pytest.mark.parametrize("status", TABLE, ids=str)
def test_decision_by_status(status: str | None) -> None:
    attempt = Attempt(1, status, MANIFEST)
    assert (
        decided(attempt),
        decided(attempt, run=CLEARED),
        decided(attempt, run=OTHER),
        decided(attempt, run=OTHER, on_conflict="wait"),
        decided(attempt, run=OTHER, on_conflict="replace"),
    ) == TABLE[status]


def test_the_table_has_every_known_status() -> None:
    assert set(TABLE) >= KNOWN


def test_first_attempt() -> None:
    assert decided() == (SUBMIT, 1)


def test_the_latest_attempt_decides() -> None:
    later = replace(MANIFEST, attempt=12)
    assert decided(Attempt(12, "RUNNING", later), Attempt(9, "FAILED", MANIFEST)) == (ATTACH, 12)


def test_a_job_without_our_manifest_is_foreign_whatever_its_status() -> None:
    for status in TABLE:
        if status is not None:
            assert decided(Attempt(1, status)) == (FOREIGN, 1)
    theirs = replace(MANIFEST, task_id="another")
    assert decided(Attempt(1, "DONE", theirs)) == (FOREIGN, 1)


def test_leavings_of_a_crash() -> None:
    assert decided(Attempt(1)) == (SUBMIT, 1)  # an input without manifest: not complete
    assert decided(Attempt(1, has_output=True)) == (SUBMIT, 2)
    assert decided(Attempt(1, None, MANIFEST, has_output=True)) == (SUBMIT, 2)
    assert decided(Attempt(1, None, MANIFEST, has_output=True, has_success=True)) == (ATTACH, 1)


def test_changed_arguments_end_the_old_job() -> None:
    assert decided(Attempt(1, "RUNNING", MANIFEST), work="other") == (REPLACE, 2)
    assert decided(Attempt(1, "DONE", MANIFEST), work="other") == (SUBMIT, 2)


def test_a_try_from_before_the_clear_leaves_the_newer_job_alone() -> None:
    newer = replace(MANIFEST, clear_number=2)
    assert decided(Attempt(1, "RUNNING", newer)) == (CONFLICT, 1)


def test_reuse_of_another_runs_result_is_opt_in() -> None:
    done = Attempt(1, "DONE", MANIFEST, has_output=True, has_success=True)
    expired = replace(done, status=None)
    assert decided(done, run=OTHER) == (SUBMIT, 2)
    assert decided(done, run=OTHER, on_rerun="reuse") == (ATTACH, 1)
    assert decided(expired, run=OTHER, on_rerun="reuse") == (ATTACH, 1)
    assert decided(done, run=OTHER, work="other", on_rerun="reuse") == (SUBMIT, 2)
    assert decided(replace(done, status="FAILED"), run=OTHER, on_rerun="reuse") == (SUBMIT, 2)


statuses = st.sampled_from([*TABLE, "WHATEVER"])
manifests = st.none() | st.builds(
    lambda run, clear, work, owner: replace(
        MANIFEST, run_id=run, clear_number=clear, fingerprint=work, task_id=owner
    ),
    st.sampled_from([RUN.run_id, OTHER.run_id]),
    st.integers(0, 2),
    st.sampled_from(["same", "other"]),
    st.sampled_from([OWNER.task_id, "another"]),
)
attempts = st.builds(Attempt, st.integers(1, 5), statuses, manifests, st.booleans(), st.booleans())


@given(
    st.lists(attempts, max_size=4),
    st.integers(0, 2),
    st.sampled_from(["fail", "wait", "replace"]),
    st.sampled_from(["replace", "reuse"]),
)
def test_never_a_second_live_job(found: list[Attempt], clear: int, conflict: str, rerun: str) -> None:
    action, number = decided(*found, run=RunRef(RUN.run_id, clear), on_conflict=conflict, on_rerun=rerun)
    latest = max(found, key=lambda attempt: attempt.number, default=None)
    if latest is None:
        assert (action, number) == (SUBMIT, 1)
        return
    if action is SUBMIT:
        assert latest.status is None or latest.status in ENDED
        assert number == latest.number + 1 or (number == latest.number and latest.status is None)
    if action is RESUBMIT:
        assert latest.status is None and latest.manifest is not None
    if action in (ATTACH, RESUBMIT):
        assert number == latest.number
        assert latest.manifest is not None and latest.manifest.fingerprint == "same"
    if action is REPLACE:
        assert number == latest.number + 1
        assert latest.manifest is not None and latest.manifest.owner == OWNER
