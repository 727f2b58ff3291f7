"""How exactly one slice of a table is replaced: the plan, as statements.

The rows are in a temporary table first, however long that took. What locks the target is one short
transaction of DELETE and INSERT: never ``INSERT OVERWRITE``, which empties the whole table, and no DDL, which
would commit it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, value_sql
from airflow_provider_snowml.exceptions import PredictionColumnsError

NOW = object()


@dataclass(frozen=True)
class Stamp:
    """A column with one value for all rows, which says where they came from.

    :param column: its name.
    :param value: a text, or ``NOW`` for the time of the load, in UTC.
    """

    column: Identifier
    value: Any

    @property
    def type(self) -> str:
        """The column's type."""
        return "TIMESTAMP_NTZ" if self.value is NOW else "VARCHAR"

    @property
    def value_sql(self) -> str:
        """The value as it is written in a statement."""
        return "SYSDATE()" if self.value is NOW else value_sql(self.value)


@dataclass(frozen=True)
class TableColumn:
    """A table's column, as DESCRIBE TABLE has it.

    :param type: its type.
    :param may_be_left_out: whether it is nullable or has a default.
    """

    type: str
    may_be_left_out: bool = True


@dataclass(frozen=True)
class PartitionLoad:
    """Replace the rows of ``target`` whose ``replace_column`` is ``replace_value`` by those of ``source``.

    :param target: the table.
    :param source: a temporary table with the rows.
    :param columns: the source's columns, by their resolved names.
    :param replace_column: the column that the slices are told apart by.
    :param replace_value: the slice's value; ``None`` means the rows where it is NULL.
    :param stamps: further columns with one value for all rows.
    """

    target: QualifiedName
    source: QualifiedName
    columns: tuple[str, ...]
    replace_column: Identifier
    replace_value: Any
    stamps: tuple[Stamp, ...] = ()

    @property
    def source_has_key(self) -> bool:
        """Whether the source says itself which slice its rows are of."""
        return self.replace_column.name in self.columns

    def create_target(self) -> str:
        """Create the table if it is missing, with the source's columns, the key and the stamps.

        The key's type is the source's, else that of the value.
        """
        selected = [Identifier.of(column).sql for column in self.columns]
        if not self.source_has_key:
            # A bare text would give VARCHAR of its own length, too short for the next one.
            type_ = "::VARCHAR" if isinstance(self.replace_value, str) else ""
            selected.append(f"{value_sql(self.replace_value)}{type_} AS {self.replace_column.sql}")
        selected += [f"NULL::{stamp.type} AS {stamp.column.sql}" for stamp in self.stamps]
        return (
            f"CREATE TABLE IF NOT EXISTS {self.target.sql} AS "
            f"SELECT {', '.join(selected)} FROM {self.source.sql} WHERE FALSE"
        )

    def count_foreign_rows(self) -> str | None:
        """Count the source's rows that are of another slice; ``None`` if it cannot have any."""
        if not self.source_has_key:
            return None
        return (
            f"SELECT COUNT(*) FROM {self.source.sql} "
            f"WHERE {self.replace_column.sql} IS DISTINCT FROM {value_sql(self.replace_value)}"
        )

    def check_own_columns(self) -> None:
        """Check that no column comes twice: from the rows, as the key, as a stamp.

        :raises PredictionColumnsError: if one does.
        """
        twice = [name for name, times in Counter(self._inserted_columns()).items() if times > 1]
        if twice:
            raise PredictionColumnsError(
                f"The rows have {', '.join(twice)} already, which the load would add: name the added columns "
                "otherwise, or leave them out with None."
            )

    def new_columns(self, target_columns: Collection[str]) -> list[str]:
        """The columns that the target lacks; never the key, without which it has no slices."""
        key = self.replace_column.name
        return [name for name in self._inserted_columns() if name not in target_columns and name != key]

    def add_column(self, column: str, source_columns: Mapping[str, TableColumn]) -> str:
        """Add a column to the target, unless it has it by now.

        :param column: the column.
        :param source_columns: the source's columns.
        """
        types = {stamp.column.name: stamp.type for stamp in self.stamps}
        type_ = types.get(column) or source_columns[column].type
        return f"ALTER TABLE {self.target.sql} ADD COLUMN IF NOT EXISTS {Identifier.of(column).sql} {type_}"

    def check_target_columns(
        self, target_columns: Collection[str], *, may_be_left_out: Collection[str] = ()
    ) -> None:
        """Check that source and target have the same columns, by name.

        :param target_columns: the target's columns, by their resolved names.
        :param may_be_left_out: those that the rows need not have.
        :raises PredictionColumnsError: if they differ; the message lists what is missing and what is extra.
        """
        offered = self._inserted_columns()
        missing = [name for name in target_columns if name not in offered and name not in may_be_left_out]
        extra = [name for name in offered if name not in target_columns]
        if missing or extra:
            raise PredictionColumnsError(
                f"The rows do not fit {self.target}: it has no column {', '.join(extra) or '(none)'}, and "
                f"the rows have no {', '.join(missing) or '(none)'}. Change the table or what is selected."
            )

    def delete(self) -> str:
        """Delete the slice."""
        return delete_slice(self.target, self.replace_column, self.replace_value)

    def insert(self) -> str:
        """Insert the slice."""
        selected = [Identifier.of(column).sql for column in self.columns]
        if not self.source_has_key:
            selected.append(value_sql(self.replace_value))
        selected += [stamp.value_sql for stamp in self.stamps]
        columns = ", ".join(Identifier.of(column).sql for column in self._inserted_columns())
        return (
            f"INSERT INTO {self.target.sql} ({columns}) SELECT {', '.join(selected)} FROM {self.source.sql}"
        )

    def _inserted_columns(self) -> list[str]:
        key = [] if self.source_has_key else [self.replace_column.name]
        return [*self.columns, *key, *(stamp.column.name for stamp in self.stamps)]


def delete_slice(target: QualifiedName, key: Identifier, value: Any) -> str:
    """Delete the rows of a table whose key has a value; ``None`` means those where it is NULL."""
    # Not IS NOT DISTINCT FROM, for both: an equality is what Snowflake can leave out partitions by.
    is_of_it = "IS NULL" if value is None else f"= {value_sql(value)}"
    return f"DELETE FROM {target.sql} WHERE {key.sql} {is_of_it}"
