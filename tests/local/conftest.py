"""A schema with a few small models, registered once by the real client for all tests here."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

HELPER = '''
def shift(values, by):
    """Code that the model brings along."""
    print("shifting by", by)
    return values + by
'''


@pytest.fixture(scope="session")
def has_ended() -> Callable[[int], bool]:
    """Whether a process has ended. A killed one goes a moment later, or when its parent asks for it."""

    def has_ended(pid: int, patience: float = 5) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.05)
        return False

    return has_ended


@pytest.fixture(scope="session")
def rows():
    import pandas as pd

    return pd.DataFrame({"F1": [float(i) for i in range(40)], "F2": [float(i % 7) for i in range(40)]})


@pytest.fixture(scope="session")
def models(local_snowflake, rows, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """``session`` and ``registry`` of a schema with the models CLASSIFIER, CUSTOM and PARTITIONED."""
    from sklearn.linear_model import LogisticRegression
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    session = Session.builder.configs(local_snowflake.connection_parameters).create()
    session.sql("CREATE OR REPLACE SCHEMA SNOWML.SHARED_MODELS").collect()
    session.sql("USE SCHEMA SNOWML.SHARED_MODELS").collect()
    registry = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
    classifier = LogisticRegression().fit(rows, (rows.F1 > 20).map({True: "late", False: "on time"}))
    registry.log_model(
        classifier,
        model_name="CLASSIFIER",
        version_name="V1",
        sample_input_data=rows,
        comment="says late or on time",
        metrics={"accuracy": 0.75},
        options={"target_methods": ["predict", "predict_proba"]},
    )
    _log_custom(registry, tmp_path_factory.mktemp("code"), rows)
    _log_partitioned(registry)
    session.sql(
        "CREATE COMPUTE POOL IF NOT EXISTS JOBS_POOL MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = CPU_X64_XS"
    ).collect()
    yield SimpleNamespace(session=session, registry=registry, classifier=classifier)
    session.close()


def _log_custom(registry, directory: Path, rows) -> None:
    import sys

    import pandas as pd
    from snowflake.ml.model import custom_model, model_signature

    (directory / "flightcode").mkdir()
    (directory / "flightcode" / "__init__.py").write_text("")
    (directory / "flightcode" / "helper.py").write_text(HELPER)

    class Shifter(custom_model.CustomModel):
        @custom_model.inference_api
        def predict(self, X: pd.DataFrame, *, by: float = 100.0) -> pd.DataFrame:
            from flightcode.helper import shift

            return pd.DataFrame({"SHIFTED": shift(X["F1"], by)})

        @custom_model.inference_api
        def fail(self, X: pd.DataFrame) -> pd.DataFrame:
            raise ValueError(f"no good: {len(X)} rows")

        @custom_model.inference_api
        def sleep(self, X: pd.DataFrame) -> pd.DataFrame:
            import time

            print("going to sleep", flush=True)
            time.sleep(600)
            return pd.DataFrame({"SLEPT": X["F1"]})

        @custom_model.inference_api
        def quit(self, X: pd.DataFrame) -> pd.DataFrame:
            import os

            os._exit(3)

    inputs = [
        model_signature.FeatureSpec("F1", model_signature.DataType.DOUBLE),
        model_signature.FeatureSpec("F2", model_signature.DataType.DOUBLE),
    ]
    by = model_signature.ParamSpec(name="by", dtype=model_signature.DataType.DOUBLE, default_value=100.0)

    def signature(output: str, params=()) -> model_signature.ModelSignature:
        feature = model_signature.FeatureSpec(output, model_signature.DataType.DOUBLE)
        return model_signature.ModelSignature(inputs=inputs, outputs=[feature], params=list(params))

    sys.path.insert(0, str(directory))
    try:
        registry.log_model(
            Shifter(custom_model.ModelContext()),
            model_name="CUSTOM",
            version_name="V1",
            signatures={
                "predict": signature("SHIFTED", [by]),
                "fail": signature("FAILED"),
                "sleep": signature("SLEPT"),
                "quit": signature("LEFT"),
            },
            code_paths=[str(directory / "flightcode")],
        )
    finally:
        sys.path.remove(str(directory))


def _log_partitioned(registry) -> None:
    import pandas as pd
    from snowflake.ml.model import custom_model, model_signature

    class Totals(custom_model.CustomModel):
        @custom_model.partitioned_api
        def total(self, X: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"TOTAL": [X["F1"].sum()]})

    double = model_signature.DataType.DOUBLE
    inputs = [model_signature.FeatureSpec(n, double) for n in ("F1", "F2")]
    outputs = [model_signature.FeatureSpec("TOTAL", double)]
    registry.log_model(
        Totals(custom_model.ModelContext()),
        model_name="PARTITIONED",
        version_name="V1",
        signatures={"total": model_signature.ModelSignature(inputs=inputs, outputs=outputs)},
        options={"function_type": "TABLE_FUNCTION"},
        target_platforms=["SNOWPARK_CONTAINER_SERVICES"],
    )


@pytest.fixture
def model(models, session, schema) -> str:
    """A model of the test's own with the versions V1 and V2; its qualified name."""
    name = f"{schema}.FLIGHTS"
    source = "FROM MODEL SNOWML.SHARED_MODELS.CLASSIFIER VERSION V1"
    session.sql(f"CREATE MODEL {name} WITH VERSION V1 {source}").collect()
    session.sql(f"ALTER MODEL {name} ADD VERSION V2 {source}").collect()
    return name


@pytest.fixture
def registry(session, schema):
    from snowflake.ml.registry import Registry

    database, name = schema.split(".")
    return Registry(session, database_name=database, schema_name=name)
