from __future__ import annotations

import pytest

from airflow_provider_snowml.core.batch_job import KNOWN
from airflow_provider_snowml.core.batch_poller import Limits, Observation, Outcome, Poller, Statement

NO_LIMIT = Limits(grace=30, max_errors=3)


def test_errors_must_be_many_and_last() -> None:
    patient = Poller(Limits(max_errors=3, error_grace=60))
    looks = [(0.0, "x"), (5.0, "x"), (10.0, "x"), (59.0, "x")]
    assert outcomes(patient, *looks) == [Outcome.WAIT] * 4
    elsewhere = Poller(patient.limits, memory=patient.memory)
    assert outcomes(elsewhere, (61.0, "x")) == [Outcome.POLL_ERRORS]
    assert outcomes(patient, (60.0, Observation("RUNNING")), (61.0, "x")) == [Outcome.WAIT] * 2


def outcomes(poller: Poller, *looks: tuple[float, Observation | str]) -> list[Outcome]:
    return [
        (poller.failed(seen, now) if isinstance(seen, str) else poller.observed(seen, now)).outcome
        for now, seen in looks
    ]


# What a look means, by what it saw (rows; without a job, also how its statement is doing) and when:
#
#   at_first     for the first time, with no limit        after_grace  again, after the grace
#   start_late   after the deadline for its start         late         after the deadline for its end
#   path_only    where only _SUCCESS is waited for
TABLE = """
                             at_first      after_grace   start_late    late          path_only
PENDING                      -             -             START_TIMEOUT TIMEOUT       -
PENDING+_SUCCESS             -             -             START_TIMEOUT TIMEOUT       SUCCEEDED
RUNNING                      -             -             -             TIMEOUT       -
RUNNING+_SUCCESS             -             -             -             TIMEOUT       SUCCEEDED
SUSPENDING                   -             -             -             TIMEOUT       -
SUSPENDING+_SUCCESS          -             -             -             TIMEOUT       SUCCEEDED
SUSPENDED                    -             -             -             TIMEOUT       -
SUSPENDED+_SUCCESS           -             -             -             TIMEOUT       SUCCEEDED
CANCELLING                   -             -             -             TIMEOUT       -
CANCELLING+_SUCCESS          -             -             -             TIMEOUT       SUCCEEDED
DELETING                     -             -             -             TIMEOUT       -
DELETING+_SUCCESS            -             -             -             TIMEOUT       SUCCEEDED
NEVER_SEEN_BEFORE            -             -             -             TIMEOUT       -
NEVER_SEEN_BEFORE+_SUCCESS   -             -             -             TIMEOUT       SUCCEEDED
DONE                         -             INCOMPLETE    -             TIMEOUT       -
DONE+_SUCCESS                SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED
FAILED                       FAILED        FAILED        FAILED        FAILED        -
FAILED+_SUCCESS              FAILED        FAILED        FAILED        FAILED        SUCCEEDED
INTERNAL_ERROR               FAILED        FAILED        FAILED        FAILED        -
INTERNAL_ERROR+_SUCCESS      FAILED        FAILED        FAILED        FAILED        SUCCEEDED
CANCELLED                    CANCELLED     CANCELLED     CANCELLED     CANCELLED     -
CANCELLED+_SUCCESS           CANCELLED     CANCELLED     CANCELLED     CANCELLED     SUCCEEDED
DELETED                      CANCELLED     CANCELLED     CANCELLED     CANCELLED     -
DELETED+_SUCCESS             CANCELLED     CANCELLED     CANCELLED     CANCELLED     SUCCEEDED
not_found,running            -             -             START_TIMEOUT TIMEOUT       -
not_found,succeeded          -             LOST          START_TIMEOUT TIMEOUT       -
not_found,failed             FAILED        FAILED        FAILED        FAILED        -
not_found,unknown            -             LOST          START_TIMEOUT TIMEOUT       -
not_found+_SUCCESS,running   -             -             START_TIMEOUT TIMEOUT       SUCCEEDED
not_found+_SUCCESS,succeeded SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED
not_found+_SUCCESS,failed    SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED
not_found+_SUCCESS,unknown   SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED     SUCCEEDED
"""
WHEN: dict[str, tuple[Limits, tuple[float, ...]]] = {
    "at_first": (Limits(grace=30), (0,)),
    "after_grace": (Limits(grace=30), (0, 30)),
    "start_late": (Limits(start_deadline=10), (10,)),
    "late": (Limits(deadline=10), (10,)),
    "path_only": (Limits(grace=0), (0, 1)),
}
HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = [(row[0], when, cell) for row in ROWS for when, cell in zip(HEAD, row[1:], strict=True)]


@pytest.mark.parametrize(("saw", "when", "cell"), CELLS, ids=[f"{s}-{w}" for s, w, _ in CELLS])
def test_the_judgement(saw: str, when: str, cell: str) -> None:
    what, _, statement = saw.partition(",")
    status, _, success = what.partition("+")
    seen = Observation(
        None if status == "not_found" else status, bool(success), Statement(statement or "unknown")
    )
    limits, nows = WHEN[when]
    found = outcomes(Poller(limits, path_only=when == "path_only"), *((now, seen) for now in nows))
    assert found[-1] is (Outcome.WAIT if cell == "-" else Outcome[cell])


def test_the_table_is_whole() -> None:
    rows = {row[0] for row in ROWS}
    assert rows >= {status + success for status in KNOWN for success in ("", "+_SUCCESS")}
    assert rows >= {f"not_found{success},{one}" for one in Statement for success in ("", "+_SUCCESS")}


def test_unknown_status_is_waited_on_and_said() -> None:
    assert "does not know" in Poller(NO_LIMIT).observed(Observation("ODD"), 0).detail


def test_both_orders_of_done_and_success() -> None:
    running, done = Observation("RUNNING", False), Observation("DONE", False)
    assert outcomes(Poller(NO_LIMIT), (0, running), (1, done), (20, Observation("DONE", True))) == [
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.SUCCEEDED,
    ]
    assert outcomes(Poller(NO_LIMIT), (0, Observation("RUNNING", True)), (1, Observation("DONE", True))) == [
        Outcome.WAIT,
        Outcome.SUCCEEDED,
    ]


def test_done_without_success_fails_after_the_grace() -> None:
    done = Observation("DONE", False)
    assert outcomes(Poller(NO_LIMIT), (0, done), (29, done), (30, done)) == [
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.INCOMPLETE,
    ]


def test_statement_first_then_job() -> None:
    building = Observation(statement=Statement.RUNNING)
    poller = Poller(NO_LIMIT)
    assert outcomes(
        poller,
        (0, building),
        (1000, building),
        (1001, Observation("PENDING")),
        (1002, Observation("DONE", True)),
    ) == [Outcome.WAIT, Outcome.WAIT, Outcome.WAIT, Outcome.SUCCEEDED]


def test_failed_statement_says_why_unless_the_job_is_there() -> None:
    failed = Observation(statement=Statement.FAILED, statement_error="no such pool")
    verdict = Poller(NO_LIMIT).observed(failed, 0)
    assert verdict.outcome is Outcome.FAILED
    assert "no such pool" in verdict.detail
    lost_the_race = Observation("RUNNING", statement=Statement.FAILED, statement_error="already exists")
    assert Poller(NO_LIMIT).observed(lost_the_race, 0).outcome is Outcome.WAIT


def test_missing_job_is_lost_after_the_grace_only() -> None:
    gone = Observation(statement=Statement.SUCCEEDED)
    assert outcomes(
        Poller(NO_LIMIT), (0, gone), (10, Observation("PENDING")), (11, gone), (40, gone), (41, gone)
    ) == [
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.LOST,
    ]


def test_errors_in_a_row_fail_the_wait_and_a_good_look_forgives() -> None:
    running = Observation("RUNNING")
    assert outcomes(Poller(NO_LIMIT), (0, "e"), (1, "e"), (2, running), (3, "e"), (4, "e"), (5, "e")) == [
        *[Outcome.WAIT] * 5,
        Outcome.POLL_ERRORS,
    ]


def test_timeouts() -> None:
    limits = Limits(start_deadline=10, deadline=100)
    pending, running = Observation("PENDING"), Observation("RUNNING")
    building = Observation(statement=Statement.RUNNING)
    assert outcomes(Poller(limits), (9, building), (10, building))[-1] is Outcome.START_TIMEOUT
    assert outcomes(Poller(limits), (9, pending), (10, pending))[-1] is Outcome.START_TIMEOUT
    assert outcomes(Poller(limits), (9, running), (10, running), (99, running), (100, running))[1:] == [
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.TIMEOUT,
    ]
    assert outcomes(Poller(limits), (5, running), (50, "e"), (100, "e"))[-1] is Outcome.TIMEOUT
    assert outcomes(Poller(limits), (200, Observation("DONE", True))) == [Outcome.SUCCEEDED]


def test_a_late_look_that_fails_does_not_say_that_the_job_is_late() -> None:
    """Whoever attaches to a job that has had its time may find that it ended well."""
    limits = Limits(start_deadline=10, deadline=100, max_errors=5)
    assert outcomes(Poller(limits), (200, "e"), (201, Observation("DONE", True))) == [
        Outcome.WAIT,
        Outcome.SUCCEEDED,
    ]
    assert outcomes(Poller(limits), (20, "e"), (21, Observation("RUNNING"))) == [Outcome.WAIT] * 2
    assert outcomes(Poller(limits), (5, Observation("PENDING")), (20, "e")) == [Outcome.WAIT] * 2


def test_path_alone_ignores_every_status_and_start() -> None:
    poller = Poller(Limits(start_deadline=0, deadline=100, grace=1), path_only=True)
    assert outcomes(poller, (5, Observation()), (50, Observation()), (60, Observation(success=True))) == [
        Outcome.WAIT,
        Outcome.WAIT,
        Outcome.SUCCEEDED,
    ]
