"""The batch contract, by the operators themselves: one job for one piece of work, followed and loaded."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.batch_job import DONE, ENDED, SUCCESS_FILE
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobFailedError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
    BatchOutputIncompleteError,
    RowCountError,
)
from airflow_provider_snowml.hooks.batch_jobs import build_job, is_starting
from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor
from verify.checks import NotTried, check, must
from verify.place import Place
from verify.tasks import (
    DAY,
    LONG,
    Try,
    batch,
    defer,
    execute,
    finish,
    in_place,
    jobs,
    load,
    manifest_of,
    must_have,
    remove,
    resume,
    rewrite,
)

NEXT_DAY = "2013-06-02"

# -- scored, loaded, scored again, cleaned up ---------------------------------------------------------------


@check("contract-submit", "A batch task runs one job, and as many rows come out as go in", "score")
def submit(place: Place) -> str:
    first = Try("score")
    result = execute(place, batch(place, "score", rows=2), first)
    place.notes["score"] = (first, result)
    rows = (result["input_rows"], result["output_rows"])
    must(result["status"] == DONE and rows == (2, 2), result)
    must_have(place, "score", A1=DONE)
    return f"in {result['duration_s']} s"


@check(
    "contract-attach", "A retry takes the job's result and starts none, with its state or without", "score"
)
def attach(place: Place) -> None:
    first, result = place.noted("score")
    for again in (first, Try("score")):
        found = execute(place, batch(place, "score", rows=2), again)
        must(found["job_name"] == result["job_name"], f"it ran {found['job_name']}")
    must_have(place, "score", A1=DONE)


@check("contract-reuse", "With on_rerun='reuse' another run uses the result, and starts no job", "score")
def reuse(place: Place) -> None:
    _, result = place.noted("score")
    task = batch(place, "score", rows=2, on_rerun="reuse")
    found = execute(place, task, Try("score", run_id="verify__2"))
    must(found["reused"] and found["job_name"] == result["job_name"], found)
    must_have(place, "score", A1=DONE)


@check("contract-load", "The load leaves exactly the slice, also the second time, and no other", "score")
def load_twice(place: Place) -> None:
    _, result = place.noted("score")
    for day in (NEXT_DAY, DAY, DAY):
        execute(place, load(place, result["job_output_location"], 2, day), Try("load"))
    _must_be_loaded(place, {(DAY, "verify__1"): 2, (NEXT_DAY, "verify__1"): 2})


@check("contract-another-run", "Another run of the same key runs the next attempt", "score")
def another_run(place: Place) -> None:
    place.noted("score")
    second = Try("score", run_id="verify__2")
    result = execute(place, batch(place, "score", 2, rows=3, wait_for_completion=False), second)
    must((result["attempt"], result["reused"]) == (2, False), result)
    place.notes["rerun"] = (second, result)


@check(
    "contract-success-sensor", "The sensor sees _SUCCESS by its path alone, and by the job's name", "score"
)
def success_sensor(place: Place) -> None:
    second, result = place.noted("rerun")
    for job_name in (None, result["job_name"]):
        found = finish(place, _sensor(place, result, job_name=job_name), second)
        must(found["status"] == (DONE if job_name else None), found)
    must_have(place, "score", A1=DONE, A2=DONE)


@check("contract-load-replaces", "Loading the other run's result replaces the slice, and no other", "score")
def load_replaces(place: Place) -> None:
    second, result = place.noted("rerun")
    execute(place, load(place, result["job_output_location"], 3), second)
    _must_be_loaded(place, {(DAY, "verify__2"): 3, (NEXT_DAY, "verify__1"): 2})


@check("contract-incomplete", "Without _SUCCESS nothing is loaded, and a job that is DONE fails", "score")
def incomplete(place: Place) -> None:
    second, result = place.noted("rerun")
    before = _loaded(place)
    place.ended(QualifiedName.parse(result["job_name"]).name.name)
    output = StageLocation.parse(result["job_output_location"])
    place.hook.remove_file(output, SUCCESS_FILE)
    try:
        for task in (
            _sensor(place, result, job_name=result["job_name"], grace=1),
            load(place, result["job_output_location"], 3, NEXT_DAY),
        ):
            try:
                found = finish(place, task, second)
            except BatchOutputIncompleteError:
                continue
            must(False, f"{task.task_type} returned {found}")
    finally:
        place.hook.write_file(output, SUCCESS_FILE, b"")
    _must_be_loaded(place, before)


@check(
    "contract-clean-up", "The clean-up removes the jobs and what they made, and nothing beside it", "score"
)
def clean_up(place: Place) -> None:
    second, result = place.noted("rerun")
    for name, content in (("neighbour", b"1"), ("SNOWML_SOMEBODY_A1/data.parquet", b"1")):
        path, _, file = f"score/{name}".rpartition("/")
        place.hook.write_file(place.stage(path), file, content)
    task = remove(place, result["job_output_location"])
    found = execute(place, task, second)
    must((found["attempts"], found["jobs"], found["left_alone"]) == (2, 2, 0), found)
    left = [*place.hook.files(place.stage("score")), *place.hook.files(place.stage("score_snowml_input"))]
    must(sorted(left) == ["score/SNOWML_SOMEBODY_A1/data.parquet", "score/neighbour"], f"there is {left}")
    must_have(place, "score")
    again = execute(place, task, second)
    must(again["attempts"] == 0, f"the second time it removes {again}")


# -- one job each: they are independent ---------------------------------------------------------------------


@check("contract-deferred", "A deferred task waits in its trigger, and returns the rows", "deferred")
def deferred(place: Place) -> None:
    only, seconds = Try("deferred"), 20
    waiting = defer(place, batch(place, "deferred", seconds, deferrable=True), only)
    # Another operator, as Airflow resumes in another process.
    result = resume(place, batch(place, "deferred", seconds, deferrable=True), waiting, only)
    must((result["status"], result["output_rows"]) == (DONE, 1), result)
    must_have(place, "deferred", A1=DONE)


@check("contract-lost-reply", "A retry follows the job whose reply and state were lost", "lost reply")
def lost_reply(place: Place) -> None:
    begun = execute(place, batch(place, "lost", 3, wait_for_completion=False), Try("lost"))
    manifest = manifest_of(place, begun["job_output_location"])
    rewrite(place, replace(manifest, query_id=None, submitted_at=None))
    result = finish(place, batch(place, "lost", 3, deferrable=True), Try("lost"))
    must((result["attempt"], result["status"], result["output_rows"]) == (1, DONE, 1), result)
    must_have(place, "lost", A1=DONE)
    place.notes["lost"] = result


@check(
    "contract-expired",
    "A job that is gone, as after 30 days, still gives its result",
    "lost reply",
)
def expired(place: Place) -> None:
    result = place.noted("lost")
    place.hook.delete_job(QualifiedName.parse(result["job_name"]))
    again = execute(place, batch(place, "lost", 3), Try("lost"))
    must((again["job_name"], again["output_rows"]) == (result["job_name"], 1), again)
    planned = execute(place, batch(place, "lost", 3, plan_only=True), Try("lost", run_id="verify__2"))
    must((planned["action"], planned["attempt"]) == ("submit", 2), f"another run would {planned}")
    must_have(place, "lost")


@check("contract-fail", "A job that fails fails the task, with its logs; a retry runs the next one", "fail")
def fail(place: Place) -> None:
    only = Try("broken")
    try:
        result = execute(place, batch(place, "broken", -1), only)
    except BatchJobFailedError as error:
        must("broke on purpose" in str(error), error)
    else:
        must(False, f"it returned {result}")
    planned = execute(place, batch(place, "broken", -1, plan_only=True), only)
    must((planned["action"], planned["attempt"]) == ("submit", 2), planned)
    must_have(place, "broken", A1="FAILED")


@check("contract-cancel", "A kill cancels the job and keeps it", "cancel")
def cancel(place: Place) -> None:
    task = batch(place, "killed", LONG)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(execute(place, task, Try("killed")))
        except Exception as error:
            outcome.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    place.until(lambda: jobs(place, "killed") or outcome, bool, "the job of the task")
    task.on_kill()
    worker.join(place.patience)
    must(bool(outcome) and isinstance(outcome[0], BatchJobCancelledError), f"the task ended with {outcome}")
    must_have(place, "killed", A1="CANCELLED")


@check("contract-timeout", "timeout cancels the job and keeps it", "timeout")
def timeout(place: Place) -> None:
    only = Try("late")
    execute(place, batch(place, "late", LONG, wait_for_completion=False), only)
    place.until(lambda: jobs(place, "late"), lambda it: it.get("A1") not in (None, "PENDING"), "the job")
    try:
        result = execute(place, batch(place, "late", LONG, timeout=1), only)
    except BatchJobTimeoutError:
        must_have(place, "late", A1="CANCELLED")
        return
    must(False, f"it returned {result}")


@check("contract-start-timeout", "start_timeout cancels a job that does not run yet, and its image", "start")
def start_timeout(place: Place) -> str:
    # Of a version that has no image yet.
    only, task = Try("unstarted"), batch(place, "unstarted", 5, version_name="V2", start_timeout=0)
    try:
        result = execute(place, task, only)
    except BatchJobStartTimeoutError as error:
        seen = str(error).partition(" The end of its logs")[0].rpartition("; ")[2]
    else:
        raise NotTried(f"The job ran before it was looked at for the first time: {result}")
    (path,) = {path.split("/")[1] for path in place.hook.files(place.stage("unstarted_snowml_input"))}
    manifest = manifest_of(place, (place.stage("unstarted") / path).sql)
    job, query_id = QualifiedName.parse(manifest.job_name), str(manifest.query_id)
    statement = place.hook.statement(query_id)[0]
    must(not is_starting(statement, manifest.submitted_at), f"its statement is {statement}")
    both = (job, build_job(job, query_id))
    place.until(
        lambda: [place.hook.job_status(one) for one in both],
        lambda statuses: all(status in ENDED | {None} for status in statuses),
        f"{both}",
    )
    found = jobs(place, "unstarted")
    must(found in ({}, {"A1": "CANCELLED"}), f"its jobs are {found}")
    return seen


# -- no job -------------------------------------------------------------------------------------------------


@check("contract-empty", "on_empty fails, skips or gives an empty result, and starts no job", "empty")
def empty(place: Place) -> None:
    expected: dict[str, type[Exception]] = {"fail": RowCountError, "skip": AirflowSkipException}
    for on_empty, kind in expected.items():
        try:
            result = execute(place, batch(place, "empty", rows=0, on_empty=on_empty), Try("empty"))
        except kind:
            continue
        must(False, f"with {on_empty} it returned {result}")
    result = execute(place, batch(place, "empty", rows=0, on_empty="replace"), Try("empty"))
    must((result["job_name"], result["output_rows"]) == (None, 0), result)
    place.notes["empty"] = result
    must_have(place, "empty")


@check("contract-load-empty", "Loading an empty result empties the slice, and no other", "empty")
def load_empty(place: Place) -> None:
    result = place.noted("empty")
    place.hook.rows(f"CREATE TABLE EMPTIED AS SELECT COLUMN1 AS DAY FROM VALUES ('{DAY}'), ('{NEXT_DAY}')")
    execute(place, load(place, result["job_output_location"], 0, output_table="EMPTIED"), Try("load"))
    days = [row["DAY"] for row in place.hook.rows("SELECT DAY FROM EMPTIED")]
    must(days == [NEXT_DAY], f"there are {days}")


def _sensor(place: Place, result: dict[str, Any], **arguments: Any) -> SnowMLBatchSuccessSensor:
    return SnowMLBatchSuccessSensor(
        task_id="wait",
        job_output_location=result["job_output_location"],
        poke_interval=1,
        timeout=place.patience,
        deferrable=True,
        **in_place(place),
        **arguments,
    )


def _loaded(place: Place) -> dict[tuple[str, str], int]:
    """How many rows PREDICTIONS has of each day and run."""
    rows = place.hook.rows("SELECT DAY, RUN_ID, COUNT(*) AS N FROM PREDICTIONS GROUP BY DAY, RUN_ID")
    return {(row["DAY"], row["RUN_ID"]): row["N"] for row in rows}


def _must_be_loaded(place: Place, expected: dict[tuple[str, str], int]) -> None:
    found = _loaded(place)
    must(found == expected, f"there are {found}")
