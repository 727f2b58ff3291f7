"""The batch contract when a job is in the way: of another owner, of another run, of a try before a clear.

One job after another stands in the way, and each is ended by the next check; only the last one runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_snowml.core.batch_job import DONE, JobManifest
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import BatchJobConflictError, BatchJobOwnershipError
from verify.checks import check, must
from verify.place import Place
from verify.tasks import (
    DAY,
    LONG,
    Try,
    batch,
    defer,
    execute,
    manifest_of,
    must_have,
    remove,
    resume,
    rewrite,
)

LANE = "held"
MOVE_ALIAS = (
    "ALTER MODEL WAITER VERSION {} UNSET ALIAS",
    "ALTER MODEL WAITER VERSION {} SET ALIAS = CHAMPION",
)


def held(place: Place, **arguments: Any) -> Any:
    """The task, whose job is long."""
    return batch(place, "held", LONG, version_name="CHAMPION", deferrable=True, **arguments)


@check("contract-pinned", "A retry follows its job after the alias has moved to another version", LANE)
def pinned(place: Place) -> None:
    place.model()
    place.hook.rows(MOVE_ALIAS[1].format("V1"))
    first = Try("held")
    place.notes["held"] = (first, defer(place, held(place), first))
    try:
        for version, statement in zip(("V1", "V2"), MOVE_ALIAS, strict=True):
            place.hook.rows(statement.format(version))
        planned = execute(place, held(place, plan_only=True), first)
        must((planned["action"], planned["version"]) == ("attach", "V1"), planned)
    finally:
        for version, statement in zip(("V2", "V1"), MOVE_ALIAS, strict=True):
            place.hook.rows(statement.format(version))
    must_have(place, "held", A1="live")


@check("contract-foreign", "A job of another owner under our name is an error that names both", LANE)
def foreign(place: Place) -> None:
    first, deferred = place.noted("held")
    cleared = replace(first, clear_number=1)
    with _somebody(place, deferred.trigger.job_output_location) as theirs:
        try:
            result = execute(place, held(place, on_conflict="replace"), cleared)
            must(False, f"it returned {result}")
        except TaskDeferred:
            must(False, "it went on")
        except BatchJobOwnershipError as error:
            for owner in (f"verify.held for {DAY}", f"somebody.held for {DAY}"):
                must(owner in str(error), error)
        must(manifest_of(place, theirs.output_location) == theirs, "its manifest has changed")
    must_have(place, "held", A1="live")


@check("contract-clean-up-others", "The clean-up removes neither a live job nor another owner's", LANE)
def clean_up_others(place: Place) -> None:
    first, deferred = place.noted("held")
    location = deferred.trigger.job_output_location
    for whose, kind in (
        (_somebody(place, location), BatchJobOwnershipError),
        (nullcontext(), BatchJobConflictError),
    ):
        with whose:
            try:
                result = execute(place, remove(place, location), first)
            except kind:
                continue
            must(False, f"it returned {result}")
    manifest = manifest_of(place, location)
    must(bool(place.hook.files(StageLocation.parse(manifest.input_location))), "its input is gone")
    must_have(place, "held", A1="live")


@check("contract-conflict", "A live job of another run of the same key is an error that names the run", LANE)
def conflict(place: Place) -> None:
    place.noted("held")
    try:
        result = execute(place, held(place), Try("held", run_id="verify__2"))
        must(False, f"it returned {result}")
    except TaskDeferred:
        must(False, "it went on")
    except BatchJobConflictError as error:
        must("verify__1" in str(error), error)
    must_have(place, "held", A1="live")


@check(
    "contract-clear", "A cleared task ends its job and runs the next; the late kill leaves that alone", LANE
)
def clear(place: Place) -> None:
    first, old = place.noted("held")
    cleared = replace(first, clear_number=1)
    new = defer(place, held(place), cleared)
    asyncio.run(old.trigger.on_kill())
    place.notes["cleared"] = new
    must_have(place, "held", A1="CANCELLED", A2="live")


@check("contract-kill-deferred", "A kill of a deferred task cancels its job; a run that waits goes on", LANE)
def kill_deferred(place: Place) -> None:
    ours = place.noted("cleared")
    second = Try("held", run_id="verify__2")
    waiting = defer(place, held(place, on_conflict="wait"), second)
    must(waiting.trigger.job_name == ours.trigger.job_name, f"it waits for {waiting.trigger.job_name}")
    must_have(place, "held", A1="CANCELLED", A2="live")
    asyncio.run(ours.trigger.on_kill())
    try:
        result = resume(place, held(place, on_conflict="wait"), waiting, second)
        must(False, f"it returned {result}")
    except TaskDeferred as deferred:
        place.notes["second"] = deferred
    must_have(place, "held", A1="CANCELLED", A2="CANCELLED", A3="live")


@check("contract-replace", "With on_conflict='replace' another run's live job is ended, and ours runs", LANE)
def replaced(place: Place) -> None:
    place.noted("second")
    result = execute(place, batch(place, "held", on_conflict="replace"), Try("held", run_id="verify__3"))
    must((result["attempt"], result["status"]) == (4, DONE), result)
    must_have(place, "held", A1="CANCELLED", A2="CANCELLED", A3="CANCELLED", A4=DONE)


@contextmanager
def _somebody(place: Place, location: str) -> Iterator[JobManifest]:
    """Meanwhile the job is somebody else's, as its manifest has it."""
    manifest = manifest_of(place, location)
    theirs = replace(manifest, dag_id="somebody")
    rewrite(place, theirs)
    try:
        yield theirs
    finally:
        rewrite(place, manifest)
