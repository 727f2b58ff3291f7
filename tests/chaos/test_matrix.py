"""The crash matrix, bounded: a few crash points of each operator. ``make chaos`` runs all of them."""

from __future__ import annotations

import threading
import time

import pytest
from matrix import Case, Matrix, matrix, sample
from mutations import MUTATIONS
from subjects import SCHEMA, SUBJECTS

KILLED = [name for name, subject in SUBJECTS.items() if not subject.bad_day]
BAD_DAYS = [name for name in SUBJECTS if name not in KILLED and "slow" not in name]


@pytest.fixture(scope="module")
def chaos(control, tmp_path_factory):
    with matrix(control, tmp_path_factory.mktemp("matrix")) as it:
        yield it


def live(chaos: Matrix, cases: list[Case], mutation: str | None = None) -> list[str]:
    cases = list(chaos.run_all(cases, mutation))
    bad = [f"{case}: {'; '.join(case.violations)}" for case in cases if case.violations]
    print(f"{len(cases)} cases, {sum(case.crashed for case in cases)} crashes, {len(bad)} violations")
    return bad


@pytest.mark.parametrize("subject", KILLED)
def test_a_process_that_dies_leaves_nothing_that_its_successor_does_not_put_right(chaos, subject) -> None:
    assert live(chaos, sample(chaos.points(subject), few=True)) == []


def test_what_goes_wrong_without_a_crash(chaos) -> None:
    assert live(chaos, [Case(subject) for subject in BAD_DAYS]) == []


def test_a_server_that_is_killed_and_comes_back_ends_no_wait(chaos) -> None:
    control, cases = chaos.control, [Case("batch_slow"), Case("batch_slow_deferred")]
    lives = threading.Thread(target=lambda: list(chaos.run_all(cases)))
    lives.start()
    deadline = time.monotonic() + 120
    running = f"SHOW JOB SERVICES LIKE 'SNOWML%' IN SCHEMA {SCHEMA}"
    while [row["status"] for row in control.rows(running)].count("RUNNING") < len(cases):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    control.local.kill()
    control.local.restart()
    control.connect()
    lives.join()
    assert [case.violations for case in cases] == [[], []]


@pytest.mark.parametrize("name", ["manifest_first", "one_transaction"])
def test_the_matrix_notices_a_protection_that_is_gone(chaos, name) -> None:
    """The others: ``make chaos CHAOS_ARGS=--mutations``."""
    subject = MUTATIONS[name].subjects[0]
    assert live(chaos, sample(chaos.points(subject, name), few=True), name) != []
