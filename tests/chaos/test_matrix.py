"""The crash matrix, bounded: a few crash points of each operator. ``make chaos`` runs all of them."""

from __future__ import annotations

import threading
import time

import pytest
from matrix import Case, matrix, mutate, sample
from model_subjects import OfModel
from retirement_subjects import RunSchema
from subjects import SUBJECTS
from world import SCHEMA

# All lives are lived in one fixture, and each test would wait for it in vain on a slow machine.
pytestmark = pytest.mark.timeout(1800)

# What is much like another one is left to `make chaos`.
SELDOM = (
    "register_first",
    "register_replacing_only",
    "register_reusing",
    "promote_bare",
    "promote_copy_first",
)
KILLED = [name for name, subject in SUBJECTS.items() if not subject.bad_day and name not in SELDOM]
BAD_DAYS = [name for name, subject in SUBJECTS.items() if subject.bad_day and "slow" not in name]
MOST = 2  # cases of each,
MOST_OF_A_MODEL = 1  # and of those of a model's life


@pytest.fixture(scope="module")
def chaos(control, tmp_path_factory):
    with matrix(control, tmp_path_factory.mktemp("matrix")) as it:
        yield it


@pytest.fixture(scope="module")
def lived(chaos) -> dict[str, list[Case]]:
    """All in one go, so that none waits for the last one of another's."""
    chaos.live_without_crash(KILLED)
    cases = [case for name in KILLED for case in sample(chaos.points(name), most_of(name))]
    cases = list(chaos.run_all([*cases, *(Case(name) for name in BAD_DAYS)]))
    print(f"{len(cases)} cases, {sum(case.crashed for case in cases)} crashes")
    return {name: [case for case in cases if case.subject == name] for name in SUBJECTS}


def most_of(subject: str) -> int:
    return MOST_OF_A_MODEL if issubclass(SUBJECTS[subject], OfModel | RunSchema) else MOST


def violations(cases: list[Case]) -> list[str]:
    return [f"{case}: {'; '.join(case.violations)}" for case in cases if case.violations]


@pytest.mark.parametrize("subject", KILLED)
def test_a_process_that_dies_leaves_nothing_that_its_successor_does_not_put_right(lived, subject) -> None:
    assert lived[subject]
    assert violations(lived[subject]) == []


@pytest.mark.parametrize("subject", BAD_DAYS)
def test_what_goes_wrong_without_a_crash(lived, subject) -> None:
    assert violations(lived[subject]) == []


def test_a_server_that_is_killed_and_comes_back_ends_no_wait(chaos) -> None:
    control, cases = chaos.control, [Case("batch_slow"), Case("batch_slow_deferred")]
    lives = threading.Thread(target=lambda: list(chaos.run_all(cases)))
    lives.start()
    deadline = time.monotonic() + 120

    def is_running(case: Case) -> bool:
        jobs = f"SHOW JOB SERVICES LIKE 'SNOWML%{case.name}%' IN SCHEMA {SCHEMA}"
        return bool(case.name) and [row["status"] for row in control.rows(jobs)] == ["RUNNING"]

    while not all(is_running(case) for case in cases):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    control.local.kill()
    control.local.restart()
    control.connect()
    lives.join()
    assert [case.violations for case in cases] == [[], []]


@pytest.mark.parametrize("name", ["manifest_first", "one_transaction", "default_first"])
def test_the_matrix_notices_a_protection_that_is_gone(chaos, name) -> None:
    """The others: ``make chaos CHAOS_ARGS=--mutations``."""
    assert mutate(chaos, [name], whole=False)
