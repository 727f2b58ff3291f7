from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

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

# Airflow's own limit is 250; letters of any script, and nothing but signs.
texts = st.text(min_size=1, max_size=250) | st.sampled_from(
    ["x" * 250, "ß" * 250, "日次_スコア", "...", "'; --"]
)
owners = st.builds(
    JobOwner,
    dag_id=texts,
    task_id=texts,
    run_key=texts,
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


@given(owners, st.sampled_from(["dag_id", "task_id", "run_key", "map_index"]))
def test_owners_that_differ_in_one_thing_differ_in_name(owner: JobOwner, field: str) -> None:
    value = getattr(owner, field)
    other = replace(owner, **{field: value + 1 if field == "map_index" else value + "_"})
    assert other.stem != owner.stem
    assert replace(owner).stem == owner.stem


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
    replaced = MANIFEST.replaced_by(RunRef("other"))
    assert JobManifest.from_json(replaced.to_json()) == replaced
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

# What a try does about attempt 1, by what is seen of it (rows) and whose it is (columns):
#
#   retry          of the same run, not cleared since, for the same work
#   changed        the same, but for other work
#   cleared        of the same run, which was cleared since
#   stale          of a newer try of the run, which was cleared since this one began
#   r.             of another run of the same key, with on_conflict="fail", "wait" or "replace"
#   reuse          of another run, with on_rerun="reuse"; reuse.changed: for other work
#   foreign        of another task
#   none           there is no manifest
#   out            of a run whose job another run has ended, or is about to
#
# A1 attach to it; S2 submit the next attempt; S1 the same one again, from its input on; R1 submit it from the
# input that is there; X2 end it, then submit the next one; W1 wait for its end; C1 conflict; F1 not ours; E1
# stay away.
ALL = (SUBMIT, RESUBMIT, ATTACH, REPLACE, WAIT, CONFLICT, FOREIGN, Action.REPLACED)
ACTIONS = dict(zip("SRAXWCFE", ALL, strict=True))
TABLE = """
                      retry changed cleared stale r.fail r.wait r.replace reuse reuse.changed foreign none out
PENDING               A1    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
RUNNING               A1    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
SUSPENDING            A1    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
SUSPENDED             A1    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
DELETING              X2    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
NEVER_SEEN_BEFORE     A1    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
CANCELLING            X2    X2      X2      C1    C1     W1     X2        C1    C1            F1      F1   E1
DONE                  A1    S2      S2      C1    S2     S2     S2        A1    S2            F1      S2   E1
FAILED                S2    S2      S2      C1    S2     S2     S2        S2    S2            F1      S2   E1
INTERNAL_ERROR        S2    S2      S2      C1    S2     S2     S2        S2    S2            F1      S2   E1
CANCELLED             S2    S2      S2      C1    S2     S2     S2        S2    S2            F1      S2   E1
DELETED               S2    S2      S2      C1    S2     S2     S2        S2    S2            F1      S2   E1
not_found             R1    S2      S2      C1    S2     S2     S2        S2    S2            F1      S1   E1
not_found+output      S2    S2      S2      C1    S2     S2     S2        S2    S2            F1      S2   E1
not_found+_SUCCESS    A1    S2      S2      C1    S2     S2     S2        A1    S2            F1      S2   E1
"""
COLUMNS: dict[str, tuple[JobManifest | None, dict[str, Any]]] = {
    "retry": (MANIFEST, {}),
    "changed": (MANIFEST, {"work": "other"}),
    "cleared": (MANIFEST, {"run": CLEARED}),
    "stale": (replace(MANIFEST, clear_number=1), {}),
    "r.fail": (MANIFEST, {"run": OTHER}),
    "r.wait": (MANIFEST, {"run": OTHER, "on_conflict": "wait"}),
    "r.replace": (MANIFEST, {"run": OTHER, "on_conflict": "replace"}),
    "reuse": (MANIFEST, {"run": OTHER, "on_rerun": "reuse"}),
    "reuse.changed": (MANIFEST, {"run": OTHER, "on_rerun": "reuse", "work": "other"}),
    "foreign": (replace(MANIFEST, task_id="another"), {}),
    "none": (None, {}),
    "out": (MANIFEST.replaced_by(OTHER), {"on_conflict": "replace"}),
}
HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = [(row[0], column, cell) for row in ROWS for column, cell in zip(HEAD, row[1:], strict=True)]


@pytest.mark.parametrize(("seen", "whose", "cell"), CELLS, ids=[f"{s}-{w}" for s, w, _ in CELLS])
def test_the_decision(seen: str, whose: str, cell: str) -> None:
    status, _, files = seen.partition("+")
    manifest, options = COLUMNS[whose]
    wanted = ACTIONS[cell[0]], int(cell[1])
    if status == "not_found":
        attempt = Attempt(1, None, manifest, has_output=bool(files), has_success=files == "_SUCCESS")
        assert decided(attempt, **options) == wanted
        return
    # A job that is there says itself how it is: its files add nothing.
    for has_output, has_success in ((False, False), (True, False), (True, True)):
        assert decided(Attempt(1, status, manifest, has_output, has_success), **options) == wanted


def test_the_table_is_whole() -> None:
    assert {row[0] for row in ROWS} >= KNOWN
    assert set(HEAD) == set(COLUMNS)


def test_first_attempt() -> None:
    assert decided() == (SUBMIT, 1)


def test_of_two_runs_that_replace_each_other_the_first_stays_away_until_it_is_cleared() -> None:
    """It finds the other's job, or its own that is about to be ended; in later attempts it is remembered."""
    ended = MANIFEST.replaced_by(OTHER)
    others = replace(MANIFEST, run_id=OTHER.run_id, attempt=2, replaced=ended.replaced)
    both = {"on_conflict": "replace"}
    assert decided(Attempt(2, "RUNNING", others), run=RUN, **both)[0] is Action.REPLACED
    assert decided(Attempt(2, "DONE", others), run=RUN, **both)[0] is Action.REPLACED
    assert decided(Attempt(2, "RUNNING", others), run=OTHER, **both) == (ATTACH, 2)
    assert decided(Attempt(2, "RUNNING", others), run=CLEARED, **both) == (REPLACE, 3)
    back = replace(MANIFEST, clear_number=1, attempt=3, replaced=others.replaced_by(CLEARED).replaced)
    assert decided(Attempt(3, "RUNNING", back), run=OTHER, **both)[0] is Action.REPLACED
    assert decided(Attempt(3, "RUNNING", back), run=CLEARED, **both) == (ATTACH, 3)


def test_the_latest_attempt_decides() -> None:
    later = replace(MANIFEST, attempt=12)
    assert decided(Attempt(12, "RUNNING", later), Attempt(9, "FAILED", MANIFEST)) == (ATTACH, 12)


statuses = st.none() | st.sampled_from([*sorted(KNOWN), "NEVER_SEEN_BEFORE"])
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
