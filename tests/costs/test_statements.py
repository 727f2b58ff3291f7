"""How many statements a run of each operator sends: the numbers may only go down."""

from __future__ import annotations

import pytest

from benchmarks import statements, waiting
from benchmarks.statements import LOOK, reason

AT_MOST = {
    "preflight": 5,
    "register": 52,
    "evaluate": 32,
    "promote": 9,
    "update": 10,
    "export": 32,
    "run_model": 32,
    "batch": 29,
    "batch_deferred": 31,
    "success_sensor": 7,
    "load": 20,
    "clean_up": 15,
    "create_service": 19,
    "service_sensor": 6,
    "suspend_idle": 8,
    "drop_service": 4,
    "create_monitor": 11,
}


@pytest.fixture(scope="module")
def sent(local_snowflake, airflow_db) -> dict[str, list[str]]:
    return statements.sent(local_snowflake)


def test_no_operator_sends_more_than_it_did(sent) -> None:
    numbers = {task: len(found) for task, found in sent.items()}
    assert numbers.keys() == AT_MOST.keys()
    too_many = {
        task: [statements.plain(text) for text in sent[task]]
        for task, number in numbers.items()
        if number > AT_MOST[task]
    }
    assert not too_many, f"{numbers}: is each of these needed?"


def test_every_statement_has_a_reason(sent) -> None:
    without = [text for found in sent.values() for text in found if not reason(text)]
    assert not without


def test_what_waits_in_the_triggerer_is_listed_not_described(sent) -> None:
    looks = [text for text in sent["batch_deferred"] if reason(text).startswith(LOOK)]
    assert sum("SHOW JOB SERVICES LIKE 'SNOWML" in text for text in looks) == 1
    # The worker's look before it defers, or into the job that has ended; never one per look.
    assert sum(text.startswith("DESCRIBE SERVICE") for text in looks) == 1


def test_tasks_that_wait_send_nothing_of_their_own(local_snowflake) -> None:
    waiting.prepare(local_snowflake)
    names = waiting.submit_jobs(local_snowflake, range(5))
    found = waiting.measure_one(local_snowflake, "ours", names, interval=1.0)
    assert found["ended"] == 0
    assert found["logins"] == 0
    assert found["others"] == 0, "something else than the one listing was sent"
    assert 1 <= found["looks"] <= found["counted_for"] + 1
