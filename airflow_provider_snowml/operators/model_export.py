"""A model version's files, outside the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from airflow.sdk import Context, ObjectStoragePath

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.core.lineage import Lineage, directory, model_version
from airflow_provider_snowml.core.model_export import MARKS, STARTED_FILE, ExportMark, plan_export
from airflow_provider_snowml.core.model_ref import ModelVersionInfo, resolve_version
from airflow_provider_snowml.core.names import QualifiedName, SchemaName
from airflow_provider_snowml.core.promotion import CatalogModel, CatalogVersion
from airflow_provider_snowml.exceptions import ExportExistsError
from airflow_provider_snowml.hooks.model_export import check_exportable, download_version
from airflow_provider_snowml.hooks.promotion import get_model
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, one_of, run_of
from airflow_provider_snowml.operators.export_target import ExportTarget, export_target

STATE_KEY = "snowml_export_model"


class SnowMLExportModelOperator(SnowMLOperator):
    """Export a version's files to a stage, or to whatever Airflow's ``ObjectStoragePath`` reaches.

    An export is whole once ``_SUCCESS`` lies in its directory, and not before: it is written last, and holds
    the names and sizes of the others as JSON. (Neither stages nor object stores can rename a directory.)
    Wait for it, as :class:`.SnowMLBatchSuccessSensor` does on a stage, and read what it lists. What a crash
    leaves has ``_SNOWML_EXPORT`` instead, and the next try begins anew; a directory with files and without
    either is somebody's, and is an error.

    The files pass through the worker's disk, which needs room for them: Snowflake copies files on the server
    between named stages only, and a model's are in none.

    XCom: ``{"model", "version", "path", "export_mode", "files", "bytes", "exported"}``: how many files, of
    how many bytes, and whether they were written for this task, and not used as they were.

    Privileges: OWNERSHIP of the model, or READ and USAGE on it; READ and WRITE on the stage. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: the version: its name, an alias, ``default``, ``first`` or ``last``; a retry exports
        what the first try found.
    :param path: a directory for this version alone: ``@[[database.]schema.]stage/directory`` of an internal
        stage, or a URL, in which a connection may stand before the @: ``s3://aws_default@bucket/churn/v1``.
    :param export_mode: ``"model"``, what loading it elsewhere needs, or ``"full"``, what running it in a
        warehouse needs as well.
    :param if_exists: what to do about a whole export that is there, of another task or run: ``"fail"``;
        ``"reuse"`` it if it is of that very version, and fail otherwise; or ``"replace"`` it.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, and for a model that
        Cortex fine-tuning made, which has no files.
    :raises NotFoundError: (a subclass) for a model, version or stage that isn't there.
    :raises ExportExistsError: if what is there may not be replaced, or somebody else writes there.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "path",
        "export_mode",
        "if_exists",
    )

    def __init__(
        self,
        *,
        model_name: str,
        path: str | ObjectStoragePath,
        version_name: str = "default",
        export_mode: Literal["model", "full"] = "model",
        if_exists: Literal["fail", "reuse", "replace"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.path = path
        self.version_name = version_name
        self.export_mode = export_mode
        self.if_exists = if_exists

    def execute(self, context: Context) -> dict[str, Any]:
        """Look what is there, and export."""
        one_of("export_mode", self.export_mode, ("model", "full"))
        one_of("if_exists", self.if_exists, ("fail", "reuse", "replace"))
        hook = self.get_hook()
        with hook.open_connection():
            name = QualifiedName.parse(str(self.model_name), hook.default_schema(), what="model name")
            target = export_target(hook, self.path)
            check_exportable(hook, name)
            version = self._version(context, get_model(hook, name))
            wanted = ExportMark(
                model=name.sql,
                version=version.name,
                created_on=version.created_on,
                export_mode=self.export_mode,
                task=_task(context),
            )
            files = target.files()
            mark = plan_export(
                wanted,
                files,
                _mark(target, SUCCESS_FILE, files),
                _mark(target, STARTED_FILE, files),
                self.if_exists,
                str(target),
            )
            if mark is None:
                mark = self._export(hook, target, name, wanted, files)
            elif STARTED_FILE in files:  # an earlier try ended right after it was whole
                target.remove(STARTED_FILE)
        self.log.info("%s is in %s, %s files.", mark, target, len(mark.files))
        return self.done(
            {
                "model": name.sql,
                "version": version.name,
                "path": str(target),
                "export_mode": self.export_mode,
                "files": len(mark.files),
                "bytes": sum(mark.files.values()),
                "exported": mark.task == wanted.task,
            }
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the version to the directory."""
        read = model_version(done.get("model", str(self.model_name)), done.get("version"), default)
        return Lineage([read], [directory(done["path"])] if done else [])

    def _version(self, context: Context, model: CatalogModel) -> CatalogVersion:
        """The version; an alias is resolved once in a run."""
        run, store = run_of(context), context["task_state_store"]
        about: dict[str, Any] = {
            "run_id": run.run_id,
            "clear_number": run.clear_number,
            "model": model.name.sql,
            "version_name": self.version_name,
        }
        noted: Any = store.get(STATE_KEY, None)
        if isinstance(noted, dict) and {**noted, "version": None} == {**about, "version": None}:
            found = model.find(noted["version"])
            if found is not None:
                return found
        infos = [ModelVersionInfo(version.name, version.aliases) for version in model.versions]
        found = model.find(resolve_version(model.name, self.version_name, infos).name)
        assert found is not None
        store.set(STATE_KEY, {**about, "version": found.name})
        return found

    def _export(
        self, hook: SnowMLHook, target: ExportTarget, name: QualifiedName, wanted: ExportMark, there: set[str]
    ) -> ExportMark:
        with tempfile.TemporaryDirectory(prefix="snowml-export-") as directory:
            local = Path(directory)
            files = download_version(hook, name, wanted.version, self.export_mode, local)
            mark = replace(wanted, files=files)
            # From here on until _SUCCESS is written there is nothing that a reader would take.
            target.write(STARTED_FILE, mark.to_json())
            if SUCCESS_FILE in there:
                target.remove(SUCCESS_FILE)
            for path in sorted(there - MARKS - files.keys()):
                target.remove(path)
            for path in sorted(files):
                target.upload(path, local / path)
        self._check_is_ours(target, mark)
        target.write(SUCCESS_FILE, mark.to_json())
        target.remove(STARTED_FILE)
        return mark

    def _check_is_ours(self, target: ExportTarget, mark: ExportMark) -> None:
        """Another task may have begun to export something else there meanwhile."""
        started = ExportMark.from_json(target.read(STARTED_FILE))
        found = target.files() - MARKS
        if started != mark or found != mark.files.keys():
            other = started or "somebody"
            differ = sorted(found ^ mark.files.keys())[:3]
            raise ExportExistsError(
                f"{other} was exported to {target} at the same time as {mark} ({', '.join(differ)} differ): "
                "give each a directory of its own."
            )


def _mark(target: ExportTarget, name: str, files: set[str]) -> ExportMark | None:
    return ExportMark.from_json(target.read(name)) if name in files else None


def _task(context: Context) -> str:
    ti = context["ti"]
    return f"{ti.dag_id} {ti.task_id} {ti.run_id} {ti.map_index if ti.map_index is not None else -1}"
