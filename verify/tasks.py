"""Tasks without a scheduler: what Airflow's worker and triggerer do with them, done here."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_snowml.core.batch_job import ENDED, JobManifest
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.hooks.batch_jobs import manifest_of_output, write_manifest
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLCleanUpBatchOperator,
    SnowMLLoadPredictionsOperator,
)
from verify.checks import Differs, must
from verify.place import Place

DAY = "2013-06-01"
LONG = 600.0  # seconds of a job that is to be ended


class StateStore:
    """What Airflow's ``task_state_store`` does: values by key that outlive a try."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """A remembered value."""
        return copy.deepcopy(self._values.get(key, default))

    def set(self, key: str, value: Any) -> None:
        """Remember a value."""
        self._values[key] = copy.deepcopy(value)


@dataclass(frozen=True)
class TaskInstance:
    """What the operators ask of ``context["ti"]``."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    try_number: int = 1

    def xcom_push(self, **_: Any) -> None:
        """The link to Snowsight has nowhere to be shown."""


@dataclass(frozen=True)
class Try:
    """A try of a task of DAG ``verify``. With the same store it is another try of the same task instance.

    :param task_id: the task.
    :param run_id: the DAG run.
    :param clear_number: how often that was cleared.
    :param store: what earlier tries remember.
    """

    task_id: str
    run_id: str = "verify__1"
    clear_number: int = 0
    store: StateStore = field(default_factory=StateStore)

    @property
    def context(self) -> Any:
        """The context that Airflow would give it."""
        return {
            "ti": TaskInstance("verify", self.task_id, self.run_id),
            "dag_run": SimpleNamespace(clear_number=self.clear_number, run_type="manual"),
            "partition_key": DAY,
            "task_state_store": self.store,
        }


def in_place(place: Place) -> dict[str, Any]:
    """The arguments by which an operator finds the place."""
    return {
        "snowflake_conn_id": place.conn_id,
        "database": place.schema.database.sql,
        "schema": place.schema.schema.name,
    }


def batch(
    place: Place, task_id: str, seconds: float = 0, *, rows: int = 1, **arguments: Any
) -> SnowMLBatchInferenceOperator:
    """A batch task.

    :param seconds: how long its job runs; a negative number lets it fail.
    :param rows: how many rows it scores.
    :param arguments: of the operator.
    """
    source = f"TABLE(GENERATOR(ROWCOUNT => {rows}))" if rows else "(SELECT 1 WHERE FALSE)"
    defaults: dict[str, Any] = {
        "model_name": place.model(),
        "function_name": "predict",
        "input_query": f"SELECT {seconds}::FLOAT AS F1, 1 AS ID FROM {source}",
        "compute_pool": str(place.pool),
        "output_stage_location": f"@ST/{task_id}",
        "poll_interval": 1.0,
        "timeout": place.patience,
        "start_timeout": place.patience,
        "deferrable": False,
    }
    return SnowMLBatchInferenceOperator(task_id=task_id, **in_place(place), **{**defaults, **arguments})


def load(
    place: Place, location: str, rows: int, day: str = DAY, **arguments: Any
) -> SnowMLLoadPredictionsOperator:
    """A load task, of a job's output into a day of PREDICTIONS."""
    defaults: dict[str, Any] = {"output_table": "PREDICTIONS", "replace_column": "DAY"}
    return SnowMLLoadPredictionsOperator(
        task_id="load",
        job_output_location=location,
        expected_rows=rows,
        replace_value=day,
        **in_place(place),
        **{**defaults, **arguments},
    )


def remove(place: Place, location: str) -> SnowMLCleanUpBatchOperator:
    """A clean-up task, of one job."""
    return SnowMLCleanUpBatchOperator(task_id="clean_up", job_output_location=location, **in_place(place))


def execute(place: Place, task: Any, attempt: Try) -> Any:
    """Run a task; a user who interrupts the checks kills it."""
    with place.running(task):
        return task.execute(attempt.context)


def defer(place: Place, task: Any, attempt: Try) -> TaskDeferred:
    """Run a task until it defers.

    :raises Differs: if it doesn't.
    """
    try:
        result = execute(place, task, attempt)
    except TaskDeferred as deferred:
        return deferred
    raise Differs(f"it did not defer, but returned {result}")


def resume(place: Place, task: Any, deferred: TaskDeferred, attempt: Try) -> Any:
    """Run the trigger until its event, and the task from there."""
    event = asyncio.run(_event(place, deferred.trigger))
    with place.running(task):
        return getattr(task, deferred.method_name)(attempt.context, event)


def finish(place: Place, task: Any, attempt: Try) -> Any:
    """Run a task to its end, however often it defers."""
    try:
        return execute(place, task, attempt)
    except TaskDeferred as error:
        deferred = error
    while True:
        try:
            return resume(place, task, deferred, attempt)
        except TaskDeferred as again:
            deferred = again


async def _event(place: Place, trigger: Any) -> Any:
    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        raise Differs("the trigger ended without an event")

    waiting = asyncio.ensure_future(first())
    try:
        while not waiting.done():
            place.go_on()
            await asyncio.wait({waiting}, timeout=0.5)
        return waiting.result()
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def jobs(place: Place, task_id: str) -> dict[str, str]:
    """The statuses of a task's jobs by attempt."""
    found = place.hook.list_jobs(place.schema, f"SNOWML_VERIFY_{task_id.upper()}_")
    return {name.rpartition("_")[2]: status for name, status in sorted(found.items())}


def must_have(place: Place, task_id: str, **expected: str) -> None:
    """Wait until a task's jobs are these, by attempt: of a status, or ``"live"``.

    :raises Differs: if they are others, or don't become so.
    """

    def seen() -> dict[str, str]:
        found = jobs(place, task_id)
        live = {name for name, status in found.items() if status not in ENDED}
        return {name: "live" if name in live else status for name, status in found.items()}

    def is_over(found: dict[str, str]) -> bool:
        """Whether nothing that is still expected can come, or it is there."""
        ended = {name: status for name, status in found.items() if status != "live"}
        wrong = {name for name, status in ended.items() if expected.get(name) != status}
        return found == expected or bool(wrong) or not found.keys() <= expected.keys()

    found = place.until(seen, is_over, f"what {task_id} has started")
    must(found == expected, f"its jobs are {found}, not {expected}")


def manifest_of(place: Place, location: str) -> JobManifest:
    """The manifest of the job that writes a directory."""
    found = manifest_of_output(place.hook, StageLocation.parse(location))
    if found is None:
        raise Differs(f"there is no manifest beside {location}")
    return found


def rewrite(place: Place, manifest: JobManifest) -> None:
    """Put another manifest in a job's place."""
    output = StageLocation.parse(manifest.output_location)
    base = StageLocation(output.stage, output.path.rstrip("/").rpartition("/")[0] + "/")
    write_manifest(place.hook, base, manifest)
