from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobConflictError,
    BatchJobOwnershipError,
    InvalidArgumentError,
    StageNotFoundError,
)
from airflow_provider_snowml.hooks.batch_jobs import input_directory, manifest_of_output
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.batch_submission import STATE_KEY
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLCleanUpBatchOperator,
    SnowMLLoadPredictionsOperator,
)

NOTHING = {"attempts": 0, "jobs": 0, "files": 0, "left_alone": 0}


def batch(task_id: str, **arguments: Any) -> SnowMLBatchInferenceOperator:
    defaults: dict[str, Any] = {
        "model_name": "M",
        "function_name": "predict",
        "input_query": "SELECT * FROM X WHERE ID < 5",
        "compute_pool": "TEST_POOL",
        "output_stage_location": f"@ST/{task_id}",
        "poll_interval": 0.2,
    }
    return SnowMLBatchInferenceOperator(task_id=task_id, **{**defaults, **arguments})


def empty(task_id: str, **arguments: Any) -> SnowMLBatchInferenceOperator:
    """A result that needs no job, and so little time."""
    none = "SELECT * FROM X WHERE ID < 0"
    return batch(task_id, **{"input_query": none, "on_empty": "replace", **arguments})


def clean_up(**arguments: Any) -> SnowMLCleanUpBatchOperator:
    return SnowMLCleanUpBatchOperator(task_id="clean_up", **arguments)


def files(scoring, task_id: str) -> list[str]:
    hook = scoring.hook()
    with hook.open_connection():
        root = StageLocation.parse("@ST", hook.default_schema())
        return [*hook.files(root, f"{task_id}/"), *hook.files(root, f"{task_id}_snowml_input/")]


class Crash(BaseException):
    """The worker is gone."""


@pytest.fixture
def crash_after_one_step(monkeypatch):
    """The next statement that changes something is the last that is sent."""
    real = SnowMLHook.rows
    sent: list[str] = []

    def rows(self: SnowMLHook, sql: str, **options: Any) -> Any:
        result = real(self, sql, **options)
        if sql.startswith(("DROP", "PUT", "REMOVE")):
            sent.append(sql)
            raise Crash
        return result

    def run(task: SnowMLCleanUpBatchOperator, context: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(SnowMLHook, "rows", rows)
            return task.execute(context)

    run.sent = sent
    return run


def test_a_crash_after_any_step_is_finished_by_a_retry(scoring, task_context, crash_after_one_step) -> None:
    store = task_context.store()
    context = task_context("steps", store=store)
    result = batch("steps").execute(context)
    again = batch("steps", plan_only=True)
    location = result["job_output_location"]
    plans = []
    for _ in range(20):
        try:
            summary = crash_after_one_step(clean_up(job_output_location=location), context)
        except Crash:
            planned = again.execute(context)
            plans.append((planned["action"], planned["attempt"]))
        else:
            break
    steps = [statement.split(" ", 1)[0] for statement in crash_after_one_step.sent]
    assert steps == ["DROP", "PUT", "REMOVE", "REMOVE", "REMOVE", "REMOVE", "REMOVE"]
    # The finished result as long as it is whole, then never that attempt while a file of it is left.
    assert plans == [("attach", 1)] * 2 + [("submit", 2)] * 3 + [("submit", 1)] * 2
    assert summary == NOTHING
    assert files(scoring, "steps") == []
    assert scoring.hook().job_status(QualifiedName.parse(result["job_name"])) is None
    # And what comes then is another job, by a name that is free again.
    assert batch("steps").execute(task_context("steps", store=store, clear_number=1))["attempt"] == 1


@pytest.mark.parametrize("loads", [True, False], ids=["loaded", "not-loaded"])
def test_as_a_teardown_it_removes_what_was_loaded(scoring, run_dag, loads) -> None:
    with DAG(f"teardown_{loads}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        score = empty(f"teardown_{loads}")
        load = SnowMLLoadPredictionsOperator(
            task_id="load",
            job_output_location=score.output["job_output_location"],
            output_table="TORN_DOWN",
            replace_column="DAY",
            replace_value="2013-06-01",
            expected_rows=0 if loads else 1,
        )
        tear_down = clean_up(job_output_location=score.output["job_output_location"])
        score >> load >> tear_down.as_teardown(setups=score)
    run, xcoms = run_dag(dag)
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    if loads:
        assert (run.state, states["clean_up"]) == ("success", "success")
        assert xcoms["clean_up"] == {"attempts": 1, "jobs": 0, "files": 2, "left_alone": 0}
        assert files(scoring, "teardown_True") == []
    else:
        assert (run.state, states["clean_up"]) == ("failed", "skipped")
        assert len(files(scoring, "teardown_False")) == 2


def test_in_a_mapped_task_group_each_looks_at_its_own_load(scoring, run_dag) -> None:
    with DAG("mapped_teardown", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:

        @task_group
        def part(expected: int):
            score = empty("mapped")
            load = SnowMLLoadPredictionsOperator(
                task_id="load",
                job_output_location=score.output["job_output_location"],
                output_table="TORN_DOWN",
                replace_column="DAY",
                replace_value="2013-06-01",
                expected_rows=expected,
            )
            tear_down = clean_up(job_output_location=score.output["job_output_location"])
            score >> load >> tear_down.as_teardown(setups=score)

        part.expand(expected=[0, 1])
    run, _ = run_dag(dag)
    states = {(ti.task_id, ti.map_index): ti.state for ti in run.get_task_instances()}
    assert [states["part.load", index] for index in (0, 1)] == ["success", "failed"]
    assert [states["part.clean_up", index] for index in (0, 1)] == ["success", "skipped"]
    assert len(files(scoring, "mapped")) == 2


def test_in_a_mapped_task_group_the_siblings_may_be_slower(scoring, run_dag) -> None:
    with DAG("unequal", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:

        @task(retries=1, retry_delay=timedelta(0))
        def loaded(way: str, ti=None) -> None:
            if way == "slow" and ti.try_number == 1:
                raise RuntimeError("It is up for retry while the others are cleaned up.")
            if way == "skipped":
                raise AirflowSkipException

        @task_group
        def part(way: str):
            score = empty("unequal")
            tear_down = clean_up(job_output_location=score.output["job_output_location"])
            [score >> loaded(way), before] >> tear_down.as_teardown(setups=score)

        before = EmptyOperator(task_id="before")  # outside of the group, so of no index
        part.expand(way=["fast", "slow", "skipped"])
    run, _ = run_dag(dag)
    states = {(ti.task_id, ti.map_index): ti.state for ti in run.get_task_instances()}
    assert [states["part.clean_up", index] for index in range(3)] == ["success", "success", "skipped"]
    assert len(files(scoring, "unequal")) == 2


def test_earlier_attempts_go_with_the_loaded_one(scoring, task_context) -> None:
    results = [empty("earlier").execute(task_context("earlier", clear_number=n)) for n in range(3)]
    assert [result["attempt"] for result in results] == [1, 2, 3]
    context = task_context("clean_up", clear_number=2)
    second = clean_up(job_output_location=results[1]["job_output_location"])
    third = clean_up(job_output_location=results[2]["job_output_location"])
    assert second.execute(context) == {"attempts": 2, "jobs": 0, "files": 4, "left_alone": 0}
    assert {path.split("/")[1][-3:] for path in files(scoring, "earlier")} == {"_A3"}
    assert second.execute(context) == NOTHING
    with pytest.raises(BatchJobConflictError, match="newer try"):
        third.execute(task_context("clean_up", clear_number=1))
    assert third.execute(context)["attempts"] == 1
    assert files(scoring, "earlier") == []


def test_what_lives_or_is_not_this_dags_is_left_alone(scoring, task_context) -> None:
    context = task_context("clean_up")
    store = task_context.store()
    first = empty("alive").execute(task_context("alive", store=store))
    assert clean_up(job_output_location=first["job_output_location"]).execute(context)["attempts"] == 1
    # What the task remembers of a job whose name is free again does not count.
    name = f"{scoring.schema}.{first['job_output_location'].split('/')[-2]}"
    store.set(STATE_KEY, {**store.get(STATE_KEY), "job_name": name, "query_id": "x", "rejected": name})
    slow = batch("alive", model_name="SLOW", input_query="SELECT 60::FLOAT AS F1", wait_for_completion=False)
    result = slow.execute(task_context("alive", store=store))
    slow.plan_only = True
    planned = slow.execute(task_context("alive", store=store))
    assert (planned["action"], planned["job_name"]) == ("attach", name)
    location, job = result["job_output_location"], QualifiedName.parse(name)
    with pytest.raises(BatchJobConflictError, match=r"is (PENDING|RUNNING|about to start)"):
        clean_up(job_output_location=location).execute(context)
    sweep = clean_up(output_stage_location="@ST/alive", older_than=0)
    assert sweep.execute(context) == {**NOTHING, "left_alone": 1}
    hook = scoring.hook()
    deadline = time.monotonic() + 180
    while hook.job_status(job) is None:  # its image may have to be built
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert hook.job_status(job) in ("PENDING", "RUNNING")

    # As soon as it has ended: a cancelled one, too.
    other = task_context("clean_up")
    other["ti"].dag_id = "other"
    hook.cancel_job(job)
    with pytest.raises(BatchJobOwnershipError, match=r"bad_day\.alive for 2013-06-01's.*of DAG other"):
        clean_up(job_output_location=location).execute(other)
    assert sweep.execute(other) == {**NOTHING, "left_alone": 1}
    summary = sweep.execute(context)
    assert (summary["attempts"], summary["jobs"], summary["left_alone"]) == (1, 1, 0)
    assert hook.job_status(job) is None
    assert files(scoring, "alive") == []


def test_a_sweep_goes_by_age_and_never_past_a_younger_attempt(scoring, task_context) -> None:
    for n in range(2):
        empty("swept").execute(task_context("swept", clear_number=n))
    empty("swept").execute(task_context("swept", partition_key="2013-06-02"))
    hook = scoring.hook()
    with hook.open_connection():
        base = StageLocation.parse("@ST/swept", hook.default_schema())
        hook.write_file(base / "SNOWML_STRANGER_A1", "part.parquet", b"")
        hook.write_file(base / "mine", "notes.txt", b"")
    context = task_context("sweep")
    old = clean_up(output_stage_location="@ST/swept/", older_than=timedelta(days=1))
    assert old.execute(context) == {**NOTHING, "left_alone": 4}
    every = clean_up(output_stage_location="@ST/swept/", older_than="0", job_dag_id="bad_day")
    # Another DAG looks after them only if it says whose they are, and plans if it is told to.
    housekeeping = task_context("sweep")
    housekeeping["ti"].dag_id = "housekeeping"
    strangers = clean_up(output_stage_location="@ST/swept/", older_than="0")
    assert strangers.execute(housekeeping) == {**NOTHING, "left_alone": 4}
    every.plan_only = "True"
    before = files(scoring, "swept")
    planned = every.execute(housekeeping)
    assert files(scoring, "swept") == before
    every.plan_only = "False"
    assert every.execute(housekeeping) == planned
    assert planned == {"attempts": 3, "jobs": 0, "files": 6, "left_alone": 1}
    left = [path.split("/", 1)[1] for path in files(scoring, "swept")]
    assert left == ["SNOWML_STRANGER_A1/part.parquet", "mine/notes.txt"]


def test_a_manifest_of_elsewhere_or_none_proves_nothing(scoring, task_context) -> None:
    result = empty("claimed").execute(task_context("claimed"))
    hook = scoring.hook()
    with hook.open_connection():
        location = StageLocation.parse(result["job_output_location"])
        manifest = manifest_of_output(hook, location)
        claimed = location.path.rsplit("/", 2)[1].replace("_A1", "_A7")
        base = StageLocation.parse("@ST/claimed", hook.default_schema())
        hook.write_file(base / claimed, "_SUCCESS", b"")
        task = clean_up(job_output_location=(base / claimed).sql)
        for prepare in (
            lambda: None,
            lambda: hook.write_file(input_directory(base, claimed), "manifest.json", b"{}"),
            lambda: hook.write_file(
                input_directory(base, claimed), "manifest.json", manifest.to_json().encode()
            ),
        ):
            prepare()
            with pytest.raises(BatchJobOwnershipError, match="Nothing was removed"):
                task.execute(task_context("clean_up"))
    assert len(files(scoring, "claimed")) == 4


def test_bad_input(scoring, task_context) -> None:
    context = task_context("clean_up")
    with pytest.raises(InvalidArgumentError, match="exactly one of job_output_location"):
        clean_up().execute(context)
    with pytest.raises(InvalidArgumentError, match="exactly one of job_output_location"):
        clean_up(job_output_location="None").execute(context)
    with pytest.raises(InvalidArgumentError, match="older_than is None"):
        clean_up(output_stage_location="@ST/x").execute(context)
    with pytest.raises(InvalidArgumentError, match="older_than is 3"):
        clean_up(job_output_location="@ST/x/SNOWML_X_A1", older_than=3).execute(context)
    with pytest.raises(InvalidArgumentError, match="older_than is 'soon'"):
        clean_up(output_stage_location="@ST/x", older_than="soon").execute(context)
    with pytest.raises(InvalidArgumentError, match="job_dag_id is 'other'"):
        clean_up(job_output_location="@ST/x/SNOWML_X_A1", job_dag_id="other").execute(context)
    with pytest.raises(InvalidArgumentError, match="plan_only is 'perhaps'"):
        clean_up(job_output_location="@ST/x/SNOWML_X_A1", plan_only="perhaps").execute(context)
    with pytest.raises(BatchJobOwnershipError, match="is not the output of a job"):
        clean_up(job_output_location="@ST/x").execute(context)
    with pytest.raises(StageNotFoundError):
        clean_up(output_stage_location="@NOPE/x", older_than=1).execute(context)
