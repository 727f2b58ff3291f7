"""The objects of the account that are not tables: stages, models, services, pools, tags.

One SQLite file in the data directory, so that a killed server finds everything again.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .errors import already_exists, does_not_exist
from .grammar import Name, like_to_regex, quote_if_needed

LOADED_FILES = "LOADED FILES"  # the kind under which a table's load history is kept


class Qualified(NamedTuple):
    """A complete name. Objects of the account (warehouses, pools) have empty database and schema."""

    database: str
    schema: str
    name: str

    def __str__(self) -> str:
        return ".".join(quote_if_needed(p) for p in self if p)


@dataclass
class Object:
    kind: str
    name: Qualified
    owner: str
    created_on: datetime.datetime
    comment: str = ""
    data: dict[str, Any] = field(default_factory=dict)


class Catalog:
    """:param path: the SQLite file; made when missing."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (kind TEXT, database TEXT, schema TEXT, name TEXT,"
            " owner TEXT, created_on TEXT, comment TEXT, data TEXT,"
            " PRIMARY KEY (kind, database, schema, name))"
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def find(self, kind: str, name: Qualified) -> Object | None:
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM objects WHERE kind=? AND database=? AND schema=? AND name=?",
                (kind, *name),
            ).fetchone()
        return _object(row) if row else None

    def get(self, kind: str, name: Qualified) -> Object:
        """The object, or Snowflake's error 2003."""
        found = self.find(kind, name)
        if found is None:
            raise does_not_exist(kind.capitalize(), str(name))
        return found

    def list(
        self,
        kind: str,
        database: str | None = None,
        schema: str | None = None,
        like: str | None = None,
    ) -> list[Object]:
        with self._lock:
            found = self._db.execute(
                "SELECT * FROM objects WHERE kind=? ORDER BY database, schema, name", (kind,)
            ).fetchall()
        matches = like_to_regex(like) if like is not None else None
        objects = [_object(row) for row in found]
        return [
            o
            for o in objects
            if (database is None or o.name.database == database)
            and (schema is None or o.name.schema == schema)
            and (matches is None or matches.fullmatch(o.name.name))
        ]

    def create(
        self,
        kind: str,
        name: Qualified,
        owner: str,
        data: dict[str, Any] | None = None,
        comment: str = "",
        replace: bool = False,
    ) -> Object:
        created = Object(kind, name, owner, datetime.datetime.now(datetime.UTC), comment, data or {})
        with self._lock:
            if not replace and self.find(kind, name):
                raise already_exists(str(name))
            self._write(created)
        return created

    @contextmanager
    def change(self, kind: str, name: Qualified) -> Iterator[Object]:
        """The object to change in place; written back when the block ends without an error."""
        with self._lock:
            found = self.get(kind, name)
            yield found
            if found.name != name:
                if self.find(kind, found.name):
                    raise already_exists(str(found.name))
                self.drop(kind, name)
            self._write(found)

    def drop(self, kind: str, name: Qualified) -> bool:
        with self._lock:
            cursor = self._db.execute(
                "DELETE FROM objects WHERE kind=? AND database=? AND schema=? AND name=?",
                (kind, *name),
            )
            return cursor.rowcount > 0

    def drop_in(self, database: str, schema: str | None) -> None:
        """Forget everything of a database or schema that is dropped."""
        with self._lock:
            if schema is None:
                self._db.execute("DELETE FROM objects WHERE database=?", (database,))
            else:
                self._db.execute("DELETE FROM objects WHERE database=? AND schema=?", (database, schema))

    def _write(self, o: Object) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?,?,?)",
            (o.kind, *o.name, o.owner, o.created_on.isoformat(), o.comment, json.dumps(o.data)),
        )


def _object(row: tuple[Any, ...]) -> Object:
    kind, database, schema, name, owner, created_on, comment, data = row
    return Object(
        kind,
        Qualified(database, schema, name),
        owner,
        datetime.datetime.fromisoformat(created_on),
        comment,
        json.loads(data),
    )


def account_level(name: Name) -> Qualified:
    return Qualified("", "", name.name)
