"""The clauses that SHOW statements have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import does_not_exist
from .grammar import Name, Reader

if TYPE_CHECKING:
    from .session import Session


def read_like(reader: Reader) -> str | None:
    """``LIKE '<pattern>'``"""
    return reader.string() if reader.accept("LIKE") else None


def read_scope(session: Session, reader: Reader) -> tuple[str | None, str | None]:
    """``IN ACCOUNT | [DATABASE] db | [SCHEMA] [db.]schema``, as (database, schema) to filter by.

    Without the clause it is the current schema, or the account where there is none.
    """
    if not reader.accept("IN"):
        return session.database, session.schema
    if reader.accept("ACCOUNT"):
        return None, None
    if reader.accept("DATABASE"):
        database = session.database if reader.at_end() else reader.identifier()
        if database not in session.account.engine.databases():
            raise does_not_exist("Database", str(database))
        return database, None
    explicit = reader.accept("SCHEMA")
    if explicit and (reader.at_end() or reader.is_word("STARTS") or reader.is_word("LIMIT")):
        return session.database, session.schema
    name = reader.name()
    if not explicit and name.database is None and name.schema is None:
        # SHOW ... IN x: a schema, or else a database of that name
        engine = session.account.engine
        is_schema = session.database is not None and engine.has_schema(session.database, name.name)
        if not is_schema and name.name in engine.databases():
            return name.name, None
    return _schema(session, Name(None, name.schema, name.name))


def _schema(session: Session, name: Name) -> tuple[str, str]:
    database = name.schema or session.resolve(name).database
    require_schema(session, database, name.name)
    return database, name.name


def require_schema(session: Session, database: str, schema: str) -> None:
    """The schema is there, or Snowflake's error 2003."""
    engine = session.account.engine
    if database not in engine.databases() or not engine.has_schema(database, schema):
        raise does_not_exist("Schema", f"{database}.{schema}")
