"""What the operators share: the connection, and what the context says about the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context

from airflow_provider_snowml.core.batch_job import JobOwner, RunRef, run_key
from airflow_provider_snowml.core.lineage import Lineage
from airflow_provider_snowml.core.names import QualifiedName, SchemaName
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.lineage import operator_lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

CONNECTION_FIELDS = ("snowflake_conn_id", "warehouse", "database", "schema", "role")


class SnowMLOperator(BaseOperator):
    """The arguments that every operator has; see :class:`.SnowMLHook` for what they mean.

    :param snowflake_conn_id: the Airflow connection.
    :param warehouse: overrides the connection's warehouse.
    :param database: overrides its database; with ``schema``, where unqualified names are.
    :param schema: overrides its schema.
    :param role: overrides its role.
    :param multiple_outputs: whether each key of the result is an XCom of its own as well, as
        ``operator.output["key"]`` wants it.
    """

    template_fields: Sequence[str] = CONNECTION_FIELDS
    _done: Mapping[str, Any] = {}

    def __init__(
        self,
        *,
        snowflake_conn_id: str = "snowflake_default",
        warehouse: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        role: str | None = None,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.snowflake_conn_id = snowflake_conn_id
        self.warehouse = warehouse
        self.database = database
        self.schema = schema
        self.role = role

    def hook_arguments(self) -> dict[str, Any]:
        """All that a hook in another process needs to be the same."""
        return {name: getattr(self, name) for name in CONNECTION_FIELDS}

    def get_hook(self) -> SnowMLHook:
        """A new hook."""
        return SnowMLHook(**self.hook_arguments())

    # -- lineage ----------------------------------------------------------------------------------------

    def done(self, result: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return the result; OpenLineage asks for it afterwards, in the process that has it.

        :param result: the task's result.
        :param more: what else its lineage needs.
        """
        self._done = {**result, **more}
        return result

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """What the task reads and writes.

        :param done: its result; empty before it has ended, and if it failed.
        :param default: where unqualified names are, if the connection says so.
        """
        return Lineage()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """What it is going to read."""
        return operator_lineage(self, {})

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """What it has read and written."""
        return operator_lineage(self, self._done)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """What it was going to read."""
        return operator_lineage(self, {})


def owner_of(context: Context) -> JobOwner:
    """Whose job the running task's is."""
    ti = context["ti"]
    map_index = ti.map_index if ti.map_index is not None else -1
    key = run_key(
        partition_key=context.get("partition_key"),
        data_interval_start=context.get("data_interval_start"),
        run_id=ti.run_id,
    )
    return JobOwner(ti.dag_id, ti.task_id, key, map_index)


def run_of(context: Context) -> RunRef:
    """The running task's run, and how often that was cleared."""
    return RunRef(context["ti"].run_id, getattr(context["dag_run"], "clear_number", None) or 0)


def is_backfill(context: Context) -> bool:
    """Whether the run belongs to a backfill."""
    return str(getattr(context["dag_run"], "run_type", "")).rsplit(".", 1)[-1].lower() == "backfill"


def task_states(ti: Any, tasks: Sequence[str]) -> dict[str, str | None]:
    """How other tasks of the running task's run stand, by task id; mapped ones as ``<task id>_<index>``.

    :param ti: the running task instance.
    :param tasks: their ids.
    """
    asked: dict[str, Any] = {"dag_id": ti.dag_id, "task_ids": list(tasks), "run_ids": [ti.run_id]}
    own: dict[str, str | None] = {}
    if ti.map_index >= 0:
        # Of those that were mapped with it only its own index counts, whatever the others are doing.
        own = ti.get_task_states(map_index=ti.map_index, **asked).get(ti.run_id, {})
        asked["task_ids"] = [task for task in tasks if f"{task}_{ti.map_index}" not in own]
        if not asked["task_ids"]:
            return own
    return {**own, **ti.get_task_states(**asked).get(ti.run_id, {})}


def exactly_one(**arguments: Any) -> str:
    """The name of the one argument that is given.

    :raises InvalidArgumentError: if none or several are.
    """
    given = [name for name, value in arguments.items() if value]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        raise InvalidArgumentError(f"Give exactly one of {', '.join(arguments)}; got {got}.")
    return given[0]


def rows_query(source: str, value: Any, default: SchemaName) -> str:
    """The query of an input that is a table or a query.

    :param source: which of the arguments is given, ``input_table`` or ``input_query``.
    :param value: its value.
    :param default: where an unqualified table is.
    :raises InvalidNameError: if the table's name is none.
    """
    if source == "input_table":
        return f"SELECT * FROM {QualifiedName.parse(str(value), default, what=source).sql}"
    return str(value).strip().rstrip(";")


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Check an argument that has a few possible values.

    :raises InvalidArgumentError: if it has another.
    """
    if value not in allowed:
        raise InvalidArgumentError(f"{name} is {value!r}; it can be {', '.join(map(repr, allowed))}.")


def as_text(value: Any) -> str | None:
    """An argument that may be left out, also by a template: ``None``, an empty text and ``"None"`` say so."""
    return str(value) if value not in (None, "", "None") else None


def true_or_false(name: str, value: Any) -> bool:
    """An argument that is true or false, also as a template's text.

    :raises InvalidArgumentError: if it is neither.
    """
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be true or false.")
    return found


def whole_number(name: str, value: Any, *, at_least: int = 1) -> int | None:
    """An argument that is a whole number, may be a text, and may be left out.

    :raises InvalidArgumentError: if it is none, or too small.
    """
    if as_text(value) is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = at_least - 1
    if number < at_least:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a whole number of at least {at_least}.")
    return number


def number(name: str, value: Any) -> float:
    """An argument that is a number, and may be a text.

    :raises InvalidArgumentError: if it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a number.")
    return found


def seconds(name: str, value: Any) -> float:
    """An argument that is a ``timedelta`` or seconds, in seconds.

    :raises InvalidArgumentError: if it is neither, or negative.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1
    if not found >= 0:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a timedelta or a number of seconds.")
    return found
