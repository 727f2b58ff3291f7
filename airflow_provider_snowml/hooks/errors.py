"""Snowflake's errors, by number, as ours.

There are two families: Snowpark raises ``SnowparkSQLException``, the connector ``Error`` (also for what
Snowpark sent asynchronously). They are told apart by name, so that neither library is imported to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_snowml.core.hints import explain_error
from airflow_provider_snowml.exceptions import (
    InsufficientPrivilegesError,
    LockWaitersError,
    ObjectExistsError,
    ObjectNotFoundError,
    StatementError,
    UnavailableError,
)

_BY_NUMBER: dict[int, type[StatementError]] = {
    2003: ObjectNotFoundError,
    2043: ObjectNotFoundError,
    2002: ObjectExistsError,
    3001: InsufficientPrivilegesError,
    625: LockWaitersError,
}
# The connector's errors of the network and of a server that has trouble, by class.
_UNAVAILABLE = frozenset(
    (
        *("BadGatewayError", "GatewayTimeoutError", "InternalServerError", "OperationalError"),
        *("OtherHTTPRetryableError", "RequestExceedMaxRetryError", "RequestTimeoutError"),
        *("ServiceUnavailableError", "TooManyRequests"),
    )
)
# They are an OperationalError, and no time mends them.
_FOR_GOOD = frozenset(("NonRetryableTlsError", "RevocationCheckError"))


def as_statement_error(error: BaseException) -> StatementError | None:
    """Our error for one of Snowflake's clients' SQL errors; ``None`` if it is none of them.

    :param error: what a client raised.
    """
    module = type(error).__module__
    if not module.startswith(("snowflake.connector", "snowflake.snowpark")):
        return None
    number = getattr(error, "sql_error_code" if module.startswith("snowflake.snowpark") else "errno", None)
    state, query = getattr(error, "sqlstate", None), getattr(error, "sfqid", None)
    try:
        errno = int(number) if number is not None else None
    except (TypeError, ValueError):
        errno = None
    kind = _BY_NUMBER.get(errno, StatementError) if errno is not None else StatementError
    names = {base.__name__ for base in type(error).__mro__}
    if kind is StatementError and names & _UNAVAILABLE and not names & _FOR_GOOD:
        kind = UnavailableError
    message = getattr(error, "raw_msg", None) or getattr(error, "raw_message", None) or str(error)
    hint = explain_error(message) if kind is InsufficientPrivilegesError else None
    number_text = f" ({errno:06d})" if errno is not None and errno >= 0 else ""
    return kind(
        f"Snowflake{number_text}: {message} [query id {query or 'unknown'}]." + (f" {hint}" if hint else ""),
        errno=errno,
        sqlstate=state,
        query_id=query,
    )


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise our types instead of the clients'.

    :raises StatementError: or a subclass, chained to the client's error.
    """
    try:
        yield
    except Exception as error:
        ours = as_statement_error(error)
        if ours is None:
            raise
        raise ours from error
