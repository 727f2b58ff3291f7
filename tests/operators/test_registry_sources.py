"""Where models come from: files, MLflow, Hugging Face, a copy, a decorated callable, another Python."""

from __future__ import annotations

import json
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelNotFoundError,
    ModelVersionExistsError,
    StatementError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator

SAMPLE = [{"A": float(n), "B": n / 8} for n in range(12)]


def register(**arguments: Any) -> SnowMLRegisterModelOperator:
    defaults = {"model_name": "FOUND", "version_name": "V1", "sample_input_data": SAMPLE}
    return SnowMLRegisterModelOperator(task_id="register", **{**defaults, **arguments})


@pytest.fixture
def hook(airflow_conn, schema) -> SnowMLHook:
    return SnowMLHook()


def train(session: Any, late_from: int) -> ModelArtifact:
    import sys

    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = session.sql("SELECT SEQ4()::FLOAT AS A FROM TABLE(GENERATOR(ROWCOUNT => 20))").to_pandas()
    model = LogisticRegression().fit(rows, rows["A"] > late_from)
    return ModelArtifact(
        model,
        sample_input_data=pd.DataFrame({"A": [1.0, 20.0]}),
        metrics={"rows": len(rows), "python": sys.executable, "has_airflow": int("airflow" in sys.modules)},
        comment="trained elsewhere",
    )


@pytest.fixture(scope="module")
def rows():
    import pandas as pd

    return pd.DataFrame(SAMPLE)


def save_sklearn(path: Path, rows: Any) -> Any:
    import joblib
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(rows, rows["A"] * 2)
    joblib.dump(model, path)
    return model.predict(rows)[3]


def save_xgboost(path: Path, rows: Any) -> Any:
    import xgboost

    data = xgboost.DMatrix(rows, rows["A"] * 2)
    model = xgboost.train({"max_depth": 2}, data, num_boost_round=3)
    model.save_model(path)
    return model.predict(data)[3]


def save_lightgbm(path: Path, rows: Any) -> Any:
    import lightgbm

    data = lightgbm.Dataset(rows, rows["A"] * 2)
    model = lightgbm.train({"min_data_in_leaf": 1, "verbose": -1}, data, num_boost_round=3)
    model.save_model(path)
    return model.predict(rows)[3]


def save_catboost(path: Path, rows: Any) -> Any:
    catboost = pytest.importorskip("catboost")
    model = catboost.CatBoostRegressor(iterations=3, depth=2, verbose=False, allow_writing_files=False)
    model.fit(rows, rows["A"] * 2)
    model.save_model(str(path))
    return model.predict(rows)[3]


def save_torchscript(path: Path, rows: Any) -> Any:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1).double()
    torch.jit.script(model).save(str(path))
    return model(torch.from_numpy(rows.to_numpy()))[3].item()


def save_keras(path: Path, rows: Any) -> Any:
    keras = pytest.importorskip("keras", exc_type=ImportError)  # also for want of a backend
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save(path)
    return model.predict(rows.to_numpy(), verbose=0)[3].item()


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".pkl", save_sklearn),
        (".ubj", save_xgboost),
        (".json", save_xgboost),
        (".txt", save_lightgbm),
        (".cbm", save_catboost),
        (".pt", save_torchscript),
        (".keras", save_keras),
    ],
)
def test_model_files(hook, task_context, tmp_path, rows, suffix, save) -> None:
    file = tmp_path / f"model{suffix}"
    expected = save(file, rows)
    location = str(file)
    if suffix == ".ubj":
        hook.rows("CREATE STAGE FILES")
        hook.rows(f"PUT 'file://{file}' '@FILES/trained/' AUTO_COMPRESS = FALSE")
        location = "@files/trained/model.ubj"
    elif suffix == ".txt":
        location = file.as_uri()
    result = register(model_file=location, task="TABULAR_REGRESSION").execute(task_context("register"))
    (function,) = result["functions"]
    assert function == ("forward" if suffix == ".pt" else "predict")
    (row,) = hook.rows(f"SELECT MODEL(FOUND, V1)!{function}(3, 0.375) AS R")
    assert list(json.loads(row["R"]).values()) == [pytest.approx(float(expected), rel=1e-5)]


def test_files_that_are_no_model(hook, schema, task_context, tmp_path, monkeypatch) -> None:
    def run(file: str) -> None:
        register(model_file=file).execute(task_context("register"))

    with pytest.raises(InvalidArgumentError, match=r"'model\.onnx' is of no known format.*CustomModel"):
        run(str(tmp_path / "model.onnx"))
    with pytest.raises(InvalidArgumentError, match=r"There is no file .*model\.pkl"):
        run(str(tmp_path / "model.pkl"))
    with pytest.raises(InvalidArgumentError, match="There is no file file://"):
        run((tmp_path / "model.ubj").as_uri())
    # As if they were not installed.
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    (tmp_path / "model.keras").touch()
    with pytest.raises(InvalidArgumentError, match="needs keras, which is not installed"):
        run(str(tmp_path / "model.keras"))
    with pytest.raises(InvalidArgumentError, match="needs mlflow, which is not installed"):
        register(mlflow_model_uri="models:/churn/3").execute(task_context("register"))
    with pytest.raises(InvalidArgumentError, match="Give exactly one of python_callable, model_file"):
        register().execute(task_context("register"))
    assert hook.rows(f"SHOW MODELS IN SCHEMA {schema}") == []


@pytest.mark.parametrize("kept", ["directory", "registry"])
def test_a_model_of_mlflow(hook, task_context, tmp_path, rows, monkeypatch, kept) -> None:
    mlflow = pytest.importorskip("mlflow")
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(rows, rows["A"] * 2)
    signature = mlflow.models.infer_signature(rows, model.predict(rows))
    saved = {"sk_model": model, "signature": signature, "serialization_format": "cloudpickle"}
    if kept == "directory":
        uri = str(tmp_path / "saved")
        mlflow.sklearn.save_model(**saved, path=uri)
    else:
        uri = "models:/churn/1"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        monkeypatch.chdir(tmp_path)  # where MLflow keeps its artifacts
        mlflow.sklearn.log_model(**saved, name="churn", registered_model_name="churn")
    arguments = {"mlflow_model_uri": uri, "sample_input_data": None}
    result = register(**arguments, task="TABULAR_REGRESSION").execute(task_context("register"))
    assert result["functions"] == ["predict"]
    (row,) = hook.rows("SELECT MODEL(FOUND, V1)!PREDICT(3, 0.375) AS R")
    assert list(json.loads(row["R"]).values()) == [pytest.approx(6.0)]


def test_hugging_face_is_fetched_by_snowflake(hook, local_snowflake, task_context) -> None:
    note = local_snowflake.fault("note", statement="IMPORT_MODEL", times=10)
    arguments = {
        "huggingface_model": "ProsusAI/finbert",
        "huggingface_task": "text-classification",
        "sample_input_data": None,
        "comment": "it's theirs",
    }
    with pytest.raises(InvalidArgumentError, match="give huggingface_task and compute_pool_for_log"):
        register(**arguments).execute(task_context("register"))
    try:
        # The local Snowflake has no way to Hugging Face, and says so.
        with pytest.raises(StatementError, match="IMPORT_MODEL"):
            register(
                **arguments, compute_pool_for_log="LOADERS", huggingface_secret="DB.SC.HF_TOKEN"
            ).execute(task_context("register"))
        (fault,) = [fault for fault in local_snowflake.faults() if fault["id"] == note]
    finally:
        local_snowflake.clear_faults()
    (sent,) = fault["requests"]
    for part in ("hf_model_name: ProsusAI/finbert", "task: text-classification", "compute_pool: LOADERS"):
        assert part in sent
    assert "token_secret_object: DB.SC.HF_TOKEN" in sent


def test_a_copy_of_another_version(scoring, schema, local_snowflake, task_context, monkeypatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_into(schema.split(".")[1])
    )
    hook, store = SnowMLHook(), task_context.store()
    copy = register(
        source_model=f"{scoring.schema}.M",
        source_version="CHAMPION",
        sample_input_data=None,
        comment="from dev",
        metrics={"checked": 1},
    )
    result = copy.execute(task_context("register", store=store))
    assert (result["model"], result["version"], result["metrics"]) == (
        f"{schema}.FOUND",
        "V1",
        {"checked": 1},
    )
    assert "predict" in result["functions"]
    (version,) = hook.rows("SHOW VERSIONS IN MODEL FOUND")
    assert version["comment"] == "from dev"
    # A retry finds it, another run does not take it.
    assert copy.execute(task_context("register", store=store)) == result
    with pytest.raises(ModelVersionExistsError):
        copy.execute(task_context("register"))
    copy.if_exists = "replace"
    assert copy.execute(task_context("register"))["version"] == "V1"
    copy.if_exists = "next"
    assert copy.execute(task_context("register"))["version"] == "V1_2"
    # snowflake-ml would send such a comment broken, once the copy was made.
    copy.comment = "5 $"
    with pytest.raises(InvalidNameError, match="comment"):
        copy.execute(task_context("register"))
    assert len(hook.rows("SHOW VERSIONS IN MODEL FOUND")) == 2
    with pytest.raises(ModelNotFoundError):
        register(source_model="NOPE", version_name="V3", sample_input_data=None).execute(
            task_context("register")
        )
    with pytest.raises(InvalidArgumentError, match="leave out sample_input_data"):
        register(source_model=f"{scoring.schema}.M").execute(task_context("register"))


@pytest.fixture(scope="module")
def other_python(tmp_path_factory) -> str:
    """An interpreter that has what this one has, but no Airflow that it would get to see."""
    directory = tmp_path_factory.mktemp("other")
    venv.create(directory, symlinks=True)
    library = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = directory / "lib" / library / "site-packages"
    (packages / "nearby.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    # In front of the real one: an Airflow that cannot be imported.
    (packages / "airflow.py").write_text("raise ModuleNotFoundError('there is no Airflow here')\n")
    return str(directory / "bin" / "python")


@pytest.fixture
def nearby_wheel(tmp_path) -> Path:
    """A requirement that brings what this environment has, without an index; and no Airflow."""
    wheel = tmp_path / "nearby-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nearby.pth", sysconfig.get_paths()["purelib"] + "\n")
        archive.writestr("airflow.py", "raise ModuleNotFoundError('there is no Airflow here')\n")
        archive.writestr("nearby-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: nearby\nVersion: 1\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("nearby-1.dist-info/WHEEL", tags)
        archive.writestr("nearby-1.dist-info/RECORD", "nearby.pth,,\nairflow.py,,\n")
    return wheel


def test_a_virtual_environment_of_requirements(hook, task_context, nearby_wheel) -> None:
    result = register(
        requirements=[f"nearby @ {nearby_wheel.as_uri()}"],
        python_callable=train,
        op_kwargs={"late_from": 5},
        sample_input_data=None,
    ).execute(task_context("register"))
    assert (result["metrics"]["rows"], result["metrics"]["has_airflow"]) == (20, 0)
    assert result["metrics"]["python"] != sys.executable
    assert "predict_proba" in result["functions"]


def test_another_python(hook, task_context, other_python, tmp_path) -> None:
    arguments: dict[str, Any] = {
        "external_python": other_python,
        "python_callable": train,
        "op_kwargs": {"late_from": 5},
        "sample_input_data": None,
        "tags": None,
    }
    store = task_context.store()
    result = register(**arguments).execute(task_context("register", store=store))
    assert result["metrics"] == {"rows": 20, "python": other_python, "has_airflow": 0}
    assert "predict_proba" in result["functions"]
    # The version itself tells a retry all that it has to know; it is not trained again, but completed.
    hook.rows("ALTER MODEL FOUND MODIFY VERSION V1 SET COMMENT = '' METADATA = '{}'")
    assert register(**arguments).execute(task_context("register", store=store)) == result
    (version,) = hook.rows("SHOW VERSIONS IN MODEL FOUND")
    assert version["comment"] == "trained elsewhere"
    # What goes wrong there has the type that it has here.
    with pytest.raises(InvalidArgumentError, match="task is 'forecast'"):
        register(**arguments, version_name="V2", task="forecast").execute(task_context("register"))
