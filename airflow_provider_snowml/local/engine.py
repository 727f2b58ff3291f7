"""SQL: fakesnow's Snowflake dialect on DuckDB, with Snowflake's sessions and transactions on top."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import snowflake.connector.errors
import sqlglot
from fakesnow import info_schema, macros
from fakesnow.fakes import FakeSnowflakeConnection
from fakesnow.instance import FakeSnow
from sqlglot import exp

from . import fakesnow_fixes, grants, model_calls, results
from .catalog import LOADED_FILES, Qualified
from .engine_errors import translate
from .errors import SnowflakeError, does_not_exist, unsupported
from .grammar import quote
from .locks import MAX_IDLE, TableLocks
from .results import Result
from .rewrite import TEMPORARY_SCHEMA, Rewriter, table_name
from .types import rowtype, variants, whole_numbers

if TYPE_CHECKING:
    from .queries import Query
    from .session import Session

_SCOPED = re.compile(r"^(\s*CREATE\s+(?:OR\s+REPLACE\s+)?)SCOPED\s+(?=TEMP)", re.IGNORECASE)
_DML = {
    exp.Insert: results.INSERT,
    exp.Update: results.UPDATE,
    exp.Delete: results.DELETE,
    exp.Merge: results.MERGE,
}
_READS = (exp.Query, exp.Describe, exp.Show)
_SHOWS = {"TABLES", "VIEWS", "COLUMNS", "OBJECTS", "PRIMARY KEYS", "UNIQUE KEYS", "IMPORTED KEYS"}
_KINDS = {"TABLE", "VIEW"}
_PROPERTIES = (
    exp.TemporaryProperty,
    exp.TransientProperty,
    exp.UsingTemplateProperty,
    exp.SchemaCommentProperty,
    exp.CopyGrantsProperty,
)
# A model is asked by each of them for 2,048 rows; the more ask, the more rows it gets at once.
_THREADS = 8
_ATTEMPTS = 50

fakesnow_fixes.apply()


@dataclass
class Connection:
    """A session's connection to DuckDB and the state of its transaction.

    DuckDB's own transaction begins with the first statement that needs it, after the locks are
    held: a writer that waited sees what the other one committed. ``writes`` is what the
    transaction did so far, to do it again on a newer snapshot. ``idle_since`` is when its last
    statement ended, ``transaction_id`` what clients know it by.
    """

    fake: FakeSnowflakeConnection
    in_transaction: bool = False
    begun: bool = False
    writes: list[str] = field(default_factory=list)
    session: Session | None = None
    idle_since: float = 0.0
    transaction_id: str | None = None

    @property
    def duck(self) -> duckdb.DuckDBPyConnection:
        return self.fake._duck_conn


class Engine:
    """:param directory: one DuckDB file per database lies here."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.RLock()
        self._failures: dict[str, SnowflakeError] = {}
        self.locks = TableLocks()
        self.locks.end_if_idle = self._end_if_idle
        self.max_idle: Callable[[], float] = lambda: MAX_IDLE
        self._fake = FakeSnow(
            create_database_on_connect=False, create_schema_on_connect=False, db_path=directory
        )
        self._fake.duck_conn.execute(f"SET threads = {max(_THREADS, os.cpu_count() or 1)}")
        # To find out how a column compresses takes half the time of writing it; what lies here is small.
        self._fake.duck_conn.execute("SET force_compression = 'uncompressed'")
        for file in sorted(directory.glob("*.db")):
            self._attach(file.stem)

    def close(self) -> None:
        with self._lock:
            self._fake.duck_conn.close()

    # Databases and schemas

    def databases(self) -> list[str]:
        with self._lock:
            rows = self._fake.duck_conn.execute(
                "SELECT database_name FROM duckdb_databases() WHERE NOT internal"
                " AND database_name NOT IN ('memory', '_fs_global') ORDER BY 1"
            ).fetchall()
        return [r[0] for r in rows]

    def schemas(self, database: str) -> list[str]:
        with self._lock:
            rows = self._fake.duck_conn.execute(
                "SELECT schema_name FROM duckdb_schemas() WHERE database_name = ? AND NOT internal"
                " AND schema_name NOT IN ('main', '_fs_information_schema', ?) ORDER BY 1",
                [database, TEMPORARY_SCHEMA],
            ).fetchall()
        return [r[0] for r in rows]

    def tables(self, database: str | None = None, schema: str | None = None) -> list[tuple[Qualified, str]]:
        """The tables and views, by name, and which of the two each is; temporary ones are left out."""
        with self._lock:
            rows = self._fake.duck_conn.execute(
                "SELECT database_name, schema_name, table_name, 'TABLE' FROM duckdb_tables()"
                " WHERE NOT internal AND NOT temporary"
                " UNION ALL SELECT database_name, schema_name, view_name, 'VIEW' FROM duckdb_views()"
                " WHERE NOT internal AND NOT temporary ORDER BY 1, 2, 3"
            ).fetchall()
        inner = ("main", "_fs_information_schema", TEMPORARY_SCHEMA)
        return [
            (Qualified(*name), kind)
            for *name, kind in rows
            if name[1] not in inner and database in (None, name[0]) and schema in (None, name[1])
        ]

    def has_schema(self, database: str, schema: str) -> bool:
        return schema == "INFORMATION_SCHEMA" or schema in self.schemas(database)

    def create_database(self, name: str) -> bool:
        """:return: False if it was there already."""
        with self._lock:
            if name in self.databases():
                return False
            if not re.fullmatch(r"[\w$ -]+", name):
                raise unsupported(f"database name {name}")
            self._attach(name)
            self.create_schema(name, "PUBLIC")
            return True

    def _attach(self, name: str) -> None:
        duck = self._fake.duck_conn
        file = self._directory / f"{name}.db"
        duck.execute(f"ATTACH IF NOT EXISTS '{file}' AS {quote(name)}")
        duck.execute(info_schema.per_db_creation_sql(quote(name)).replace(f"'{quote(name)}'", f"'{name}'"))
        duck.execute(macros.creation_sql(quote(name)))
        # Of the sessions of a server before, nothing is left.
        duck.execute(f"DROP SCHEMA IF EXISTS {quote(name)}.{TEMPORARY_SCHEMA} CASCADE")
        duck.execute(f"CREATE SCHEMA {quote(name)}.{TEMPORARY_SCHEMA}")

    def drop_database(self, name: str) -> None:
        with self._lock:
            if name not in self.databases():
                raise does_not_exist("Database", name)
            self._fake.duck_conn.execute(f"DETACH {quote(name)}")
            for file in self._directory.glob(f"{name}.db*"):
                file.unlink(missing_ok=True)  # DuckDB removes its own log

    def create_schema(self, database: str, name: str) -> bool:
        with self._lock:
            if database not in self.databases():
                raise does_not_exist("Database", database)
            if name in self.schemas(database):
                return False
            if "'" in name:  # fakesnow writes it between quotes as it is
                raise unsupported(f"schema name {name}")
            self._fake.duck_conn.execute(f"CREATE SCHEMA {quote(database)}.{quote(name)}")
            return True

    def drop_schema(self, database: str, name: str) -> None:
        with self._lock:
            if database not in self.databases() or name not in self.schemas(database):
                raise does_not_exist("Schema", f"{database}.{name}")
            self._fake.duck_conn.execute(f"DROP SCHEMA {quote(database)}.{quote(name)} CASCADE")

    # Sessions

    def connect(self, session: Session, database: str | None, schema: str | None) -> None:
        """Open the session's connection; a database or schema that is not there is left unset."""
        with self._lock:
            session.connection = Connection(self._fake.connect(), session=session)
        if database in self.databases():
            wanted = schema or "PUBLIC"
            self.use(session, database, wanted if self.has_schema(database, wanted) else None)

    def fork(self, session: Session) -> Session:
        """The same session on a connection of its own, for a statement that runs beside others."""
        other = dataclasses.replace(session, connection=None, lock=threading.RLock())
        self.connect(other, session.database, session.schema)
        return other

    def disconnect(self, session: Session) -> None:
        if session.connection is None:
            return
        self.rollback(session)
        for (kind, _), inner in list(session.temporary.items()):
            if kind == "TABLE":
                for what in ("TABLE", "VIEW"):
                    with contextlib.suppress(duckdb.Error):
                        session.connection.duck.execute(
                            f"DROP {what} IF EXISTS {'.'.join(map(quote, inner))}"
                        )
        self._close(session)

    def close_fork(self, session: Session) -> None:
        """End a fork; what is temporary belongs to the session it came from."""
        self.rollback(session)
        self._close(session)

    def _close(self, session: Session) -> None:
        if session.connection is not None:
            session.connection.duck.close()
            session.connection = None

    def use(self, session: Session, database: str, schema: str | None) -> None:
        if database not in self.databases():
            raise does_not_exist("Database", database)
        if schema is not None and not self.has_schema(database, schema):
            if schema != "PUBLIC":
                raise does_not_exist("Schema", f"{database}.{schema}")
            schema = None
        session.database, session.schema = database, schema
        fake = _connection(session).fake
        fake.database, fake._schema = database, schema
        fake.database_set, fake.schema_set = True, schema is not None
        path = f"{quote(database)}.{quote(schema or 'main')}"
        _connection(session).duck.execute(f"SET schema = '{path}'")

    def leave(self, session: Session) -> None:
        """Before the current database is dropped."""
        session.database = session.schema = None
        fake = _connection(session).fake
        fake.database_set = fake.schema_set = False
        _connection(session).duck.execute("SET schema = 'memory.main'")

    # Transactions

    def begin(self, session: Session) -> None:
        connection = _connection(session)
        connection.in_transaction, connection.idle_since = True, time.monotonic()
        connection.transaction_id = str(time.time_ns())

    def commit(self, session: Session) -> None:
        self._end(session, "commit")

    def rollback(self, session: Session) -> None:
        self._end(session, "rollback")

    def _end(self, session: Session, how: str) -> None:
        connection = _connection(session)
        try:
            if how == "commit" and connection.writes:
                self._begin(connection)
            if connection.begun:
                getattr(connection.duck, how)()
        finally:
            connection.in_transaction = connection.begun = False
            connection.transaction_id = None
            connection.writes.clear()
            self.locks.release(connection)

    def _end_if_idle(self, owner: object) -> None:
        """Roll back a transaction that others wait for and whose client is gone."""
        assert isinstance(owner, Connection)
        session = owner.session
        if session is None or not owner.in_transaction:
            return
        if time.monotonic() - owner.idle_since < self.max_idle() or not session.lock.acquire(blocking=False):
            return
        try:
            self.rollback(session)
        finally:
            session.lock.release()

    # Statements

    def register_function(
        self,
        name: str,
        function: Callable[..., pa.Array],
        parameters: list[str],
        return_type: str,
    ) -> None:
        """Make an Arrow function callable from SQL.

        A SnowflakeError that it raises reaches the client as it is; DuckDB only carries text, so
        the text names the error that is kept here.
        """

        def call(*arrays: pa.ChunkedArray) -> pa.Array:
            try:
                return function(*arrays)
            except SnowflakeError as e:
                key = uuid.uuid4().hex
                self._failures[key] = e
                raise RuntimeError(f"snowml-failure-{key}") from e

        # DuckDB counts the parameters.
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(f"p{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(parameters))]
        )
        with self._lock:
            with contextlib.suppress(duckdb.Error):
                self._fake.duck_conn.remove_function(name)
            self._fake.duck_conn.create_function(
                name,
                call,
                parameters,
                return_type,
                type="arrow",
                null_handling="special",
                side_effects=True,
            )

    def describe(self, session: Session, sql: str) -> Result:
        """The columns a query would return, without running it."""
        connection = _connection(session)
        with self._prepared(session, sql, None, describe_only=True) as (tree, _, _):
            if not isinstance(tree, exp.Query):
                return results.status("", _type_id(tree))
            cursor = connection.fake.cursor()
            with self._translated(sql):
                described = cursor._describe_only(tree.sql("snowflake")) or []
        types = [rowtype(row[0], row[1]) for row in described]
        empty = pa.table({f"c{i}": pa.array([], pa.string()) for i in range(len(types))})
        return Result(empty, types, results.SELECT)

    def execute(
        self,
        session: Session,
        sql: str,
        batch: pa.Table | None = None,
        query: Query | None = None,
    ) -> Result:
        """Run one statement.

        :param batch: the rows of an array binding, with the columns ``$1``, ``$2``, ...
        :param query: its entry in the query history, to be able to cancel it.
        """
        connection = _connection(session)
        if query is not None:
            query.interrupt = lambda: self._interrupt(connection)
        with self._prepared(session, sql, batch) as (tree, rewriter, finished):
            writes = not isinstance(tree, _READS)
            if writes and not isinstance(tree, tuple(_DML)):
                self.commit(session)  # DDL ends an open transaction
            elif writes and session.parameters.get("AUTOCOMMIT") is False and not connection.in_transaction:
                self.begin(session)
            text = tree.sql("snowflake")
            # CREATE ... IF NOT EXISTS of what is there changes nothing.
            there = (
                self._there(session, tree) if isinstance(tree, exp.Create) and tree.args.get("exists") else ()
            )
            with self._translated(sql):
                if connection.in_transaction:
                    result = self._in_transaction(session, connection, tree, text, query)
                else:
                    result = self._autocommit(session, connection, tree, text, query)
            finished()
            if isinstance(tree, (exp.Create, exp.Drop, exp.TruncateTable)):
                for name in _locked_tables(session, tree):
                    session.account.catalog.drop(LOADED_FILES, name)
                    if name not in there:
                        _note_owner(session, tree, name)
            connection.idle_since = time.monotonic()
            return rewriter.status(result)

    def _there(self, session: Session, tree: exp.Expression) -> list[Qualified]:
        tables = dict(self.tables())
        return [name for name in _locked_tables(session, tree) if name in tables]

    def _interrupt(self, connection: Connection) -> None:
        connection.duck.interrupt()
        self.locks.wake()

    @contextlib.contextmanager
    def _prepared(
        self, session: Session, sql: str, batch: pa.Table | None, *, describe_only: bool = False
    ) -> Iterator[tuple[exp.Expression, Rewriter, Callable[[], None]]]:
        connection = _connection(session)
        if "!" in sql:
            sql = model_calls.rewrite(session, sql)
        try:
            tree = sqlglot.parse_one(_SCOPED.sub(r"\1", sql), read="snowflake")
        except sqlglot.errors.ParseError as e:
            raise translate(e, sql) from None
        _check_supported(tree, sql)
        rewriter = Rewriter(session, connection, describe_only=describe_only)
        succeeded = False

        def finished() -> None:
            nonlocal succeeded
            succeeded = True

        try:
            with self._translated(sql):
                if batch is not None:
                    tree = rewriter.batch(tree, batch)
                tree = rewriter.rewrite(tree)
            yield tree, rewriter, finished
        finally:
            if session.connection is not None:
                rewriter.finish(succeeded)

    def _autocommit(
        self,
        session: Session,
        connection: Connection,
        tree: exp.Expression,
        text: str,
        query: Query | None,
    ) -> Result:
        self._acquire(session, tree, query)
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    return _run(connection, tree, text)
                except duckdb.TransactionException:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(0.02 * (attempt + 1))
            raise AssertionError
        finally:
            self.locks.release(connection)

    def _in_transaction(
        self,
        session: Session,
        connection: Connection,
        tree: exp.Expression,
        text: str,
        query: Query | None,
    ) -> Result:
        self._acquire(session, tree, query)
        if connection.begun and not connection.writes:
            connection.duck.commit()  # nothing written yet: read what others committed meanwhile
            connection.begun = False
        for attempt in range(_ATTEMPTS):
            try:
                self._begin(connection)
                result = _run(connection, tree, text)
                if not isinstance(tree, _READS):
                    connection.writes.append(text)
                return result
            except duckdb.TransactionException:
                self._restart(connection)
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.02 * (attempt + 1))
            except Exception:
                self._restart(connection)  # one failed statement does not end a transaction
                raise
        raise AssertionError

    def _begin(self, connection: Connection) -> None:
        """DuckDB's transaction, with what was written so far, if it is not under way."""
        if connection.begun:
            return
        connection.duck.begin()
        connection.begun = True
        for write in connection.writes:
            _run(connection, sqlglot.parse_one(write, read="snowflake"), write)

    def _restart(self, connection: Connection) -> None:
        with contextlib.suppress(duckdb.Error):
            connection.duck.rollback()
        connection.begun = False

    def _acquire(self, session: Session, tree: exp.Expression, query: Query | None) -> None:
        cancelled = query.cancelled if query is not None else threading.Event()
        timeout = float(session.parameters.get("LOCK_TIMEOUT", 43200))
        tables = [str(name) for name in _locked_tables(session, tree)]
        self.locks.acquire(tables, _connection(session), timeout, cancelled)

    @contextlib.contextmanager
    def _translated(self, sql: str) -> Iterator[None]:
        try:
            yield
        except SnowflakeError:
            raise
        except (duckdb.Error, snowflake.connector.errors.Error, NotImplementedError) as e:
            found = re.search(r"snowml-failure-(\w+)", str(e))
            if found and found[1] in self._failures:
                raise self._failures.pop(found[1]) from None
            raise translate(e, sql) from e


def _connection(session: Session) -> Connection:
    if session.connection is None:
        raise SnowflakeError(390111, "08003", "Session no longer exists.")
    return session.connection


def _run(connection: Connection, tree: exp.Expression, text: str) -> Result:
    cursor = connection.fake.cursor()
    cursor.execute(text, server=True)
    connection.fake.results_cache.clear()  # results are kept with their queries
    described = cursor._describe_last_sql()
    types = [rowtype(row[0], row[1]) for row in described]
    table = variants(whole_numbers(cursor._arrow_table, types), [str(row[1]) for row in described])
    return Result(table, types, _type_id(tree))


def _type_id(tree: exp.Expression) -> int:
    if isinstance(tree, exp.Query):
        return results.SELECT
    if isinstance(tree, exp.Show):
        return results.SHOW
    if isinstance(tree, exp.Describe):
        return results.DESCRIBE
    return _DML.get(type(tree), results.DDL)


def _check_supported(tree: exp.Expression, sql: str) -> None:
    if isinstance(tree, (exp.Query, *_DML)):
        return
    if isinstance(tree, (exp.Create, exp.Drop, exp.Alter)) and str(tree.args.get("kind")) in _KINDS:
        properties = tree.args.get("properties")
        if all(isinstance(p, _PROPERTIES) for p in (properties.expressions if properties else ())):
            return
    if isinstance(tree, exp.TruncateTable):
        return
    if isinstance(tree, exp.Comment) and str(tree.args.get("kind")) in ("TABLE", "COLUMN", "VIEW"):
        return
    if isinstance(tree, exp.Describe) and str(tree.args.get("kind") or "TABLE").upper() in _KINDS:
        return
    if isinstance(tree, exp.Show) and tree.name.upper() in _SHOWS:
        return
    raise unsupported(sql)


def _note_owner(session: Session, tree: exp.Expression, name: Qualified) -> None:
    if isinstance(tree, (exp.Create, exp.Drop)) and name.schema != TEMPORARY_SCHEMA:
        kind = str(tree.args.get("kind")).upper()
        grants.table_changed(session, kind, name, made=isinstance(tree, exp.Create))


def _locked_tables(session: Session, tree: exp.Expression) -> list[Qualified]:
    if isinstance(tree, exp.Insert) and not tree.args.get("overwrite"):
        return []
    if isinstance(tree, (exp.Update, exp.Delete, exp.Merge, exp.Insert, exp.Alter, exp.Create)):
        target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        targets = [target]
    elif isinstance(tree, exp.TruncateTable):
        targets = tree.expressions
    elif isinstance(tree, exp.Drop):
        targets = [tree.this, *(tree.args.get("tables") or [])]
    else:
        return []
    return [session.resolve(table_name(t)) for t in targets if isinstance(t, exp.Table)]
