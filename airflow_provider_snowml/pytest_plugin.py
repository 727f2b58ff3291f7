"""Pytest plugin: a local Snowflake for the tests of your own DAGs.

pytest loads it by itself wherever this package is installed (``-p no:snowml_local`` leaves it out). Until a
test asks for a fixture it imports neither Airflow nor anything of the extra ``local``.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_snowml.local import LocalSnowflake


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--snowml-local-dir``."""
    parser.getgroup("snowml").addoption(
        "--snowml-local-dir",
        metavar="DIR",
        help="keep the local Snowflake's state and log in DIR; a temporary directory otherwise",
    )


@pytest.fixture(scope="session")
def snowml_local(pytestconfig: pytest.Config) -> Iterator[LocalSnowflake]:
    """A running local Snowflake, for the whole test session; started when the first test asks for it.

    ``snowml_local.connection_parameters`` is for ``snowflake.connector.connect(**...)``,
    ``snowml_local.airflow_connection_uri`` for ``AIRFLOW_CONN_SNOWFLAKE_DEFAULT``. Both lead to one schema
    that all tests share; see :func:`snowml_local_schema` for one of a test's own.
    """
    from airflow_provider_snowml.local.launch import LocalSnowflake, missing_packages

    if missing := missing_packages():
        pytest.fail(
            f"The fixture snowml_local needs the extra 'local' (missing: {', '.join(missing)}): "
            "pip install 'airflow-provider-snowml[local]'",
            pytrace=False,
        )
    with LocalSnowflake(pytestconfig.getoption("--snowml-local-dir"), faults=True) as snowflake:
        yield snowflake
    logging.raiseExceptions = False  # Snowpark logs once more at exit, to pytest's closed streams


@pytest.fixture
def snowml_local_schema(snowml_local: LocalSnowflake, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh schema, as ``DATABASE.SCHEMA``, and the Airflow connection ``snowflake_default`` into it.

    The schema is dropped after the test, with everything in it.
    """
    import snowflake.connector

    parameters = snowml_local.connection_parameters
    schema = f"TEST_{uuid.uuid4().hex[:12].upper()}"
    name = f"{parameters['database']}.{schema}"
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", snowml_local.airflow_connection_into(schema))
    with snowflake.connector.connect(**parameters) as connection:
        connection.cursor().execute(f"CREATE SCHEMA {name}")
        yield name
        connection.cursor().execute(f"DROP SCHEMA IF EXISTS {name}")


@pytest.fixture
def snowml_local_faults(snowml_local: LocalSnowflake) -> Iterator[LocalSnowflake]:
    """The local Snowflake, for a bad day: ``snowml_local_faults.fault("drop_reply", statement="^INSERT")``.

    What is left of the faults after the test is forgotten.
    """
    yield snowml_local
    snowml_local.clear_faults()
