"""The example DAGs as they are parsed: cheaply, without errors, and of the shape that they describe."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pendulum
import pytest

from airflow_provider_snowml import exceptions

EXAMPLES = Path(__file__).parents[2] / "example_dags"
NAMES = [
    "champion_challenger",
    "daily_fraud_training",
    "flight_delays_load",
    "flight_delays_retrain",
    "flight_delays_score",
    "flight_delays_score_by_airport",
    "flight_delays_serve",
    "housekeeping",
    "partitioned_models",
]


def test_each_example_is_a_dag(dags):
    assert sorted(dags) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parsing_loads_no_client_and_no_data_library(name):
    code = f"import runpy, sys; runpy.run_path({str(EXAMPLES / f'{name}.py')!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    heavy = {"snowflake.ml", "snowflake.snowpark", "snowflake.connector", "pandas", "numpy", "sklearn"}
    assert not heavy & set(done.stdout.split())


def test_nothing_runs_for_today(dags):
    flown = pendulum.datetime(2014, 2, 1)
    for name in (
        "champion_challenger",
        "flight_delays_retrain",
        "flight_delays_score",
        "flight_delays_score_by_airport",
    ):
        assert dags[name].end_date < flown
        assert not dags[name].catchup
    assert dags["flight_delays_load"].schedule is None
    assert dags["flight_delays_serve"].schedule is None


def test_retraining_has_two_outcomes_and_a_schema_of_its_own(dags):
    dag = dags["flight_delays_retrain"]
    contest, promote = dag.get_task("contest"), dag.get_task("promote")
    assert contest.downstream_task_ids == {"promote", "keep_champion"}
    assert (contest.floor, contest.min_margin, contest.champion_version) == (0.58, 0.005, "champion")
    # A version is promoted by its name, and only if the contest says so.
    assert promote.upstream_task_ids == {"train", "contest"}
    drop = dag.get_task("drop_run_schema")
    assert drop.is_teardown
    # Before everything else it is known whether the role may do it.
    assert dag.roots == [dag.get_task("preflight")]
    assert drop.upstream_task_ids == {"make_run_schema", "monitor", "keep_champion"}
    assert dag.get_task("train").upstream_task_ids == {"split_flights"}
    assert dag.max_active_runs == 1


def test_a_contest_is_approved_before_it_is_promoted_and_looked_at_afterwards(dags):
    dag = dags["champion_challenger"]
    approve, roll_back = dag.get_task("approve"), dag.get_task("roll_back")
    assert dag.get_task("contest").downstream_task_ids == {"approve", "keep_champion"}
    assert approve.downstream_task_ids == {"promote"}
    # Silence is no consent, and no failure either.
    assert (approve.defaults, approve.fail_on_reject) == (["Reject"], False)
    assert approve.response_timeout == timedelta(days=2)
    assert dag.get_task("ask").version_name == "default"
    assert roll_back.upstream_task_ids == {"promote", "ask", "smoke_test"}
    assert roll_back.trigger_rule == "one_failed"
    # Without it a run that was rolled back would be green.
    assert dag.get_task("announce").upstream_task_ids == {"promote", "smoke_test"}
    assert dag.max_active_runs == 1


def test_fraud_training_judges_on_the_day_after_those_that_it_learns_from(dags):
    dag = dags["daily_fraud_training"]
    assert dag.get_task("contest").downstream_task_ids == {"mark_live", "keep_production"}
    assert dag.get_task("train").op_kwargs["training_table"].endswith(".TRAINING")
    assert dag.get_task("contest").input_table.endswith(".HELD_OUT")
    assert dag.get_task("mark_live").upstream_task_ids == {"train", "contest"}
    assert dag.get_task("drop_run_schema").is_teardown
    assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_scoring_is_a_chain_over_one_day(dags):
    dag = dags["flight_delays_score"]
    assert [task.task_id for task in dag.topological_sort()] == ["prepare", "score", "load", "clean_up"]
    assert dag.get_task("score").deferrable
    assert dag.get_task("score").max_active_tis_per_dag == 2
    assert dag.get_task("load").replace_column == "FLIGHT_DATE"
    # A load that failed leaves what it would load, and a clean-up that failed fails no run.
    assert dag.get_task("clean_up").is_teardown
    assert "load" in dag.get_task("clean_up").upstream_task_ids
    assert not dag.get_task("clean_up").on_failure_fail_dagrun


@pytest.mark.parametrize(
    ("error", "action", "seconds"),
    [
        (exceptions.InvalidNameError("x"), "fail", None),
        (exceptions.ModelVersionNotFoundError("x"), "fail", None),
        (exceptions.InsufficientPrivilegesError("x"), "fail", None),
        (exceptions.LockWaitersError("x"), "retry", 60),
        (exceptions.UnavailableError("x"), "retry", 60),
        (exceptions.StatementError("x"), "default", None),
        (exceptions.BatchJobFailedError("x"), "default", None),
        (OSError("x"), "default", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_a_retry_cannot_mend_is_not_tried_again(dags, error, action, seconds):
    for task in dags["flight_delays_score"].tasks:
        decision = task.retry_policy.evaluate(error, 1, task.retries)
        assert decision.action.value == action
        assert decision.retry_delay == (timedelta(seconds=seconds) if seconds else None)


def test_scoring_by_airport_is_a_warm_up_and_a_mapped_chain(dags):
    dag = dags["flight_delays_score_by_airport"]
    assert [task.task_id for task in dag.topological_sort()] == [
        "prepare",
        "warm_up",
        "airport.slice_of",
        "airport.score",
        "airport.load",
        "airport.clean_up",
        "sweep",
    ]
    assert dag.get_task("warm_up").max_active_tis_per_dag == 1
    assert dag.get_task("airport.slice_of").trigger_rule == "none_failed"
    # What a failed airport leaves does not stay for ever.
    written = {dag.get_task(task).output_stage_location for task in ("warm_up", "airport.score")}
    assert set(dag.get_task("sweep").expand_input.value["output_stage_location"]) == written


@pytest.mark.parametrize("day", ["None", "yesterday", "2013-02-30"])
def test_scoring_refuses_what_is_no_day(dags, day):
    with pytest.raises(exceptions.InvalidArgumentError, match="is no day"):
        dags["flight_delays_score"].get_task("prepare").python_callable(day)


def test_serving_drops_its_service_whatever_happened(dags):
    dag = dags["flight_delays_serve"]
    assert [task.task_id for task in dag.topological_sort()] == [
        "prepare",
        "serve",
        "ready",
        "compare",
        "drop",
    ]
    assert dag.get_task("prepare").is_setup
    # The setup is not what deploys: a deployment that failed is dropped as well.
    assert dag.get_task("drop").is_teardown
    assert dag.get_task("drop").service_name == "FLIGHT_DELAYS_SERVICE"
