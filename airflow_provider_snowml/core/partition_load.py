"""How exactly one slice of a table is replaced: the plan, as statements.

The rows are in a temporary table first, however long that took. What locks the target is one short
transaction of DELETE and INSERT: never ``INSERT OVERWRITE``, which empties the whole table, and no DDL, which
would commit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import PredictionColumnsError

Statement = tuple[str, dict[str, Any]]

# What each loaded row says about where it came from.
STAMP_TYPES = {"MODEL": "VARCHAR", "VERSION": "VARCHAR", "RUN_ID": "VARCHAR", "LOADED_AT": "TIMESTAMP_NTZ"}
NOW = object()


@dataclass(frozen=True)
class PartitionLoad:
    """Replace the rows of ``target`` whose ``replace_column`` is ``replace_value`` by those of ``source``.

    :param target: the table.
    :param source: a temporary table with the rows.
    :param columns: the source's columns, by their resolved names.
    :param replace_column: the column that the slices are told apart by.
    :param replace_value: the slice's value; ``None`` means the rows where it is NULL.
    :param stamps: further columns with one value for all rows; ``NOW`` is the time of the load.
    """

    target: QualifiedName
    source: QualifiedName
    columns: tuple[str, ...]
    replace_column: Identifier
    replace_value: Any
    stamps: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source_has_key(self) -> bool:
        """Whether the source says itself which slice its rows are of."""
        return self.replace_column.name in self.columns

    def create_target(self) -> Statement:
        """Create the table if it is missing, with the source's columns, the key and the stamps.

        The key's type is the source's, else that of the value.
        """
        selected = [_column(column) for column in self.columns]
        values: dict[str, Any] = {}
        if not self.source_has_key:
            # A bare literal would give VARCHAR(length of this value), too short for the next one.
            values["key"] = self.replace_value
            key = "%(key)s::VARCHAR" if isinstance(self.replace_value, str) else "%(key)s"
            selected.append(f"{key} AS {_column(self.replace_column.name)}")
        selected += [f"NULL::{STAMP_TYPES[name]} AS {name}" for name in self.stamps]
        return _statement(
            f"CREATE TABLE IF NOT EXISTS {_name(self.target)} AS "
            f"SELECT {', '.join(selected)} FROM {_name(self.source)} WHERE FALSE",
            values,
        )

    def count_foreign_rows(self) -> Statement | None:
        """Count the source's rows that are of another slice; ``None`` if it cannot have any."""
        if not self.source_has_key:
            return None
        return _statement(
            f"SELECT COUNT(*) FROM {_name(self.source)} "
            f"WHERE {_column(self.replace_column.name)} IS DISTINCT FROM %(key)s",
            {"key": self.replace_value},
        )

    def check_target_columns(self, target_columns: Sequence[str]) -> None:
        """Check that source and target have the same columns, by name.

        :param target_columns: the target's columns, by their resolved names.
        :raises PredictionColumnsError: if they differ; the message lists what is missing and what is extra.
        """
        offered = self._inserted_columns()
        missing = [column for column in target_columns if column not in offered]
        extra = [column for column in offered if column not in target_columns]
        if missing or extra:
            raise PredictionColumnsError(
                f"The rows do not fit {self.target}: it has no column {', '.join(extra) or '(none)'}, and "
                f"the rows have no {', '.join(missing) or '(none)'}. Change the table or what is selected."
            )

    def delete(self) -> Statement:
        """Delete the slice."""
        return _statement(
            f"DELETE FROM {_name(self.target)} "
            f"WHERE {_column(self.replace_column.name)} IS NOT DISTINCT FROM %(key)s",
            {"key": self.replace_value},
        )

    def insert(self) -> Statement:
        """Insert the slice."""
        selected = [_column(column) for column in self.columns]
        values: dict[str, Any] = {}
        if not self.source_has_key:
            selected.append("%(key)s")
            values["key"] = self.replace_value
        for name, value in self.stamps.items():
            if value is NOW:
                selected.append("CURRENT_TIMESTAMP()::TIMESTAMP_NTZ")
            else:
                selected.append(f"%({name.lower()})s")
                values[name.lower()] = value
        columns = ", ".join(_column(column) for column in self._inserted_columns())
        return _statement(
            f"INSERT INTO {_name(self.target)} ({columns}) "
            f"SELECT {', '.join(selected)} FROM {_name(self.source)}",
            values,
        )

    def _inserted_columns(self) -> list[str]:
        key = [] if self.source_has_key else [self.replace_column.name]
        return [*self.columns, *key, *self.stamps]


def _column(name: str) -> str:
    return Identifier.of(name).sql.replace("%", "%%")


def _name(name: QualifiedName) -> str:
    return name.sql.replace("%", "%%")


def _statement(sql: str, values: dict[str, Any]) -> Statement:
    # The connector formats a statement only if there are values; %% must not reach Snowflake.
    return (sql if values else sql % (), values)
