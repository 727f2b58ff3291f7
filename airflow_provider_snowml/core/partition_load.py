"""How exactly one slice of a table is replaced: the plan, as statements.

The rows are in a temporary table first, however long that took. What locks the target is one short
transaction of DELETE and INSERT: never ``INSERT OVERWRITE``, which empties the whole table, and no DDL, which
would commit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, value_sql
from airflow_provider_snowml.exceptions import PredictionColumnsError

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

    def create_target(self) -> str:
        """Create the table if it is missing, with the source's columns, the key and the stamps.

        The key's type is the source's, else that of the value.
        """
        selected = [Identifier.of(column).sql for column in self.columns]
        if not self.source_has_key:
            # A bare text would give VARCHAR of its own length, too short for the next one.
            type_ = "::VARCHAR" if isinstance(self.replace_value, str) else ""
            selected.append(f"{value_sql(self.replace_value)}{type_} AS {self.replace_column.sql}")
        selected += [f"NULL::{STAMP_TYPES[name]} AS {name}" for name in self.stamps]
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

    def delete(self) -> str:
        """Delete the slice."""
        return delete_slice(self.target, self.replace_column, self.replace_value)

    def insert(self) -> str:
        """Insert the slice."""
        selected = [Identifier.of(column).sql for column in self.columns]
        if not self.source_has_key:
            selected.append(value_sql(self.replace_value))
        for value in self.stamps.values():
            selected.append("CURRENT_TIMESTAMP()::TIMESTAMP_NTZ" if value is NOW else value_sql(value))
        columns = ", ".join(Identifier.of(column).sql for column in self._inserted_columns())
        return (
            f"INSERT INTO {self.target.sql} ({columns}) SELECT {', '.join(selected)} FROM {self.source.sql}"
        )

    def _inserted_columns(self) -> list[str]:
        key = [] if self.source_has_key else [self.replace_column.name]
        return [*self.columns, *key, *self.stamps]


def delete_slice(target: QualifiedName, key: Identifier, value: Any) -> str:
    """Delete the rows of a table whose key has a value; ``None`` means those where it is NULL."""
    return f"DELETE FROM {target.sql} WHERE {key.sql} IS NOT DISTINCT FROM {value_sql(value)}"
