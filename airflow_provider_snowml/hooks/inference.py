"""Running a model's function in the warehouse, or on its service, through snowflake-ml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.model_ref import ModelFunction, ModelVersionRef
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ServiceConflictError,
    ServiceNotFoundError,
)
from airflow_provider_snowml.hooks.services import find_service, version_served
from airflow_provider_snowml.hooks.snowml import SnowMLHook

if TYPE_CHECKING:
    from snowflake.snowpark import DataFrame, Session


def check_service(
    hook: SnowMLHook, service: QualifiedName, ref: ModelVersionRef, function: ModelFunction
) -> None:
    """Check that a service offers a function of exactly this version.

    snowflake-ml does not: it would read another version's predictions by this one's signature.

    :raises ServiceNotFoundError: if there is no such service.
    :raises ServiceConflictError: if it serves something else.
    :raises InvalidArgumentError: if the function is a table function.
    """
    if not function.keeps_row_count:
        raise InvalidArgumentError(
            f"{function.target_method} is a {function.type}, which a service does not offer: leave "
            "service_name out, or run a batch job."
        )
    found = find_service(hook, service)
    if found is None:
        raise ServiceNotFoundError(f"There is no service {service}, or the role may not see it.")
    serves = version_served(hook, ref.model, service)
    if serves != ref.version:
        what = f"version {serves} of {ref.model}" if serves else f"no version of {ref.model}"
        raise ServiceConflictError(
            f"Service {service} serves {what}, and version_name means {ref.version}: name the version that "
            f"it serves. It is {found}."
        )


def predictions(
    hook: SnowMLHook,
    session: Session,
    ref: ModelVersionRef,
    function: ModelFunction,
    query: str,
    *,
    service: QualifiedName | None = None,
    params: Mapping[str, Any] | None = None,
    partition_column: Identifier | None = None,
    strict_input_validation: bool = False,
) -> DataFrame:
    """What ``mv.run`` gives for a query: a data frame that nothing has run of.

    :param hook: the hook that the session is of.
    :param session: an open session.
    :param ref: the version.
    :param function: its function.
    :param query: the input.
    :param service: the service that runs it, rather than the warehouse.
    :param params: the function's parameters.
    :param partition_column: what a table function is partitioned by.
    :param strict_input_validation: whether the input's values are checked too. That is one query on it.
    :raises InvalidArgumentError: if snowflake-ml refuses the input or a parameter.
    """
    version = hook.model_version(session, ref.model, ref.version)
    where: dict[str, Any] = {"service_name": service.sql} if service is not None else {}
    if partition_column is not None:
        where["partition_column"] = partition_column.sql
    try:
        return version.run(
            session.sql(query),
            function_name=function.sql,
            strict_input_validation=strict_input_validation,
            params=dict(params) if params else None,
            **where,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"snowflake-ml does not run {function.target_method} of {ref.model} {ref.version} on this: "
            f"{error}"
        ) from error


def cancel_statements(hook: SnowMLHook, session_id: int) -> None:
    """Cancel what runs in a session of this user."""
    hook.rows(f"SELECT SYSTEM$CANCEL_ALL_QUERIES({int(session_id)})")
