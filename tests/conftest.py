"""What the tests stand on: one local Snowflake, a fresh schema per test, an Airflow of their own."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no finding.
settings.register_profile(
    "busy", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

# Before anything imports Airflow: it reads its home and configuration at import.
_HOME = tempfile.TemporaryDirectory(prefix="snowml-airflow-")
for _key in [k for k in os.environ if k.startswith(("AIRFLOW_", "AIRFLOW__"))]:
    del os.environ[_key]
os.environ.update(
    {
        "AIRFLOW_HOME": _HOME.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(_HOME.name) / "dags"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME.name}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(Path(_HOME.name) / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)


# -- which tests another version of snowflake-ml-python is tried with --------------------------------------

USES_SNOWFLAKE_ML = re.compile(r"snowflake\.ml\b|log_model|registry\(|RegisterModel|RunModel|snowml_model")
RUNS_WHOLE_AIRFLOW = re.compile(r"airflow_processes|chaos")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell what the markers mean from the code: the test's module, and the fixtures that it gets."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs.values()
        functions = [definition.func for all_of_name in definitions for definition in all_of_name]
        sources = [_source(item.module), *map(_source, functions)]
        # The example DAGs train and register, whatever their tests say.
        if "examples" in item.path.parts or any(USES_SNOWFLAKE_ML.search(source) for source in sources):
            item.add_marker("snowflake_ml")
        if RUNS_WHOLE_AIRFLOW.search(sources[0]) or {"chaos", "deployment"} & {*item.path.parts}:
            item.add_marker("whole_airflow")
    items[:] = _spread(items)


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Files with a whole Airflow evenly between the others, of which some come last.

    What one worker computes fills the time in which the other waits, and both end together. (By itself xdist
    runs files of few tests last, and those take longest: hence ``--no-loadscope-reorder`` in the Makefile.)
    """
    files = [[*of_file] for _, of_file in itertools.groupby(items, key=lambda item: item.path)]
    whole = [file for file in files if file[0].get_closest_marker("whole_airflow")]
    others = [file for file in files if not file[0].get_closest_marker("whole_airflow")]
    between = len(others) // len(whole) if whole else 0
    for place, file in enumerate(whole):
        others.insert(place * (between + 1), file)
    return [item for file in others for item in file]


@functools.cache
def _source(code: Any) -> str:
    return inspect.getsource(code)


# -- a local Snowflake, and an Airflow without processes ---------------------------------------------------


@pytest.fixture(scope="session")
def local_snowflake(snowml_local):
    """The running :class:`LocalSnowflake` of our own pytest plugin, for the whole test session."""
    return snowml_local


@pytest.fixture
def schema(local_snowflake) -> Iterator[str]:
    """A fresh schema, as ``DATABASE.SCHEMA``; dropped afterwards."""
    import snowflake.connector

    name = f"SNOWML.TEST_{uuid.uuid4().hex[:12].upper()}"
    with snowflake.connector.connect(**local_snowflake.connection_parameters) as connection:
        connection.cursor().execute(f"CREATE SCHEMA {name}")
        yield name
        connection.cursor().execute(f"DROP SCHEMA IF EXISTS {name}")


@pytest.fixture
def parameters(local_snowflake, schema) -> dict:
    """The connector's parameters, into the fresh schema."""
    database, name = schema.split(".")
    return {**local_snowflake.connection_parameters, "database": database, "schema": name}


@pytest.fixture
def connection(parameters) -> Iterator:
    """A connector connection in the fresh schema."""
    import snowflake.connector

    with snowflake.connector.connect(**parameters) as connection:
        yield connection


@pytest.fixture
def session(parameters) -> Iterator:
    """A Snowpark session in the fresh schema."""
    from snowflake.snowpark import Session

    session = Session.builder.configs(parameters).create()
    yield session
    session.close()


@pytest.fixture(scope="module", autouse=True)
def no_session_without_connection() -> Iterator[None]:
    """Snowpark's sessions are closed, not only their connections.

    From one of the others, snowflake-ml's telemetry copies what it has not sent, at every call, into itself:
    it doubles until the memory is full.
    """
    yield
    if snowpark := sys.modules.get("snowflake.snowpark.session"):
        assert [session for session in snowpark._active_sessions if session.connection.is_closed()] == []


@pytest.fixture(scope="module", autouse=True)
def no_fault_left(request) -> Iterator[None]:
    """What a module's tests let go wrong goes wrong in no other's, whichever the worker takes next."""
    items = [item for item in request.session.items if item.path == request.path]
    if not any("local_snowflake" in item.fixturenames for item in items):
        yield
        return
    snowflake = request.getfixturevalue("local_snowflake")
    yield
    left = snowflake.faults()
    snowflake.clear_faults()
    assert left == []


@pytest.fixture(scope="session")
def run_batch() -> Any:
    """``ModelVersion.run_batch``. That of snowflake-ml-python 1.x is left out: it sends another statement, to
    what Snowflake will remove. 1.x has today's by a private name.
    """
    from snowflake.ml.model import ModelVersion

    return getattr(ModelVersion, "_run_batch_v2", ModelVersion.run_batch)


@pytest.fixture
def airflow_conn(local_snowflake, schema, monkeypatch) -> str:
    """The Airflow connection ``snowflake_default``, into the fresh schema."""
    _, name = schema.split(".")
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_into(name))
    return "snowflake_default"


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own database, migrated once; what ``dag.test()`` needs."""
    from airflow.utils.db import initdb

    initdb()


# -- the provider -----------------------------------------------------------------------------------------


class Scoring:
    """What the provider's tests score with: a schema with models, a table, a stage and a compute pool.

    ``M`` predicts whether F1 > 20 and has versions V1 (the default, CHAMPION) and V2; ``SLOW`` waits F1
    seconds, says so, and fails if F1 is negative.
    """

    pool = "TEST_POOL"

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.database, self.name = schema.split(".")

    def hook(self):
        from airflow_provider_snowml.hooks.snowml import SnowMLHook

        return SnowMLHook(database=self.database, schema=self.name)


def _log_models(hook) -> None:
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import infer_signature

    def predict(self, rows):
        import time

        seconds = float(rows["F1"].max())
        print(f"waiting {seconds} seconds", flush=True)
        if seconds < 0:
            raise ValueError("the model broke on purpose")
        time.sleep(seconds)
        return rows[["F1"]].rename(columns={"F1": "WAITED"})

    # snowflake-ml reads annotations as they are, and here they would be texts. Made in a function, the class
    # is pickled by value: the job's process cannot import this module.
    predict.__annotations__ = {"rows": pd.DataFrame, "return": pd.DataFrame}
    slow_model = type("Slow", (custom_model.CustomModel,), {"predict": custom_model.inference_api(predict)})

    features = pd.DataFrame({"F1": np.arange(60.0), "F2": np.arange(60.0)[::-1]})
    classifier = LogisticRegression().fit(features, (features.F1 > 20).astype(int))
    waited = features[["F1"]].rename(columns={"F1": "WAITED"})
    with hook.session() as session:
        registry = hook.registry(session, hook.default_schema())
        for version in ("V1", "V2"):
            registry.log_model(
                classifier, model_name="M", version_name=version, sample_input_data=features.head()
            )
        registry.get_model("M").version("V1").set_alias("CHAMPION")
        registry.log_model(
            slow_model(),
            model_name="SLOW",
            version_name="V1",
            signatures={"predict": infer_signature(features[["F1"]], waited)},
        )


@pytest.fixture(scope="session")
def scoring_schema(local_snowflake) -> Iterator[Scoring]:
    import snowflake.connector

    scoring = Scoring(f"SNOWML.SCORING_{uuid.uuid4().hex[:12].upper()}")
    with (
        snowflake.connector.connect(**local_snowflake.connection_parameters) as connection,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_uri)
        execute = connection.cursor().execute
        execute(f"CREATE SCHEMA {scoring.schema}")
        execute(
            f"CREATE TABLE {scoring.schema}.X AS SELECT SEQ4()::INT AS ID, SEQ4()::FLOAT AS F1, "
            "(59 - SEQ4())::FLOAT AS F2, DATEADD(day, MOD(SEQ4(), 2), '2013-06-01'::DATE) AS DAY "
            "FROM TABLE(GENERATOR(ROWCOUNT => 60))"
        )
        execute(f"CREATE STAGE {scoring.schema}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        execute(f"CREATE STAGE {scoring.schema}.BUCKET URL = 's3://elsewhere/'")
        execute(
            f"CREATE COMPUTE POOL IF NOT EXISTS {scoring.pool} MIN_NODES = 1 MAX_NODES = 1 "
            "INSTANCE_FAMILY = CPU_X64_XS"
        )
        _log_models(scoring.hook())
        yield scoring
        execute(f"DROP SCHEMA IF EXISTS {scoring.schema}")


@pytest.fixture
def scoring(scoring_schema, local_snowflake, monkeypatch) -> Scoring:
    """The models, table, stage and pool, with ``snowflake_default`` in their schema; shared."""
    uri = local_snowflake.airflow_connection_into(scoring_schema.name)
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", uri)
    return scoring_schema


class Serving(Scoring):
    """What services are tested with: two compute pools, and models that cannot be served well.

    ``sleeping`` is a compute pool that never starts anything. ``BROKEN`` cannot be loaded in a service,
    ``TABLES_ONLY`` has a table function only, ``IN_WAREHOUSE`` has no container among its target platforms.
    """

    pool = "SERVICE_POOL"
    sleeping = "SLEEPING_SERVICE_POOL"

    def deploy(self, name: str, *, wait: bool = True, **arguments):
        """Deploy a service by hand: nobody's, to the provider."""
        from airflow_provider_snowml.core.names import Identifier, QualifiedName
        from airflow_provider_snowml.core.service_deployment import ServiceDeployment

        deployment = ServiceDeployment(
            name=QualifiedName.parse(f"{self.schema}.{name}"),
            model=QualifiedName.parse(f"{self.schema}.{arguments.pop('model', 'M')}"),
            version=arguments.pop("version", "V1"),
            service_compute_pool=Identifier(arguments.pop("pool", self.pool)),
            **{"min_instances": 1, **arguments},
        )
        hook = self.hook()
        if wait:
            hook.rows(deployment.sql())
            return None
        return hook.submit(deployment.sql())

    def services(self) -> dict[str, str]:
        """The services of the schema, by name, with their statuses."""
        rows = self.hook().rows(f"SHOW SERVICES EXCLUDE JOBS IN SCHEMA {self.schema}")
        return {row["name"]: row["status"] for row in rows}


def _log_unservable_models(hook) -> None:
    import pandas as pd
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import infer_signature

    def load(self, context=None) -> None:
        import sys

        if "pytest" not in sys.modules:
            raise RuntimeError("this model is broken on purpose")
        custom_model.CustomModel.__init__(self, context)

    def predict(self, rows):
        return rows[["F1"]].rename(columns={"F1": "F2"})

    predict.__annotations__ = {"rows": pd.DataFrame, "return": pd.DataFrame}
    members = {"predict": custom_model.inference_api(predict)}
    whole = type("Whole", (custom_model.CustomModel,), members)
    broken = type("Broken", (custom_model.CustomModel,), {**members, "__init__": load})
    rows = pd.DataFrame({"F1": [1.0, 2.0]})
    signatures = {"predict": infer_signature(rows, rows.rename(columns={"F1": "F2"}))}
    with hook.session() as session:
        registry = hook.registry(session, hook.default_schema())
        for name, kind, more in (
            ("BROKEN", broken, {}),
            ("TABLES_ONLY", whole, {"options": {"function_type": "TABLE_FUNCTION"}}),
            ("IN_WAREHOUSE", whole, {"target_platforms": ["WAREHOUSE"]}),
        ):
            registry.log_model(kind(), model_name=name, version_name="V1", signatures=signatures, **more)


@pytest.fixture(scope="session")
def serving_schema(scoring_schema, local_snowflake) -> Serving:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_uri)
        serving = Serving(scoring_schema.schema)
        hook = serving.hook()
        hook.rows(
            f"CREATE COMPUTE POOL IF NOT EXISTS {serving.pool} MIN_NODES = 1 MAX_NODES = 4 "
            "INSTANCE_FAMILY = CPU_X64_XS"
        )
        hook.rows(
            f"CREATE COMPUTE POOL IF NOT EXISTS {serving.sleeping} MIN_NODES = 1 MAX_NODES = 1 "
            "INSTANCE_FAMILY = CPU_X64_XS AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
        )
        _log_unservable_models(hook)
    return serving


@pytest.fixture
def serving(scoring, serving_schema) -> Iterator[Serving]:
    """As ``scoring``, for tests of services; those that a test leaves are dropped."""
    yield serving_schema
    for name in serving_schema.services():
        serving_schema.hook().rows(f"DROP SERVICE IF EXISTS {serving_schema.schema}.{name}")


@pytest.fixture
def run_dag(airflow_db):
    """``dag.test()`` of a DAG that no file holds; gives the run, and the XComs by task."""

    def run(dag, **arguments):
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        dag_run = dag.test(**arguments)
        instances = dag_run.get_task_instances()
        return dag_run, {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in instances}

    return run
