"""What the tests stand on: one local Snowflake, a fresh schema per test, an Airflow of their own."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def local_snowflake() -> Iterator:
    """A running :class:`LocalSnowflake` for the whole test session."""
    from airflow_provider_snowml.local import LocalSnowflake

    with LocalSnowflake() as snowflake:
        yield snowflake


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


@pytest.fixture
def airflow_conn(local_snowflake, schema, monkeypatch) -> str:
    """The Airflow connection ``snowflake_default``, into the fresh schema."""
    database, name = schema.split(".")
    uri = local_snowflake.airflow_connection_uri
    uri = uri.replace("@/PUBLIC?", f"@/{name}?")
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", uri)
    return "snowflake_default"


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own database, migrated once; what ``dag.test()`` needs."""
    from airflow.utils.db import initdb

    initdb()
