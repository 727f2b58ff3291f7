"""The batch contract, by the operators themselves: submit, attach, clear, load, fail, cancel."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from airflow_provider_snowml.core.batch_job import DONE, ENDED
from airflow_provider_snowml.exceptions import BatchJobCancelledError, BatchJobFailedError
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLLoadPredictionsOperator,
)
from verify.checks import NotTried, check, must
from verify.place import Place

_results: dict[str, dict[str, Any]] = {}


class Store(dict[str, Any]):
    """What Airflow's ``task_state_store`` does."""

    def set(self, key: str, value: Any) -> None:
        """Remember a value."""
        self[key] = value


def context(task_id: str, *, store: Store | None = None, clear_number: int = 0) -> Any:
    """The context of a try, without a scheduler."""
    return {
        "ti": SimpleNamespace(
            dag_id="verify", task_id=task_id, run_id="verify__1", map_index=-1, try_number=1
        ),
        "dag_run": SimpleNamespace(clear_number=clear_number, run_type="manual"),
        "partition_key": "2013-06-01",
        "task_state_store": store if store is not None else Store(),
    }


def batch(place: Place, task_id: str, seconds: float) -> SnowMLBatchInferenceOperator:
    """A batch task."""
    return SnowMLBatchInferenceOperator(
        task_id=task_id,
        snowflake_conn_id=place.conn_id,
        database=place.schema.database.sql,
        schema=place.schema.schema.name,
        model_name=place.model(),
        function_name="predict",
        input_query=f"SELECT {seconds}::FLOAT AS F1, 1 AS ID",
        compute_pool=str(place.pool),
        output_stage_location=f"@ST/{task_id}",
        poll_interval=1.0,
        timeout=place.patience,
        start_timeout=place.patience,
        deferrable=False,
    )


def jobs(place: Place, task_id: str) -> dict[str, str]:
    """A task's jobs."""
    return place.hook.list_jobs(place.schema, f"SNOWML_VERIFY_{task_id.upper()}_")


@check("contract-submit", "A batch task runs one job and returns its rows", wants_pool=True)
def submit(place: Place) -> str:
    store = Store()
    result = batch(place, "score", 0).execute(context("score", store=store))
    _results["score"] = {"result": result, "store": store}
    rows = (result["input_rows"], result["output_rows"])
    must(result["status"] == DONE and rows == (1, 1), result)
    found = jobs(place, "score")
    must(len(found) == 1, f"jobs {found}")
    return f"in {result['duration_s']} s"


@check(
    "contract-attach",
    "A retry attaches to the job and starts none, with the state or without",
    wants_pool=True,
)
def attach(place: Place) -> None:
    first = _of("score")
    for store in (first["store"], Store()):
        again = batch(place, "score", 0).execute(context("score", store=store))
        must(again["job_name"] == first["result"]["job_name"], f"it ran {again['job_name']}")
    found = jobs(place, "score")
    must(len(found) == 1, f"jobs {found}")


@check("contract-clear", "A cleared task runs the next attempt", wants_pool=True)
def clear(place: Place) -> None:
    first = _of("score")
    result = batch(place, "score", 0).execute(context("score", store=first["store"], clear_number=1))
    must(result["attempt"] == first["result"]["attempt"] + 1, f"attempt {result['attempt']}")
    _results["score"]["result"] = result


@check("contract-load", "The load leaves exactly the slice, also the second time", wants_pool=True)
def load(place: Place) -> None:
    result = _of("score")["result"]
    for _ in range(2):
        SnowMLLoadPredictionsOperator(
            task_id="load",
            snowflake_conn_id=place.conn_id,
            database=place.schema.database.sql,
            schema=place.schema.schema.name,
            job_output_location=result["job_output_location"],
            expected_rows=result["input_rows"],
            output_table="PREDICTIONS",
            replace_column="DAY",
            replace_value="2013-06-01",
        ).execute(context("load"))
    rows = place.hook.value("SELECT COUNT(*) FROM PREDICTIONS WHERE DAY = '2013-06-01'")
    must(rows == 1, f"{rows} rows")


@check("contract-fail", "A job that fails fails the task, with the end of its logs", wants_pool=True)
def fail(place: Place) -> None:
    try:
        result = batch(place, "broken", -1).execute(context("broken"))
    except BatchJobFailedError as error:
        must("broke on purpose" in str(error), error)
        return
    must(False, f"it returned {result}")


@check("contract-cancel", "A kill cancels the job and keeps it", wants_pool=True)
def cancel(place: Place) -> None:
    task = batch(place, "killed", 600)
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            task.execute(context("killed"))
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    place.until(lambda: jobs(place, "killed") or outcome, bool, "the job of the task")
    task.on_kill()
    worker.join(place.patience)
    must(bool(outcome) and isinstance(outcome[0], BatchJobCancelledError), f"the task ended with {outcome}")
    found = place.until(
        lambda: jobs(place, "killed"), lambda it: all(status in ENDED for status in it.values()), "the job"
    )
    must(set(found.values()) == {"CANCELLED"}, f"jobs {found}")


def _of(task_id: str) -> dict[str, Any]:
    if task_id not in _results:
        raise NotTried("The job that it is about did not get so far.")
    return _results[task_id]
