"""USE, ALTER SESSION, transactions, databases and schemas, CALL, cancelling."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from . import functions, queries, service_methods
from .catalog import Qualified
from .errors import SnowflakeError, compilation_error, does_not_exist, invalid_value, unsupported
from .functions import system_function
from .grammar import Reader
from .information import PARAMETERS
from .results import TCL, Result, rows, status
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

_DONE = "Statement executed successfully."


@statement("USE")
def use(session: Session, reader: Reader) -> Result:
    reader.expect("USE")
    engine = session.account.engine
    if reader.accept("WAREHOUSE"):
        name = reader.identifier()
        reader.done()
        if session.account.catalog.find("WAREHOUSE", Qualified("", "", name)) is None:
            raise SnowflakeError(
                2043,
                "02000",
                "SQL compilation error:\nObject does not exist, or operation cannot be performed.",
            )
        session.warehouse = name
    elif reader.accept("ROLE"):
        session.role = reader.identifier()
        reader.done()
    elif reader.accept("SECONDARY", "ROLES"):
        which = reader.accept_any("ALL", "NONE")
        if which is None:
            raise unsupported(f"USE SECONDARY ROLES {reader.rest()}")
        reader.done()
        session.secondary_roles = which == "ALL"
    elif reader.accept("SCHEMA"):
        named = reader.name()
        reader.done()
        database = named.schema or session.database
        if database is None:
            raise does_not_exist("Database", "(none is current)")
        if not engine.has_schema(database, named.name):
            raise does_not_exist("Schema", f"{database}.{named.name}")
        engine.use(session, database, named.name)
    else:
        reader.accept("DATABASE")
        named = reader.name()
        reader.done()
        if named.schema is not None:
            engine.use(session, named.schema, named.name)
        else:
            engine.use(session, named.name, "PUBLIC")
    return status(_DONE)


@statement("ALTER SESSION")
def alter_session(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "SESSION")
    if reader.accept("UNSET"):
        keys = [reader.identifier()]
        while reader.accept_symbol(","):
            keys.append(reader.identifier())
        reader.done()
        for key in keys:
            _known(key)
            session.parameters.pop(key, None)
        return status(_DONE)
    reader.expect("SET")
    changes = reader.options()
    reader.done()
    if not changes:
        raise compilation_error("syntax error: ALTER SESSION SET without a parameter.")
    for key, text in changes.items():
        set_parameter(session, key, text)
    return status(_DONE)


def set_parameter(session: Session, key: str, text: Any) -> None:
    default, _ = _known(key)
    value: Any = str(text)
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise invalid_value(f"invalid value [{value}] for parameter '{key}'")
        value = value.lower() == "true"
    elif isinstance(default, int):
        if not re.fullmatch(r"-?\d+", value):
            raise invalid_value(f"invalid value [{value}] for parameter '{key}'")
        value = int(value)
    if key == "QUERY_TAG" and len(value) > 2000:
        raise invalid_value(f"invalid value [{value[:40]}...] for parameter 'QUERY_TAG'")
    if key == "AUTOCOMMIT" and value and session.connection and session.connection.in_transaction:
        session.account.engine.commit(session)
    session.parameters[key] = value


def _known(key: str) -> tuple[Any, str]:
    if key not in PARAMETERS:
        raise invalid_value(f"invalid parameter '{key}'")
    return PARAMETERS[key]


@statement("BEGIN", "START TRANSACTION")
def begin(session: Session, reader: Reader) -> Result:
    if not reader.accept("START", "TRANSACTION"):
        reader.expect("BEGIN")
        reader.accept_any("TRANSACTION", "WORK")
    if reader.accept("NAME"):
        reader.identifier()
    reader.done()
    session.account.engine.begin(session)
    return status(_DONE, TCL)


@statement("COMMIT")
def commit(session: Session, reader: Reader) -> Result:
    reader.expect("COMMIT")
    reader.accept("WORK")
    reader.done()
    session.account.engine.commit(session)
    return status(_DONE, TCL)


@statement("ROLLBACK")
def rollback(session: Session, reader: Reader) -> Result:
    reader.expect("ROLLBACK")
    reader.accept("WORK")
    reader.done()
    session.account.engine.rollback(session)
    return status(_DONE, TCL)


@statement("CREATE [OR REPLACE] [TRANSIENT] DATABASE")
def create_database(session: Session, reader: Reader) -> Result:
    replace, if_not_exists = _creation(reader, "DATABASE")
    name = reader.identifier()
    comment = _comment(reader)
    account = session.account
    if replace and name in account.engine.databases():
        account.drop_contents(name, None)
        account.engine.drop_database(name)
    if not account.engine.create_database(name):
        if not if_not_exists:
            raise SnowflakeError(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")
        return status(f"{name} already exists, statement succeeded.")
    account.catalog.create("DATABASE", Qualified(name, "", ""), session.role, {}, comment, replace=True)
    account.engine.use(session, name, "PUBLIC")
    return status(f"Database {name} successfully created.")


@statement("CREATE [OR REPLACE] [TRANSIENT] SCHEMA")
def create_schema(session: Session, reader: Reader) -> Result:
    replace, if_not_exists = _creation(reader, "SCHEMA")
    database, name = _schema_name(session, reader)
    comment = _comment(reader)
    account = session.account
    if replace and account.engine.has_schema(database, name):
        account.drop_contents(database, name)
        account.engine.drop_schema(database, name)
    if not account.engine.create_schema(database, name):
        if not if_not_exists:
            raise SnowflakeError(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")
        return status(f"{name} already exists, statement succeeded.")
    account.catalog.create("SCHEMA", Qualified(database, name, ""), session.role, {}, comment, replace=True)
    account.engine.use(session, database, name)
    return status(f"Schema {name} successfully created.")


@statement("DROP DATABASE")
def drop_database(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "DATABASE")
    if_exists = reader.accept("IF", "EXISTS")
    name = reader.identifier()
    reader.accept_any("CASCADE", "RESTRICT")
    reader.done()
    engine = session.account.engine
    if if_exists and name not in engine.databases():
        return status("Drop statement executed successfully (object already dropped).")
    if session.database == name:
        engine.leave(session)
    if name in engine.databases():
        session.account.drop_contents(name, None)
    engine.drop_database(name)
    return status(f"{name} successfully dropped.")


@statement("DROP SCHEMA")
def drop_schema(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "SCHEMA")
    if_exists = reader.accept("IF", "EXISTS")
    database, name = _schema_name(session, reader)
    reader.accept_any("CASCADE", "RESTRICT")
    reader.done()
    engine = session.account.engine
    if if_exists and not engine.has_schema(database, name):
        return status("Drop statement executed successfully (object already dropped).")
    if engine.has_schema(database, name):
        session.account.drop_contents(database, name)
    if (session.database, session.schema) == (database, name):
        engine.use(session, database, None)
    engine.drop_schema(database, name)
    return status(f"{name} successfully dropped.")


def _creation(reader: Reader, kind: str) -> tuple[bool, bool]:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.accept("TRANSIENT")
    reader.expect(kind)
    return replace, reader.accept("IF", "NOT", "EXISTS")


def _schema_name(session: Session, reader: Reader) -> tuple[str, str]:
    name = reader.name()
    database = name.schema or session.database
    if database is None:
        raise SnowflakeError(
            90105,
            "22000",
            "Cannot perform operation. This session does not have a current database. "
            "Call 'USE DATABASE', or use a qualified name.",
        )
    return database, name.name


def _comment(reader: Reader) -> str:
    """The rest of a statement that makes a database or a schema."""
    reader.accept("WITH", "MANAGED", "ACCESS")
    options = reader.options()
    for option in options:
        if option not in ("COMMENT", "DATA_RETENTION_TIME_IN_DAYS"):
            raise unsupported(f"CREATE ... {option}")
    reader.done()
    return str(options.get("COMMENT", ""))


@statement("CALL")
def call(session: Session, reader: Reader) -> Result:
    """``CALL service!method(...)`` and ``CALL SYSTEM$...(...)``."""
    reader.expect("CALL")
    name = reader.name()
    method = reader.identifier().lower() if reader.accept_symbol("!") else None
    arguments = _arguments(reader)
    reader.done()
    if method is not None:
        return service_methods.call_service_method(session, session.resolve(name), method, arguments)
    function = functions.SYSTEM.get(name.name)
    if function is None:
        raise unsupported(f"CALL {name}")
    return rows([name.name], [[function(session, *arguments)]])


def _arguments(reader: Reader) -> list[Any]:
    reader.expect_symbol("(")
    found: list[Any] = []
    while not reader.accept_symbol(")"):
        if reader.peek().kind == "number":
            found.append(json.loads(reader.next().text))
        elif reader.is_string():
            found.append(reader.string())
        elif word := reader.accept_any("TRUE", "FALSE", "NULL"):
            found.append({"TRUE": True, "FALSE": False, "NULL": None}[word])
        else:
            raise reader.unexpected()
        if not reader.accept_symbol(",") and reader.peek().text != ")":
            raise reader.unexpected()
    return found


@system_function("SYSTEM$CANCEL_QUERY")
def cancel_query(session: Session, query_id: str) -> str:
    query = session.account.queries.find(query_id)
    if query is None or query.finished.is_set():
        return "Identified SQL statement is not currently executing."
    query.cancel()
    return f"query [{query_id}] terminated."


@system_function("SYSTEM$CANCEL_ALL_QUERIES")
def cancel_all_queries(session: Session, session_id: int | str) -> str:
    found = [s for s in list(session.account.sessions.values()) if s.id == int(session_id)]
    count = session.account.queries.cancel_all(found[0], but=session) if found else 0
    return f"{count} queries cancelled."


@system_function("SYSTEM$WAIT")
def wait(session: Session, amount: float, unit: str = "SECONDS") -> str:
    factor = {"SECONDS": 1.0, "MILLISECONDS": 0.001, "MINUTES": 60.0}.get(str(unit).upper())
    if factor is None:
        raise invalid_value(f"invalid unit '{unit}' for SYSTEM$WAIT")
    query = queries.current()
    if query is not None and query.cancelled.wait(float(amount) * factor):
        raise SnowflakeError(604, "57014", "SQL execution canceled")
    return f"waited {amount} {str(unit).lower()}"
