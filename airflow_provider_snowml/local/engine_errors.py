"""The engine's errors as Snowflake words and numbers them."""

from __future__ import annotations

import re

import duckdb
import snowflake.connector.errors
import sqlglot

from .errors import SnowflakeError, unsupported


def translate(error: Exception, sql: str) -> SnowflakeError:
    """:param sql: the statement as the client sent it, for messages that name it."""
    if isinstance(error, sqlglot.errors.ParseError):
        details = error.errors[0] if error.errors else {}
        line, column = details.get("line", 1), details.get("col", 0)
        near = details.get("highlight") or "<EOF>"
        return SnowflakeError(
            1003,
            "42000",
            f"SQL compilation error:\nsyntax error line {line} at position {column} unexpected '{near}'.",
        )
    if isinstance(error, NotImplementedError):
        return unsupported(f"{error} in {sql}")
    cause = error.__cause__ if isinstance(error.__cause__, duckdb.Error) else error
    text = str(cause).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    first = re.sub(r"^[\w ]+ Error: ", "", first)
    if isinstance(cause, duckdb.InterruptException) or "INTERRUPT Error" in text:
        return SnowflakeError(604, "57014", "SQL execution canceled")
    if isinstance(cause, duckdb.CatalogException):
        return _catalog(first)
    if isinstance(cause, duckdb.BinderException):
        return _binder(first)
    if isinstance(cause, duckdb.ParserException):
        return SnowflakeError(1003, "42000", f"SQL compilation error:\n{first}")
    if isinstance(cause, duckdb.ConstraintException):
        return SnowflakeError(100072, "22000", f"NULL result in a non-nullable column ({first})")
    if isinstance(cause, duckdb.ConversionException):
        return _conversion(first)
    if isinstance(cause, duckdb.OutOfRangeException):
        return SnowflakeError(100039, "22003", f"Numeric value out of range ({first})")
    if isinstance(error, snowflake.connector.errors.Error) and error.errno:
        return SnowflakeError(error.errno, error.sqlstate or "42000", str(error.raw_msg or error.msg))
    return SnowflakeError(603, "XX000", f"SQL execution internal error: {first}")


def _catalog(text: str) -> SnowflakeError:
    missing = re.search(
        r"(Table|View|Schema|Scalar Function|Table Function|Macro Function)?\s*(?:with name )?"
        r"\"?([\w.$ ]+?)\"? does not exist",
        text,
    )
    if "already exists" in text:
        name = re.search(r'"([^"]+)"', text)
        return SnowflakeError(
            2002, "42710", f"SQL compilation error:\nObject '{name[1] if name else text}' already exists."
        )
    if missing:
        kind, name_text = missing[1] or "Object", missing[2].strip()
        if "Function" in kind:
            return SnowflakeError(
                2140, "42601", f"SQL compilation error:\nUnknown function {name_text.upper()}"
            )
        return SnowflakeError(
            2003,
            "42S02",
            f"SQL compilation error:\nObject '{name_text}' does not exist or not authorized.",
        )
    return SnowflakeError(2003, "42S02", f"SQL compilation error:\n{text}")


def _binder(text: str) -> SnowflakeError:
    column = re.search(r'Referenced column "([^"]+)" not found', text) or re.search(
        r'does not have a column (?:named|with name) "([^"]+)"', text
    )
    if column:
        return SnowflakeError(
            904,
            "42000",
            f"SQL compilation error: error line 1 at position 0\ninvalid identifier '{column[1]}'",
        )
    if "Referenced table" in text or "not found!" in text:
        return SnowflakeError(904, "42000", f"SQL compilation error:\ninvalid identifier ({text})")
    return SnowflakeError(2043, "02000", f"SQL compilation error:\n{text}")


def _conversion(text: str) -> SnowflakeError:
    value = re.search(r"'([^']*)'", text) or re.search(r'"([^"]*)"', text)
    shown = value[1] if value else text
    if "timestamp" in text.lower():
        return SnowflakeError(100035, "22007", f"Timestamp '{shown}' is not recognized")
    if "date" in text.lower():
        return SnowflakeError(100040, "22007", f"Date '{shown}' is not recognized")
    if "bool" in text.lower():
        return SnowflakeError(100037, "22018", f"Boolean value '{shown}' is not recognized")
    return SnowflakeError(100038, "22018", f"Numeric value '{shown}' is not recognized")
