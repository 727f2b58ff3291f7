"""A schema of its own for each run, and the end of those that were left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.names import Identifier, SchemaName, literal
from airflow_provider_snowml.core.run_schema import RunSchemaMark, run_schema_name
from airflow_provider_snowml.exceptions import ObjectExistsError, RunSchemaOwnershipError
from airflow_provider_snowml.hooks.run_schemas import find_run_schema, marked_schemas
from airflow_provider_snowml.hooks.services import snowflake_time
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    owner_of,
    seconds,
    task_states,
    true_or_false,
)


class SnowMLRunSchemaOperator(SnowMLOperator):
    """Make a schema for what one run computes; as a teardown, drop it.

    Made for a pair, in which the second one drops what the first one made::

        make = SnowMLRunSchemaOperator(task_id="make_run_schema")
        drop = SnowMLRunSchemaOperator(task_id="drop_run_schema").as_teardown(setups=make)
        make >> train >> evaluate >> drop

    Its name is ``<prefix>_<key>``, the key being the run's partition, else the start of its data interval,
    else its run id; never the time of day. So a retry finds the schema of the try before, with what is in it,
    and so does a run that is cleared. A comment says whose it is. A schema of that name which has no such
    comment, or another DAG's, is an error and is left alone.

    The teardown keeps it, and is skipped, if a task before it in the DAG failed: that is when somebody wants
    to look. :class:`SnowMLDropStaleRunSchemasOperator` drops what was kept long enough.

    XCom: ``{"schema", "created"}``, the full name and whether this try made it; of the teardown
    ``{"schema", "dropped"}``.

    Privileges: CREATE SCHEMA on the database; OWNERSHIP of the schema, which comes with having made it. See
    https://docs.snowflake.com/en/sql-reference/sql/create-schema.

    :param prefix: how the name begins. Two DAGs that share a database and their times want two.
    :param keep_on_failure: whether the teardown keeps the schema of a run in which something failed.
    :raises InvalidArgumentError: for a prefix that is none.
    :raises RunSchemaOwnershipError: if there is a schema of that name which is not this DAG's for this key.
    """

    template_fields: Sequence[str] = (*SnowMLOperator.template_fields, "prefix")

    def __init__(self, *, prefix: str = "RUN", keep_on_failure: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prefix = prefix
        self.keep_on_failure = keep_on_failure

    def execute(self, context: Context) -> dict[str, Any]:
        """Make it, or drop it."""
        owner = owner_of(context)
        mark = RunSchemaMark(owner.dag_id, owner.run_key)
        name = run_schema_name(self.prefix, owner.run_key)
        if self.is_teardown and self.keep_on_failure:
            self._keep_on_failure(context)
        hook = self.get_hook()
        with hook.open_connection():
            schema = SchemaName(hook.default_schema().database, name)
            if self.is_teardown:
                return self._drop(hook, schema, mark)
            return self._make(hook, schema, mark)

    def _make(self, hook: SnowMLHook, schema: SchemaName, mark: RunSchemaMark) -> dict[str, Any]:
        try:
            hook.rows(f"CREATE SCHEMA {schema.sql} COMMENT = {literal(mark.to_comment())}")
        except ObjectExistsError:
            _check_is_ours(schema, find_run_schema(hook, schema), mark)
            self.log.info("%s is there already, made by an earlier try or run.", schema)
            return {"schema": schema.sql, "created": False}
        self.log.info("Made %s.", schema)
        return {"schema": schema.sql, "created": True}

    def _drop(self, hook: SnowMLHook, schema: SchemaName, mark: RunSchemaMark) -> dict[str, Any]:
        found = find_run_schema(hook, schema)
        if found is None:
            self.log.info("%s was dropped before.", schema)
            return {"schema": schema.sql, "dropped": False}
        _check_is_ours(schema, found, mark)
        hook.rows(f"DROP SCHEMA IF EXISTS {schema.sql}")
        self.log.info("Dropped %s.", schema)
        return {"schema": schema.sql, "dropped": True}

    def _keep_on_failure(self, context: Context) -> None:
        tasks = sorted(task.task_id for task in self.get_flat_relatives(upstream=True))
        states = task_states(context["ti"], tasks) if tasks else {}
        failed = sorted(task for task, state in states.items() if state in ("failed", "upstream_failed"))
        if failed:
            raise AirflowSkipException(f"The run's schema is kept, since {', '.join(failed)} failed.")


class SnowMLDropStaleRunSchemasOperator(SnowMLOperator):
    """Drop the run schemas that failed runs left behind, of any DAG, by age.

    Only a schema that :class:`SnowMLRunSchemaOperator` made is dropped, which its comment says. The age
    counts from when it was made, by Snowflake's clock: leave a run that is cleared time to come back.

    XCom: ``{"dropped", "kept"}``, the names.

    Privileges: OWNERSHIP of the schemas; others are not seen, or are an error. See
    https://docs.snowflake.com/en/sql-reference/sql/drop-schema.

    :param older_than: a ``timedelta`` or seconds.
    :param prefix: only those whose name begins like this.
    :param plan_only: drop nothing; ``dropped`` then has what would be.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    """

    template_fields: Sequence[str] = (*SnowMLOperator.template_fields, "older_than", "prefix", "plan_only")

    def __init__(
        self,
        *,
        older_than: timedelta | float | str,
        prefix: str = "RUN",
        plan_only: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.older_than = older_than
        self.prefix = prefix
        self.plan_only = plan_only

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, and drop."""
        plan_only = true_or_false("plan_only", self.plan_only)
        age = seconds("older_than", self.older_than)
        start = run_schema_name(self.prefix, "x").name[:-1]
        hook = self.get_hook()
        dropped, kept = [], []
        with hook.open_connection():
            database = hook.default_schema().database
            now = snowflake_time(hook).timestamp()
            for name, mark, created_on in marked_schemas(hook, database):
                if not name.startswith(start):
                    continue
                schema = SchemaName(database, Identifier.of(name))
                if now - created_on.timestamp() < age:
                    kept.append(schema.sql)
                    continue
                if not plan_only:
                    hook.rows(f"DROP SCHEMA IF EXISTS {schema.sql}")
                dropped.append(schema.sql)
                self.log.info(
                    "%s %s, of %s, made at %s.",
                    "Would drop" if plan_only else "Dropped",
                    schema,
                    mark,
                    created_on,
                )
        return {"dropped": dropped, "kept": kept}


def _check_is_ours(schema: SchemaName, found: RunSchemaMark | str | None, mark: RunSchemaMark) -> None:
    if found != mark:
        whose = f"is of {found}" if isinstance(found, RunSchemaMark) else "was not made by this operator"
        raise RunSchemaOwnershipError(
            f"Schema {schema} {whose}, and not of {mark}. It was left alone: give this DAG another prefix."
        )
