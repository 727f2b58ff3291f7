"""SHOW and DESCRIBE of databases, schemas, warehouses and parameters; history; result scans."""

from __future__ import annotations

import datetime
import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

from . import grants
from .catalog import Qualified
from .errors import SnowflakeError, already_exists, does_not_exist
from .functions import system_function, table_function
from .grammar import Reader, like_to_regex
from .results import SELECT, Result, now, rows, status
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

# The session parameters a client may ask for or set: default and description.
PARAMETERS: dict[str, tuple[Any, str]] = {
    "ABORT_DETACHED_QUERY": (False, "Cancel queries whose client has gone"),
    "AUTOCOMMIT": (True, "Whether a statement outside a transaction commits by itself"),
    "BINARY_OUTPUT_FORMAT": ("HEX", "Format of BINARY values as text"),
    "CLIENT_PREFETCH_THREADS": (4, "Download threads of the client"),
    "CLIENT_RESULT_CHUNK_SIZE": (160, "Size of a result chunk in MB"),
    "CLIENT_SESSION_KEEP_ALIVE": (False, "Whether the client renews an idle session"),
    "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY": (3600, "Seconds between heartbeats"),
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": (0, "Array bindings above this size go to a stage"),
    "CLIENT_TELEMETRY_ENABLED": (False, "Whether the client sends telemetry"),
    "CLIENT_TIMESTAMP_TYPE_MAPPING": ("TIMESTAMP_LTZ", "Type of bound timestamps"),
    "DATE_OUTPUT_FORMAT": ("YYYY-MM-DD", "Format of DATE values as text"),
    "GEOGRAPHY_OUTPUT_FORMAT": ("GeoJSON", "Format of GEOGRAPHY values"),
    "LOCK_TIMEOUT": (43200, "Seconds a statement waits for a lock"),
    "MULTI_STATEMENT_COUNT": (1, "Statements per request"),
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": ("ARROW", "Format of result sets"),
    "PYTHON_SNOWPARK_ENABLE_THREAD_SAFE_SESSION": (True, "Threads may share a Snowpark session"),
    "PYTHON_SNOWPARK_USE_SCOPED_TEMP_OBJECTS": (True, "Snowpark makes scoped temporary objects"),
    "QUERY_TAG": ("", "Text kept with each query"),
    "QUOTED_IDENTIFIERS_IGNORE_CASE": (False, "Whether quoted identifiers are upper-cased"),
    "ROWS_PER_RESULTSET": (0, "Most rows of a result, 0 for all"),
    "STATEMENT_TIMEOUT_IN_SECONDS": (172800, "Seconds after which a statement is cancelled"),
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": (0, "Seconds a statement may wait for a warehouse"),
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": ("", "Format of TIMESTAMP_LTZ values as text"),
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": ("YYYY-MM-DD HH24:MI:SS.FF3", "Format of TIMESTAMP_NTZ"),
    "TIMESTAMP_OUTPUT_FORMAT": ("YYYY-MM-DD HH24:MI:SS.FF3 TZHTZM", "Format of timestamps"),
    "TIMESTAMP_TYPE_MAPPING": ("TIMESTAMP_NTZ", "What TIMESTAMP stands for"),
    "TIMESTAMP_TZ_OUTPUT_FORMAT": ("", "Format of TIMESTAMP_TZ values as text"),
    "TIMEZONE": ("Etc/UTC", "Time zone of the session"),
    "TIME_OUTPUT_FORMAT": ("HH24:MI:SS", "Format of TIME values as text"),
    "USE_CACHED_RESULT": (True, "Whether results may be reused"),
    "WEEK_START": (0, "First day of the week"),
}  # fmt: skip


@statement("SHOW PARAMETERS", reads_only=True)
def show_parameters(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "PARAMETERS")
    like = reader.string() if reader.accept("LIKE") else None
    if reader.accept_any("IN", "FOR") and not reader.accept_any("SESSION", "ACCOUNT"):
        raise reader.unexpected()
    reader.done()
    matches = like_to_regex(like) if like is not None else None
    found = []
    for key, (default, description) in PARAMETERS.items():
        if matches is not None and not matches.fullmatch(key):
            continue
        value = session.parameters.get(key, default)
        level = "SESSION" if key in session.parameters else ""
        kind = {bool: "BOOLEAN", int: "NUMBER"}.get(type(default), "STRING")
        found.append([key, _text(value), _text(default), level, description, kind])
    return rows(["key", "value", "default", "level", "description", "type"], found)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@statement("SHOW DATABASES", "SHOW TERSE DATABASES", reads_only=True)
def show_databases(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW")
    reader.accept("TERSE")
    reader.expect("DATABASES")
    like = reader.string() if reader.accept("LIKE") else None
    if reader.accept("IN"):
        reader.expect("ACCOUNT")
    reader.done()
    matches = like_to_regex(like) if like is not None else None
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "is_default", "is_current", "origin", "owner",
        "comment", "options", "retention_time", "kind", "owner_role_type",
    ]  # fmt: skip
    return rows(
        columns,
        [
            {
                "created_on": _made(session, "DATABASE", Qualified(name, "", ""))[0],
                "name": name,
                "is_default": "N",
                "is_current": "Y" if name == session.database else "N",
                "origin": "",
                "owner": grants.owner(session.account, "DATABASE", Qualified(name, "", "")),
                "comment": _made(session, "DATABASE", Qualified(name, "", ""))[1],
                "options": "",
                "retention_time": "1",
                "kind": "STANDARD",
                "owner_role_type": "ROLE",
            }
            for name in session.account.engine.databases()
            if matches is None or matches.fullmatch(name)
        ],
    )


@statement("SHOW SCHEMAS", "SHOW TERSE SCHEMAS", reads_only=True)
def show_schemas(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW")
    reader.accept("TERSE")
    reader.expect("SCHEMAS")
    like = reader.string() if reader.accept("LIKE") else None
    engine = session.account.engine
    databases: list[str | None] = [session.database] if session.database else [*engine.databases()]
    if reader.accept("IN"):
        if reader.accept("ACCOUNT"):
            databases = [*engine.databases()]
        else:
            reader.accept("DATABASE")
            databases = [session.database if reader.at_end() else reader.identifier()]
    reader.done()
    matches = like_to_regex(like) if like is not None else None
    found = []
    for database in databases:
        if database is None or database not in engine.databases():
            raise does_not_exist("Database", str(database))
        for name in [*engine.schemas(database), "INFORMATION_SCHEMA"]:
            if matches is None or matches.fullmatch(name):
                current = (database, name) == (session.database, session.schema)
                created_on, comment = _made(session, "SCHEMA", Qualified(database, name, ""))
                found.append(
                    [
                        created_on,
                        name, "N", "Y" if current else "N", database,
                        grants.owner(session.account, "SCHEMA", Qualified(database, name, "")),
                        comment, "", "1", "ROLE",
                    ]
                )  # fmt: skip
    return rows(
        [("created_on", "timestamp_ltz"), "name", "is_default", "is_current", "database_name",
         "owner", "comment", "options", "retention_time", "owner_role_type"],
        found,
    )  # fmt: skip


def _made(session: Session, kind: str, name: Qualified) -> tuple[datetime.datetime, str]:
    """When it was made, and with which comment."""
    found = session.account.catalog.find(kind, name)
    return (found.created_on, found.comment) if found else (now(), "")


@statement("SHOW WAREHOUSES", reads_only=True)
def show_warehouses(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "WAREHOUSES")
    like = reader.string() if reader.accept("LIKE") else None
    reader.done()
    columns: list[str | tuple[str, str]] = [
        "name", "state", "type", "size", "is_default", "is_current", "auto_suspend", "auto_resume",
        ("created_on", "timestamp_ltz"), "owner", "comment",
    ]  # fmt: skip
    return rows(
        columns,
        [
            {
                "name": w.name.name,
                "state": w.data.get("state", "STARTED"),
                "type": "STANDARD",
                "size": w.data.get("size", "X-Small"),
                "is_default": "N",
                "is_current": "Y" if w.name.name == session.warehouse else "N",
                "auto_suspend": "600",
                "auto_resume": "true",
                "created_on": w.created_on,
                "owner": w.owner,
                "comment": w.comment,
            }
            for w in session.account.catalog.list("WAREHOUSE", like=like)
        ],
    )


@statement("CREATE [OR REPLACE] WAREHOUSE")
def create_warehouse(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("WAREHOUSE")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = Qualified("", "", reader.identifier())
    reader.accept("WITH")
    options = reader.options()
    reader.done()
    catalog = session.account.catalog
    if catalog.find("WAREHOUSE", name) and not replace:
        if if_not_exists:
            return status(f"{name} already exists, statement succeeded.")
        raise already_exists(str(name))
    size = str(options.get("WAREHOUSE_SIZE", "X-Small"))
    catalog.create("WAREHOUSE", name, session.role, {"size": size}, replace=True)
    return status(f"Warehouse {name} successfully created.")


@statement("DROP WAREHOUSE")
def drop_warehouse(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "WAREHOUSE")
    if_exists = reader.accept("IF", "EXISTS")
    name = Qualified("", "", reader.identifier())
    reader.done()
    if not session.account.catalog.drop("WAREHOUSE", name) and not if_exists:
        raise does_not_exist("Warehouse", str(name))
    return status(f"{name} successfully dropped.")


@statement("ALTER WAREHOUSE")
def alter_warehouse(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "WAREHOUSE")
    reader.accept("IF", "EXISTS")
    name = Qualified("", "", reader.identifier())
    what = reader.accept_any("SUSPEND", "RESUME", "SET")
    if what is None:
        raise reader.unexpected()
    reader.accept("IF", "SUSPENDED")
    options = reader.options()
    reader.done()
    with session.account.catalog.change("WAREHOUSE", name) as warehouse:
        if what == "SET":
            warehouse.data["size"] = str(options.get("WAREHOUSE_SIZE", warehouse.data["size"]))
        else:
            warehouse.data["state"] = "SUSPENDED" if what == "SUSPEND" else "STARTED"
    return status("Statement executed successfully.")


@table_function("RESULT_SCAN")
def result_scan(session: Session, query_id: str) -> Result:
    query = session.account.queries.find(query_id)
    if query is None:
        raise SnowflakeError(709, "02000", f"Statement {query_id} not found")
    query.finished.wait()
    if query.error is not None:
        raise query.error
    assert query.result is not None
    names = [r["name"] for r in query.result.rowtype]
    return Result(query.result.table.rename_columns(names), query.result.rowtype, SELECT)


@system_function("LAST_QUERY_ID")
def last_query_id(session: Session, number: int = -1) -> str | None:
    done = [q.id for q in session.account.queries.all() if q.session_id == session.id and q.finished.is_set()]
    index = number if number < 0 else number - 1
    return done[index] if -len(done) <= index < len(done) else None


@table_function(
    "INFORMATION_SCHEMA.QUERY_HISTORY",
    "INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION",
    "INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER",
)
def query_history(session: Session, *_: Any, result_limit: int = 100, **__: Any) -> Result:
    """The statements of all sessions since the server started, newest first."""
    columns: list[str | tuple[str, str]] = [
        "QUERY_ID", "QUERY_TEXT", "DATABASE_NAME", "SCHEMA_NAME", ("SESSION_ID", "fixed"), "USER_NAME",
        "ROLE_NAME", "WAREHOUSE_NAME", "QUERY_TAG", "EXECUTION_STATUS", "ERROR_CODE", "ERROR_MESSAGE",
        ("START_TIME", "timestamp_ltz"), ("END_TIME", "timestamp_ltz"),
    ]  # fmt: skip
    found = []
    for q in reversed(session.account.queries.all()):
        end = datetime.datetime.fromtimestamp(q.ended, datetime.UTC) if q.ended else None
        found.append(
            [
                q.id, q.sql, q.database, q.schema, q.session_id, q.user, q.role, q.warehouse, q.tag,
                q.status, f"{q.error.errno:06d}" if q.error else None, q.error.message if q.error else None,
                datetime.datetime.fromtimestamp(q.started, datetime.UTC), end,
            ]
        )  # fmt: skip
    return rows(columns, found[: int(result_limit)], SELECT)


@table_function("VIEW.PACKAGES")
def packages(session: Session) -> Result:
    """INFORMATION_SCHEMA.PACKAGES: what the server's own Python has installed."""
    runtime = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found[name.lower()] = [name.lower(), distribution.version, "python", runtime]
    return rows(["PACKAGE_NAME", "VERSION", "LANGUAGE", "RUNTIME_VERSION"], found.values(), SELECT)
