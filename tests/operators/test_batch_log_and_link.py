"""What one sees of a batch job while it runs: its log lines, and the link to its query."""

from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.hooks import snowml
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.links.snowsight import SnowsightQueryLink
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator


def slow(task_id: str, seconds: float = 1.5, **arguments: Any) -> SnowMLBatchInferenceOperator:
    return SnowMLBatchInferenceOperator(
        task_id=task_id,
        model_name="SLOW",
        input_query=f"SELECT {seconds}::FLOAT AS F1",
        compute_pool="TEST_POOL",
        output_stage_location=f"@ST/{task_id}",
        poll_interval=0.2,
        **arguments,
    )


def printed(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "waiting 1.5 seconds" in record.message]


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_the_jobs_lines_are_in_the_tasks_log_once(scoring, run_dag, caplog, deferrable) -> None:
    with DAG(f"log_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        slow(f"log_{deferrable}", deferrable=deferrable)
    with caplog.at_level("INFO"):
        run, _ = run_dag(dag)
    assert run.state == "success"
    (line,) = printed(caplog)
    assert line.startswith("[")


def test_lines_come_while_the_job_runs(scoring, task_context, caplog, monkeypatch) -> None:
    running_when_printed: list[str | None] = []
    real = SnowMLHook.container_logs

    def read(hook: SnowMLHook, job: Any, lines: int) -> Any:
        found = real(hook, job, lines)
        if any("waiting" in text for text in found.values()):
            running_when_printed.append(hook.job_status(job))
        return found

    monkeypatch.setattr(SnowMLHook, "container_logs", read)
    slow("log_early", 8).execute(task_context("log_early"))
    assert running_when_printed[0] == "RUNNING"


@pytest.mark.parametrize("stream_logs", [True, False])
def test_lines_are_asked_for_unless_told_not_to(scoring, task_context, local_snowflake, stream_logs) -> None:
    name = f"log_{stream_logs}_asked"
    note = local_snowflake.fault("note", statement="GET_SERVICE_LOGS", times=1000)
    try:
        slow(name, stream_logs=stream_logs).execute(task_context(name))
        (found,) = (fault for fault in local_snowflake.faults() if fault["id"] == note)
    finally:
        local_snowflake.clear_faults()
    assert any(name.upper() in request for request in found["requests"]) is stream_logs


def test_logs_that_may_not_be_read_fail_nothing_and_are_mentioned_once(
    scoring, task_context, caplog, local_snowflake
) -> None:
    fault = {"errno": 3001, "message": "Insufficient privileges to operate on service", "times": 50}
    local_snowflake.fault("refuse", statement="GET_SERVICE_LOGS", **fault)
    try:
        with caplog.at_level("INFO"):
            result = slow("log_denied").execute(task_context("log_denied"))
    finally:
        local_snowflake.clear_faults()
    assert result["status"] == "DONE"
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


@pytest.fixture
def in_an_account(scoring, monkeypatch) -> None:
    """As if the connection led to a real account; its address is all that makes the link."""
    real = snowml.query_page
    elsewhere = {"host": "acme-prod.snowflakecomputing.com", "account": "acme-prod"}
    monkeypatch.setattr(snowml, "query_page", lambda **known: real(**{**known, **elsewhere}))


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_the_link_is_there_once_the_job_is_submitted_and_after_it_ends(
    in_an_account, run_dag, monkeypatch, deferrable
) -> None:
    stored: list[tuple[str, str | None]] = []
    real = SnowsightQueryLink.store.__func__

    def store(cls: Any, context: Any, url: str) -> None:
        real(cls, context, url)
        ti = context["ti"]
        stored.append((url, ti.xcom_pull(task_ids=ti.task_id, key=cls().xcom_key)))

    monkeypatch.setattr(SnowsightQueryLink, "store", classmethod(store))
    with DAG(f"link_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        score = slow(f"link_{deferrable}", deferrable=deferrable)
    run, _ = run_dag(dag)
    ((url, early),) = stored
    assert url.startswith("https://app.snowflake.com/acme/prod/#/compute/history/queries/")
    assert early == url
    (ti,) = run.get_task_instances()
    assert ti.xcom_pull(task_ids=score.task_id, key=SnowsightQueryLink().xcom_key) == url
    assert SnowsightQueryLink in {type(link) for link in score.operator_extra_links}


def test_the_local_snowflake_has_no_snowsight_to_link_to(scoring, run_dag) -> None:
    with DAG("link_none", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        score = slow("link_none")
    run, _ = run_dag(dag)
    (ti,) = run.get_task_instances()
    assert not ti.xcom_pull(task_ids=score.task_id, key=SnowsightQueryLink().xcom_key)


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_one_line_for_each_change_of_status(scoring, run_dag, caplog, deferrable) -> None:
    with DAG(f"status_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        slow(f"status_{deferrable}", 8, deferrable=deferrable)
    with caplog.at_level("INFO"):
        run_dag(dag)
    lines = [
        record.message.partition(": ")[2] for record in caplog.records if "_A1: the job" in record.message
    ]
    statuses = [line for i, line in enumerate(lines) if i == 0 or line != lines[i - 1]]
    # The worker and the triggerer each say once what they found.
    assert len(lines) - len(statuses) <= int(deferrable)
    assert statuses[-2:] == ["the job is RUNNING", "the job is DONE and _SUCCESS is there"]
