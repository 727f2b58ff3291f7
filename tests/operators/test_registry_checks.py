"""What is looked at before a registration and after it, and a worker that is killed in between."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ModelPackageNotFoundError,
    ModelVerificationError,
)
from airflow_provider_snowml.hooks.registration import read_registration
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator

WORKER = str(Path(__file__).with_name("registry_worker.py"))


def fitted(**fields: Any) -> ModelArtifact:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"A": [1.0, 2.0, 3.0, 4.0], "B": [0.5, 0.25, 0.125, 0.0]})
    model = LogisticRegression().fit(rows, rows["A"] > 2)
    return ModelArtifact(model, **{"sample_input_data": rows, **fields})


def train() -> ModelArtifact:
    return fitted()


def register(**arguments: Any) -> SnowMLRegisterModelOperator:
    defaults = {"model_name": "CHECKED", "version_name": "V1", "python_callable": train}
    return SnowMLRegisterModelOperator(task_id="register", **{**defaults, **arguments})


@pytest.fixture
def hook(airflow_conn, schema) -> SnowMLHook:
    return SnowMLHook()


def test_what_a_prediction_must_give_lies_with_the_version(hook, schema, task_context) -> None:
    register().execute(task_context("register"))
    made = read_registration(hook, QualifiedName.parse(f"{schema}.CHECKED"), "V1")
    assert made.owner.task_id == "register"
    assert made.check.function_name == "predict"
    assert made.check.columns == ["A", "B"]
    assert made.check.rows == [[1.0, 0.5], [2.0, 0.25], [3.0, 0.125], [4.0, 0.0]]
    assert made.check.expected == [[False], [False], [True], [True]]


def test_a_version_that_predicts_otherwise_is_refused_and_stays_so(
    hook, schema, task_context, monkeypatch
) -> None:
    from airflow_provider_snowml.hooks import model_predictions

    store, task = task_context.store(), register()
    table, turns = model_predictions._table, iter([[[True]]])  # what was predicted here is turned round
    with monkeypatch.context() as patch, pytest.raises(ModelVerificationError, match="row 0 of the sample"):
        patch.setattr(model_predictions, "_table", lambda found: next(turns, None) or table(found))
        task.execute(task_context("register", store=store))
    with pytest.raises(ModelVerificationError, match="drop the version"):
        task.execute(task_context("register", store=store))
    # Whoever wants it all the same says so.
    task.verify = False
    assert task.execute(task_context("register", store=store))["version"] == "V1"


def test_signatures_as_dictionaries_and_a_sample_as_rows(hook, task_context) -> None:
    double = {"type": "DOUBLE", "nullable": True}
    signature = {
        "inputs": [{"name": "A", **double}, {"name": "B", **double}],
        "outputs": [{"name": "LATE", "type": "BOOL", "nullable": True}],
    }
    task = register(
        python_callable=lambda: fitted(sample_input_data=None),
        signatures={"predict": signature},
        task="tabular_binary_classification",
        ext_modules=["json"],
        comment="it's",
        metrics={"rows": 4},
        conda_dependencies=["scikit-learn"],
        resource_constraint={"architecture": "x86"},
        python_version="3.11",
        options={"relax_version": False},
    )
    result = task.execute(task_context("register"))
    assert (result["functions"], result["metrics"]) == (["predict"], {"rows": 4})
    (version,) = hook.rows("SHOW VERSIONS IN MODEL CHECKED")
    assert version["comment"] == "it's"
    assert json.loads(version["model_attributes"])["task"] == "TABULAR_BINARY_CLASSIFICATION"
    (row,) = hook.rows("SELECT MODEL(CHECKED, V1)!PREDICT(4, 0):LATE::BOOLEAN AS LATE")
    assert row["LATE"] is True

    task = register(version_name="V2", sample_input_data=[{"A": 1.0, "B": 2.0}])
    task.python_callable = lambda: fitted(sample_input_data=None)
    assert "predict_proba" in task.execute(task_context("register"))["functions"]


def test_packages_that_a_warehouse_lacks(hook, schema, task_context, caplog) -> None:
    def run(**arguments: Any) -> dict[str, Any]:
        return register(**arguments).execute(task_context("register"))

    with pytest.raises(ModelPackageNotFoundError, match=r"lacks scikit-learn==0\.1, no-such-package"):
        run(conda_dependencies=["scikit-learn==0.1", "numpy", "no-such-package"])
    with pytest.raises(ModelPackageNotFoundError, match="lacks conda-forge::scikit-learn"):
        run(conda_dependencies=["conda-forge::scikit-learn"])
    with pytest.raises(InvalidArgumentError, match="'numpy=2' in conda_dependencies is no package"):
        run(conda_dependencies=["numpy=2"])
    assert hook.rows(f"SHOW MODELS IN SCHEMA {schema}") == []
    run(conda_dependencies=["scikit-learn", "numpy>=1"], version_name="BOTH")
    run(conda_dependencies=["no-such-package"], platform_fallback=True, version_name="FALLEN_BACK")
    assert "registered for SNOWPARK_CONTAINER_SERVICES only" in caplog.text
    platforms = {row["name"]: row["runnable_in"] for row in hook.rows("SHOW VERSIONS IN MODEL CHECKED")}
    assert json.loads(platforms["FALLEN_BACK"]) == ["SNOWPARK_CONTAINER_SERVICES"]
    assert "WAREHOUSE" in json.loads(platforms["BOTH"])


def test_a_worker_that_is_killed_has_made_the_version(
    local_snowflake, hook, schema, tmp_path, monkeypatch
) -> None:
    local_snowflake.fault("hold", statement="KILLED MODIFY VERSION V1 SET METADATA")
    monkeypatch.setenv("SNOWML_TEST_DIRECTORY", str(tmp_path))
    worker = subprocess.Popen([sys.executable, WORKER], stdout=subprocess.DEVNULL, env=os.environ.copy())
    try:
        deadline = time.monotonic() + 300
        while not any(fault["held"] for fault in local_snowflake.faults()):
            assert worker.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        worker.kill()
        worker.wait()
        for fault in local_snowflake.faults():
            local_snowflake.release(fault["id"], "drop")
    (version,) = hook.rows("SHOW VERSIONS IN MODEL KILLED")
    assert "auc" not in version["metadata"], "the kill came before the metrics"

    result = runpy.run_path(WORKER)["one_try"](str(tmp_path))
    assert (result["version"], result["metrics"]) == ("V1", {"auc": 0.9})
    (version,) = hook.rows("SHOW VERSIONS IN MODEL KILLED")
    assert json.loads(version["metadata"])["metrics"] == {"auc": 0.9}
    assert (tmp_path / "trainings").read_text() == "x", "it is trained once"
