"""Errors in the shape in which Snowflake reports them to its clients."""

from __future__ import annotations


class SnowflakeError(Exception):
    """What a statement fails with.

    :param errno: Snowflake's error number, e.g. 2003.
    :param sqlstate: the SQL state that goes with it, e.g. ``42S02``.
    :param message: the text the client prints after number and state.
    """

    def __init__(self, errno: int, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.errno = errno
        self.sqlstate = sqlstate
        self.message = message


def compilation_error(message: str) -> SnowflakeError:
    return SnowflakeError(1003, "42000", f"SQL compilation error:\n{message}")


def invalid_value(message: str) -> SnowflakeError:
    return SnowflakeError(1008, "22023", f"SQL compilation error:\n{message}")


def does_not_exist(kind: str, name: str) -> SnowflakeError:
    """:param kind: in Snowflake's spelling, e.g. ``Stage``; :param name: as the statement gave it."""
    return SnowflakeError(
        2003,
        "02000",
        f"SQL compilation error:\n{kind} '{name}' does not exist or not authorized.",
    )


def already_exists(name: str, kind: str = "Object") -> SnowflakeError:
    return SnowflakeError(2002, "42710", f"SQL compilation error:\n{kind} '{name}' already exists.")


def unsupported(what: str) -> SnowflakeError:
    """A statement that the local Snowflake does not answer; ``what`` names it."""
    text = " ".join(what.split())
    if len(text) > 300:
        text = text[:300] + "..."
    return SnowflakeError(2, "0A000", f"Unsupported feature '{text}' (local Snowflake).")


def no_current(kind: str) -> SnowflakeError:
    number = 90105 if kind == "database" else 90106
    return SnowflakeError(
        number,
        "22000",
        f"Cannot perform operation. This session does not have a current {kind}. "
        f"Call 'USE {kind.upper()}', or use a qualified name.",
    )
