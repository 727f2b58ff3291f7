"""Removing what batch jobs leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.batch_job import JobManifest
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobConflictError,
    BatchJobOwnershipError,
    InvalidArgumentError,
)
from airflow_provider_snowml.hooks.batch_cleanup import (
    Remains,
    count_files,
    find_remains,
    live_status,
    manifest_of_remains,
    remove_attempt,
    stem_of,
)
from airflow_provider_snowml.hooks.batch_jobs import REMOVED_FILE
from airflow_provider_snowml.hooks.services import snowflake_time
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    as_text,
    exactly_one,
    run_of,
    seconds,
    task_states,
    true_or_false,
)


class SnowMLCleanUpBatchOperator(SnowMLOperator):
    """Remove what batch jobs of this DAG left behind: the job with its logs, its input, and its output.

    Either one job, with ``job_output_location``: made for a teardown after the load, as in
    ``load >> clean_up.as_teardown(setups=score)``. The earlier attempts of the same work go with it. Or, with
    ``output_stage_location``, all that are older than ``older_than``, whether they ended well or not.

    Only what a job of :class:`.SnowMLBatchInferenceOperator` in this DAG made is removed, or in the one that
    ``job_dag_id`` names, and only once it has ended. Each step is safe to be interrupted, and a retry
    finishes what was begun. What was cleaned up before is nothing to do.

    XCom: ``{"attempts", "jobs", "files", "left_alone"}``, how many attempts were removed, of how many job
    services (an empty input had none) and files, and how many attempts were not: those that live, that are
    not this DAG's, or that are not old enough. With ``plan_only``, what would be.

    Privileges: READ and WRITE on the stage; OWNERSHIP of the jobs, which comes with having made them. See
    https://docs.snowflake.com/en/sql-reference/sql/drop-service.

    :param job_output_location: the job's output directory, as the batch operator's XCom has it; or
    :param output_stage_location: the directory that jobs write theirs into.
    :param older_than: with ``output_stage_location``: a ``timedelta`` or seconds since the last file of an
        attempt was written. It should leave time for the loads that are still to come.
    :param job_dag_id: with ``output_stage_location``: the DAG whose jobs these are, if it is another one than
        this.
    :param plan_only: remove nothing, and say in the log what would be.
    :param keep_on_failure: as a teardown, which runs whatever happened, remove nothing and be skipped unless
        every task directly upstream has succeeded. Let the load be one of them.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises BatchJobOwnershipError: if ``job_output_location`` is not of a job of this DAG.
    :raises BatchJobConflictError: if its job lives.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "job_output_location",
        "output_stage_location",
        "older_than",
        "job_dag_id",
        "plan_only",
    )

    def __init__(
        self,
        *,
        job_output_location: str | None = None,
        output_stage_location: str | None = None,
        older_than: timedelta | float | str | None = None,
        job_dag_id: str | None = None,
        plan_only: bool | str = False,
        keep_on_failure: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_output_location = job_output_location
        self.output_stage_location = output_stage_location
        self.older_than = older_than
        self.job_dag_id = job_dag_id
        self.plan_only = plan_only
        self.keep_on_failure = keep_on_failure

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, and remove what may be removed."""
        mode = exactly_one(
            job_output_location=as_text(self.job_output_location),
            output_stage_location=as_text(self.output_stage_location),
        )
        if (mode == "output_stage_location") != (self.older_than is not None):
            raise InvalidArgumentError(
                f"older_than is {self.older_than!r}: it goes with output_stage_location, and only with it."
            )
        if mode == "job_output_location" and as_text(self.job_dag_id):
            raise InvalidArgumentError(
                f"job_dag_id is {self.job_dag_id!r}: one job's output is removed by its own DAG only."
            )
        plan_only = true_or_false("plan_only", self.plan_only)
        if self.is_teardown and self.keep_on_failure:
            self._keep_on_failure(context)
        hook = self.get_hook()
        with hook.open_connection():
            if mode == "job_output_location":
                return self._one_job(hook, context, plan_only)
            return self._sweep(hook, context, plan_only)

    def _keep_on_failure(self, context: Context) -> None:
        tasks = sorted(self.upstream_task_ids)
        if not tasks:
            return
        states = task_states(context["ti"], tasks)
        others = {task: state for task, state in states.items() if state != "success"}
        if others:
            raise AirflowSkipException(
                f"Nothing is removed, since not all before it succeeded: {_listed(others)}."
            )

    def _one_job(self, hook: SnowMLHook, context: Context, plan_only: bool) -> dict[str, Any]:
        location = StageLocation.parse(
            str(self.job_output_location), hook.default_schema(), what="job_output_location"
        )
        parent, _, name = location.path.rstrip("/").rpartition("/")
        stem = stem_of(name)
        if not parent or stem is None:
            raise BatchJobOwnershipError(
                f"{location} is not the output of a job of SnowMLBatchInferenceOperator. Nothing was removed."
            )
        hook.check_internal_stage(location.stage)
        base = StageLocation(location.stage, parent + "/")
        found = find_remains(hook, base, f"{stem}_A")
        last = next((remains for remains in found if remains.name == name), None)
        if last is None:
            self.log.info("There is nothing in %s: it was cleaned up before.", location)
            return _summary([], jobs=0, left_alone=0)
        manifest = manifest_of_remains(hook, base, last)
        if manifest is None or manifest.dag_id != context["ti"].dag_id:
            owner = f"{manifest.owner}'s" if manifest is not None else "nobody's, by a manifest of ours"
            raise BatchJobOwnershipError(
                f"{location} is {owner}, and not a job's of DAG {context['ti'].dag_id}. Nothing was removed."
            )
        run = run_of(context)
        if manifest.run_id == run.run_id and manifest.clear_number > run.clear_number:
            raise BatchJobConflictError(f"{location} belongs to a newer try: the run was cleared since.")
        # The earlier ones first: the latest is what a new try of the batch task goes by.
        earlier = [remains for remains in found if remains.attempt < last.attempt]
        return self._remove(hook, base, manifest.dag_id, [*earlier, last], plan_only, must=last)

    def _sweep(self, hook: SnowMLHook, context: Context, plan_only: bool) -> dict[str, Any]:
        age = seconds("older_than", self.older_than)
        base = StageLocation.parse(
            str(self.output_stage_location), hook.default_schema(), what="output_stage_location"
        )
        base.beside("")  # the root of a stage has no room for a job's input
        hook.check_internal_stage(base.stage)
        now = snowflake_time(hook).timestamp()
        found = find_remains(hook, base, "SNOWML_")
        # An attempt goes only with those before it: the latest is what a new try of its task goes by.
        kept = {remains.stem: remains.attempt for remains in reversed(found) if _is_young(remains, now, age)}
        old = [remains for remains in found if remains.attempt < kept.get(remains.stem, remains.attempt + 1)]
        dag_id = as_text(self.job_dag_id) or context["ti"].dag_id
        summary = self._remove(hook, base, dag_id, old, plan_only)
        return {**summary, "left_alone": summary["left_alone"] + len(found) - len(old)}

    def _remove(
        self,
        hook: SnowMLHook,
        base: StageLocation,
        dag_id: str,
        attempts: Sequence[Remains],
        plan_only: bool,
        must: Remains | None = None,
    ) -> dict[str, Any]:
        """Remove those of a DAG that have ended, and say why not of the others.

        :param must: whose job must have ended.
        """
        removed, jobs, alive = [], 0, set()
        for remains in attempts:
            manifest = manifest_of_remains(hook, base, remains)
            reason = _not_ours(manifest, dag_id)
            status = None
            if manifest is not None and not reason:
                status, is_live = live_status(hook, manifest, remains)
                if is_live:
                    reason = f"job {manifest.job_name} is {status or 'about to start'}"
                    alive.add(remains.stem)
                elif remains.stem in alive:
                    reason = "the job of an earlier attempt lives"
            if manifest is None or reason:
                if remains is must:
                    raise BatchJobConflictError(f"{base / remains.name} is left alone: {reason}.")
                self.log.info("%s is left alone: %s.", base / remains.name, reason)
                continue
            if plan_only:
                self.log.info("%s would be removed.", base / remains.name)
            else:
                remove_attempt(hook, base, remains, manifest, drop_job=status is not None)
            removed.append(remains)
            jobs += status is not None
        return _summary(removed, jobs=jobs, left_alone=len(attempts) - len(removed))


def _not_ours(manifest: JobManifest | None, dag_id: str) -> str:
    if manifest is None:
        return "no manifest says whose it is"
    return f"it belongs to {manifest.owner}" if manifest.dag_id != dag_id else ""


def _is_young(remains: Remains, now: float, seconds: float) -> bool:
    return not remains.has(REMOVED_FILE) and now - remains.written_at < seconds


def _summary(removed: Sequence[Remains], *, jobs: int, left_alone: int) -> dict[str, Any]:
    return {
        "attempts": len(removed),
        "jobs": jobs,
        "files": count_files(removed),
        "left_alone": left_alone,
    }


def _listed(states: dict[str, Any]) -> str:
    return ", ".join(f"{task} is {state or 'not run'}" for task, state in states.items())
