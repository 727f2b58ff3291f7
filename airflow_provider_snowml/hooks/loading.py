"""Rows into tables: a stage's Parquet into a temporary table, and that into one slice of a table."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation, literal
from airflow_provider_snowml.core.partition_load import PartitionLoad, TableColumn, delete_slice
from airflow_provider_snowml.exceptions import (
    ForeignRowsError,
    LockWaitersError,
    ObjectNotFoundError,
    TableNotFoundError,
    TransactionLostError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)

LOCK_RETRIES = 8
_LOCK_WAIT = 2.0


def temporary_name(schema: SchemaName) -> QualifiedName:
    """A name for a temporary table that nothing else has."""
    return QualifiedName(
        schema.database, schema.schema, Identifier(f"SNOWML_TEMP_{uuid.uuid4().hex.upper()}")
    )


def parquet_to_temporary_table(
    hook: SnowMLHook, location: StageLocation, schema: SchemaName
) -> QualifiedName | None:
    """Load a directory's Parquet files into a new temporary table of the open connection.

    Its columns are those of the files, in upper case. Other files, such as ``_SUCCESS``, are passed over.
    ``None`` if there are no Parquet files: the result of an empty input.

    :param hook: the hook, with a connection open.
    :param location: the directory.
    :param schema: where the table is made.
    """
    file_format = hook.parquet_format(schema)
    names = [path.removeprefix(location.path) for path in hook.files(location)]
    parquet = sorted(name for name in names if name.endswith(".parquet"))
    if not parquet:
        return None
    # INFER_SCHEMA takes no pattern, so the files are named. One in which a column is all NULL may not know
    # its type, so it is as many as FILES may have.
    files = ", ".join(literal(name) for name in parquet[:1000])
    table = temporary_name(schema)
    hook.rows(
        f"CREATE TEMPORARY TABLE {table.sql} USING TEMPLATE (SELECT ARRAY_AGG(OBJECT_CONSTRUCT(*)) "
        f"FROM TABLE(INFER_SCHEMA(LOCATION => {literal(location.sql)}, "
        f"FILE_FORMAT => {literal(file_format.sql)}, "
        f"FILES => ({files}), IGNORE_CASE => TRUE)))"
    )
    hook.rows(
        f"COPY INTO {table.sql} FROM {literal(location.sql)} "
        f"FILE_FORMAT = (FORMAT_NAME = {literal(file_format.sql)}) "
        "MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE PATTERN = '.*[.]parquet'"
    )
    return table


def count_rows(hook: SnowMLHook, table: QualifiedName) -> int:
    """Count a table's rows."""
    return int(hook.value(f"SELECT COUNT(*) FROM {table.sql}"))


def append(hook: SnowMLHook, target: QualifiedName, source: QualifiedName, columns: Sequence[str]) -> None:
    """Add the source's rows to the target, by column name. The target is created if it is missing.

    :param hook: the hook, with the connection open that the source is a temporary table of.
    :param target: the table.
    :param source: a temporary table with the rows.
    :param columns: the source's columns, by their resolved names.
    """
    names = ", ".join(Identifier.of(column).sql for column in columns)
    rows = f"SELECT {names} FROM {source.sql}"
    hook.rows(f"CREATE TABLE IF NOT EXISTS {target.sql} AS {rows} WHERE FALSE")
    hook.rows(f"INSERT INTO {target.sql} ({names}) {rows}")


def table_columns(hook: SnowMLHook, table: QualifiedName) -> dict[str, TableColumn]:
    """A table's columns, by their resolved names.

    :raises ObjectNotFoundError: if there is no such table.
    """
    rows = hook.rows(f"DESCRIBE TABLE {table.sql}")
    return {
        str(row["name"]): TableColumn(str(row["type"]), row["null?"] == "Y" or row["default"] is not None)
        for row in rows
    }


def replace_slice(
    hook: SnowMLHook,
    load: PartitionLoad,
    *,
    create_table: bool = True,
    on_schema_change: Literal["fail", "add_columns"] = "fail",
) -> str | None:
    """Make the slice of the target exactly the source's rows, in one short transaction.

    Too many waiting for the target's lock (error 625) is waited out.

    :param hook: the hook, with the connection open that the source is a temporary table of.
    :param load: what is replaced by what.
    :param create_table: whether the target is created if it is missing.
    :param on_schema_change: whether columns that the target lacks are added; those that the rows lack are
        then left to their defaults.
    :return: the query id of the INSERT.
    :raises ForeignRowsError: if some of the source's rows are of another slice.
    :raises PredictionColumnsError: if the columns of source and target differ.
    :raises TableNotFoundError: if the target is missing and not created.
    :raises LockWaitersError: if the lock is still contended after several tries.
    :raises TransactionLostError: if this process hung so long that Snowflake ended its transaction.
    """
    load.check_own_columns()
    counting = load.count_foreign_rows()
    if counting is not None and (foreign := int(hook.value(counting))):
        raise ForeignRowsError(
            f"{foreign} rows have another {load.replace_column} than {load.replace_value!r}, so they would "
            f"end up in other slices of {load.target}: select only this slice's rows."
        )
    try:
        columns = table_columns(hook, load.target)
    except ObjectNotFoundError:
        if not create_table:
            raise missing_table(load.target) from None
        hook.rows(load.create_target())
        columns = table_columns(hook, load.target)
    may_be_left_out: list[str] = []
    if on_schema_change == "add_columns":
        columns |= _add_columns(hook, load, load.new_columns(columns))
        may_be_left_out = [name for name, column in columns.items() if column.may_be_left_out]
        may_be_left_out = [name for name in may_be_left_out if name != load.replace_column.name]
    load.check_target_columns(columns, may_be_left_out=may_be_left_out)
    return _in_one_transaction(hook, load.target, load.delete(), load.insert())


def _add_columns(hook: SnowMLHook, load: PartitionLoad, names: Sequence[str]) -> dict[str, TableColumn]:
    """Before the transaction, which DDL would commit. Another run may add the same at the same time."""
    if not names:
        return {}
    source = table_columns(hook, load.source)
    for name in names:
        _waiting_for_the_lock(load.target, partial(hook.rows, load.add_column(name, source)))
    log.info("Added to %s: %s.", load.target, ", ".join(names))
    return {name: source.get(name, TableColumn("")) for name in names}


def missing_table(target: QualifiedName) -> TableNotFoundError:
    """The error for a table that is missing and not to be created."""
    return TableNotFoundError(
        f"There is no table {target}, or the role may not see it, and create_table is False."
    )


def empty_slice(
    hook: SnowMLHook, target: QualifiedName, key: Identifier, value: Any, *, create_table: bool = True
) -> None:
    """Leave no rows in a slice of a table; a table that is yet to be created has none.

    :param hook: the hook.
    :param target: the table.
    :param key: the column that the slices are told apart by.
    :param value: the slice's value.
    :param create_table: whether a load with rows would create it.
    :raises TableNotFoundError: if it is missing and would not be created.
    :raises LockWaitersError: if the lock is still contended after several tries.
    """
    try:
        table_columns(hook, target)
    except ObjectNotFoundError:
        if create_table:
            return
        raise missing_table(target) from None
    _in_one_transaction(hook, target, delete_slice(target, key, value))


def _only_in(transaction: Any) -> str:
    """A condition for each statement of a transaction.

    A process that hangs loses its transaction to those who wait for the lock. What it sends when it goes on
    would be committed at once, each statement by itself: it must do nothing.
    """
    return f"CURRENT_TRANSACTION() = {literal(str(transaction))}"


def _in_one_transaction(
    hook: SnowMLHook, target: QualifiedName, delete: str, insert: str | None = None
) -> str | None:
    """Give the query id of the INSERT, if there is one."""
    query_id = None

    def run() -> None:
        nonlocal query_id
        with hook.transaction():
            if insert is None:
                hook.rows(delete)
                return
            transaction = hook.value("SELECT CURRENT_TRANSACTION()")
            hook.rows(f"{delete} AND {_only_in(transaction)}")
            inserted = hook.rows(f"{insert} WHERE {_only_in(transaction)}")
            query_id = hook.query_id
            nothing = not any(inserted[0].values())
            if nothing and hook.value("SELECT CURRENT_TRANSACTION()") != transaction:
                raise TransactionLostError(f"The transaction on {target} was rolled back meanwhile.")

    _waiting_for_the_lock(target, run)
    return query_id


def _waiting_for_the_lock(target: QualifiedName, run: Callable[[], object]) -> None:
    """Too many waiting for the target's lock is waited out."""
    for attempt in range(1, LOCK_RETRIES + 1):
        try:
            run()
            return
        except LockWaitersError:
            if attempt == LOCK_RETRIES:
                raise
            # Jitter, so that the runs of a backfill do not come back together.
            pause = random.uniform(0, _LOCK_WAIT * 2 ** min(attempt, 5))
            log.info("Too many wait for the lock of %s; again in %.1f s.", target, pause)
            time.sleep(pause)
