"""A version's files arrive whole, and half of them are never taken for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.sdk import ObjectStoragePath

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import (
    ExportExistsError,
    InvalidArgumentError,
    InvalidNameError,
    ModelNotExportableError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    StageNotFoundError,
    StageNotInternalError,
)
from airflow_provider_snowml.operators.export_target import ObjectStorageTarget, StageTarget
from airflow_provider_snowml.operators.model_export import SnowMLExportModelOperator
from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor


class Crash(BaseException):
    """The worker is gone."""


@pytest.fixture
def export(scoring, task_context):
    """Run the operator as one try of one task instance of this test."""
    store = task_context.store()

    def run(path: Any, *, run_id: str = "one", **arguments: Any) -> dict[str, Any]:
        context = task_context("export", run_id=run_id, store=store)
        given = {"model_name": "M", **arguments}
        return SnowMLExportModelOperator(task_id="export", path=path, **given).execute(context)

    return run


def under(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def staged(scoring, directory: str) -> set[str]:
    hook = scoring.hook()
    with hook.open_connection():
        return set(hook.files(StageLocation.parse("@ST", hook.default_schema()), directory))


def predict(directory: Path) -> list[Any]:
    """Load an exported model with snowflake-ml, and call it."""
    from snowflake.ml.model._packager import model_packager

    packager = model_packager.ModelPackager(str(directory / "model"))
    packager.load()
    return list(packager.model.predict(pd.DataFrame({"F1": [1.0, 50.0], "F2": [58.0, 9.0]})))


def test_to_a_directory_and_back_into_memory(scoring, export, tmp_path) -> None:
    target = tmp_path / "deep" / "er"
    result = export(f"file://{target}")
    files = under(target)
    marks = {name: files.pop(name) for name in list(files) if "/" not in name}
    assert list(marks) == ["_SUCCESS"]
    assert all(name.startswith("model/") for name in files)
    assert result == {
        "model": f"{scoring.schema}.M",
        "version": "V1",
        "path": f"file://{target}",
        "export_mode": "model",
        "files": len(files),
        "bytes": sum(map(len, files.values())),
        "exported": True,
    }
    assert json.loads(marks["_SUCCESS"])["files"] == {name: len(content) for name, content in files.items()}
    assert predict(target) == [0, 1]


def test_to_a_stage_whose_success_a_sensor_waits_for(scoring, export, tmp_path, task_context) -> None:
    result = export("@ST/exports/m_v2", version_name="v2", export_mode="full")
    names = {name.removeprefix("exports/m_v2/") for name in staged(scoring, "exports/m_v2/")}
    assert {"_SUCCESS", "MANIFEST.yml", "model/model.yaml"} < names
    assert "_SNOWML_EXPORT" not in names
    assert (result["path"], result["files"]) == (f"@{scoring.schema}.ST/exports/m_v2/", len(names) - 1)
    sensor = SnowMLBatchSuccessSensor(task_id="wait", job_output_location=result["path"])
    assert sensor.poke(task_context("wait"))
    # What lies in the stage is what lies in the model.
    hook = scoring.hook()
    there = {
        row["name"].split("/", 2)[2]: row["md5"] for row in hook.rows("LIST 'snow://model/M/versions/V2/'")
    }
    copied = {row["name"].partition("m_v2/")[2]: row["md5"] for row in hook.rows("LIST '@ST/exports/m_v2/'")}
    assert {name: copied[name] for name in there} == there


def test_a_crash_at_any_step_is_no_export_and_a_retry_makes_it_one(scoring, export, monkeypatch) -> None:
    """The old export, of another version, is whole until its _SUCCESS is removed; the new one at the end."""
    path = "@ST/exports/crash"

    def names() -> set[str]:
        return {name.removeprefix("exports/crash/") for name in staged(scoring, "exports/crash/")}

    export(path, run_id="before", version_name="V2", export_mode="full")
    old = names()
    points = ["write _SNOWML_EXPORT", "remove _SUCCESS", "remove ", "upload model/model.yaml"]
    points += ["write _SUCCESS", "remove _SNOWML_EXPORT"]
    whole_at = {}

    def crashing(name: str, real: Any) -> Any:
        def step(self: Any, path: str, *arguments: Any) -> None:
            real(self, path, *arguments)
            if points and f"{name} {path}".startswith(points[0]):
                raise Crash

        return step

    with monkeypatch.context() as patch:
        for name in ("write", "upload", "remove"):
            patch.setattr(StageTarget, name, crashing(name, getattr(StageTarget, name)))
        while points:
            with pytest.raises(Crash):
                export(path, version_name="V1", if_exists="replace")
            whole_at[points.pop(0)] = ("_SUCCESS" in names(), old <= names())
        result = export(path, version_name="V1", if_exists="replace")
    assert whole_at == {
        "write _SNOWML_EXPORT": (True, True),
        "remove _SUCCESS": (False, False),
        "remove ": (False, False),
        "upload model/model.yaml": (False, False),
        "write _SUCCESS": (True, False),
        "remove _SNOWML_EXPORT": (True, False),
    }
    assert result["exported"] is True
    assert names() == {"_SUCCESS", *(name for name in names() if name.startswith("model/"))}
    assert len(names()) == result["files"] + 1


def test_what_a_second_run_does(scoring, export, tmp_path) -> None:
    path = ObjectStoragePath(f"file://{tmp_path}")
    first = export(path)
    assert export(path) == first  # a retry of the same try
    with pytest.raises(
        ExportExistsError, match=r"has .*M V1 \(model\) of .* already, exported by bad_day export one"
    ):
        export(path, run_id="two")
    before = under(tmp_path)
    assert export(path, run_id="two", if_exists="reuse") == {**first, "exported": False}
    assert under(tmp_path) == before
    with pytest.raises(ExportExistsError, match="if_exists is 'reuse'"):
        export(path, run_id="two", if_exists="reuse", version_name="V2")
    assert export(path, run_id="two", if_exists="replace", version_name="V2")["version"] == "V2"
    assert json.loads((tmp_path / "_SUCCESS").read_text())["version"] == "V2"
    # Files are missing: it is not whole, whatever _SUCCESS says.
    (tmp_path / "model" / "model.yaml").unlink()
    assert export(path, run_id="three", if_exists="reuse", version_name="V2")["exported"] is True


def test_somebodys_files_stay(export, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for if_exists in ("fail", "reuse", "replace"):
        with pytest.raises(ExportExistsError, match=r"no export of this operator's \(notes.txt\)"):
            export(f"file://{tmp_path}", if_exists=if_exists)
    assert under(tmp_path) == {"notes.txt": b"mine"}


def test_two_at_the_same_place_at_the_same_time(export, tmp_path, monkeypatch) -> None:
    """The one that was overtaken says so, and does not call a mixture whole."""
    path, real = f"file://{tmp_path}", ObjectStorageTarget.upload
    inner = []

    def upload(self: Any, name: str, file: Path) -> None:
        real(self, name, file)
        if not inner:
            inner.append(True)
            assert export(path, run_id="two", version_name="V2", if_exists="replace")["exported"]

    monkeypatch.setattr(ObjectStorageTarget, "upload", upload)
    with pytest.raises(ExportExistsError, match="at the same time"):
        export(path)


def test_an_alias_is_resolved_once(scoring, export, tmp_path, monkeypatch) -> None:
    hook = scoring.hook()
    hook.rows("CREATE OR REPLACE MODEL MOVING WITH VERSION V1 FROM MODEL M VERSION V1")
    hook.rows("ALTER MODEL MOVING ADD VERSION V2 FROM MODEL M VERSION V1")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorageTarget, "upload", lambda *_: (_ for _ in ()).throw(Crash()))
            with pytest.raises(Crash):
                export(f"file://{tmp_path}", model_name="MOVING")
        hook.rows("ALTER MODEL MOVING SET DEFAULT_VERSION = V2")
        assert export(f"file://{tmp_path}", model_name="MOVING")["version"] == "V1"
    finally:
        hook.rows("DROP MODEL MOVING")


def test_a_name_that_ends_in_the_files_address_is_refused(scoring, export, tmp_path) -> None:
    hook = scoring.hook()
    hook.rows('CREATE MODEL "A/B" WITH VERSION V1 FROM MODEL M VERSION V1')
    try:
        with pytest.raises(InvalidNameError, match="holds /"):
            export(f"file://{tmp_path}", model_name='"A/B"')
    finally:
        hook.rows('DROP MODEL "A/B"')
    assert under(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"path": "exports/x"}, InvalidArgumentError, "write a stage's directory"),
        ({"path": "@ST"}, InvalidArgumentError, "a stage's root"),
        ({"path": "@ST/a b"}, InvalidNameError, "a b"),
        ({"path": "@NOPE/x"}, StageNotFoundError, "There is no stage"),
        ({"path": "@BUCKET/x"}, StageNotInternalError, "EXTERNAL"),
        ({"export_mode": "half"}, InvalidArgumentError, "export_mode is 'half'"),
        ({"if_exists": "next"}, InvalidArgumentError, "if_exists is 'next'"),
        ({"model_name": "NOPE"}, ModelNotFoundError, r"There is no model .*NOPE"),
        ({"version_name": "V9"}, ModelVersionNotFoundError, "V9"),
    ],
)
def test_what_makes_no_sense_writes_nothing(export, tmp_path, arguments, error, says) -> None:
    with pytest.raises(error, match=says):
        export(**{"path": f"file://{tmp_path}", **arguments})
    assert under(tmp_path) == {}


def test_a_fine_tuned_model_has_no_files(scoring, export, tmp_path, finetuned) -> None:
    with pytest.raises(ModelNotExportableError, match="made by Cortex fine-tuning"):
        export(f"file://{tmp_path}", model_name=finetuned)
