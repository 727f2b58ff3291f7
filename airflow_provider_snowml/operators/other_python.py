"""Work in another interpreter, by Airflow's own operators: snowflake-ml can't always live beside Airflow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Context

import airflow_provider_snowml
from airflow_provider_snowml import exceptions
from airflow_provider_snowml.core.registration import Registration
from airflow_provider_snowml.exceptions import SnowMLError


def run_in_other_python(
    context: Context,
    told: Mapping[str, Any],
    connection: Mapping[str, Any],
    *,
    external_python: str | None,
    requirements: Sequence[str] | None,
    venv_cache_path: str | None,
) -> Registration:
    """Register a model in another interpreter, which needs neither Airflow nor this provider.

    What it is told, the connection's secrets among it, is in a file of a temporary directory that only this
    user may read, as Airflow's own operator has it, and is removed afterwards.

    :param context: the task's context.
    :param told: see :func:`.model_registration.register_from_source`.
    :param connection: the connector's parameters.
    :param external_python: the interpreter; or
    :param requirements: what a virtual environment that is made for it has.
    :param venv_cache_path: where such an environment is kept for the next time.
    :raises SnowMLError: the same errors as here.
    """
    from airflow.providers.standard.operators.python import ExternalPythonOperator, PythonVirtualenvOperator

    with tempfile.TemporaryDirectory() as directory:
        # Our package alone, not what is installed beside it.
        package = Path(airflow_provider_snowml.__file__).parent
        (Path(directory) / package.name).symlink_to(package)
        arguments: dict[str, Any] = {
            "task_id": "register",
            "dag": DAG("in_other_python", schedule=None),  # Airflow's operator wants one
            "python_callable": _register_in_other_python,
            "op_args": [directory, dict(told), dict(connection)],
            "expect_airflow": False,
        }
        operator: ExternalPythonOperator | PythonVirtualenvOperator
        if external_python:
            operator = ExternalPythonOperator(python=external_python, **arguments)
        else:
            operator = PythonVirtualenvOperator(
                requirements=list(requirements or ()),
                system_site_packages=False,
                venv_cache_path=Path(venv_cache_path) if venv_cache_path else None,
                **arguments,
            )
        # What its execute() sets; that one is for a task of its own.
        operator._bundle_path = operator._get_bundle_path_from_context(context)
        answer: dict[str, Any] = operator.execute_callable()  # type: ignore[no-untyped-call]
    if "error" in answer:
        kind = getattr(exceptions, answer["error"], SnowMLError)
        raise kind(answer["message"])
    made = Registration.from_dict(answer["registration"])
    assert made is not None
    return made


def _register_in_other_python(directory, told, connection):  # type: ignore[no-untyped-def]
    """Its source is what the other interpreter runs."""
    import sys

    sys.path.insert(0, directory)
    from airflow_provider_snowml.exceptions import InvalidArgumentError, SnowMLError

    try:
        try:
            import snowflake.ml.registry  # noqa: F401
            from snowflake.snowpark import Session
        except ImportError as error:
            raise InvalidArgumentError(f"{sys.executable} lacks snowflake-ml-python: {error}.") from error
        from airflow_provider_snowml.hooks.model_registration import register_from_source

        session = Session.builder.configs(connection).create()
        try:
            return {"registration": register_from_source(session, told).to_dict()}
        finally:
            session.close()
    except SnowMLError as error:
        return {"error": type(error).__name__, "message": str(error)}
