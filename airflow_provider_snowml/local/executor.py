"""From a request's statement to its result."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import access, queries, results
from . import bindings as binds
from .errors import SnowflakeError, unsupported
from .grammar import Reader, resolve_identifiers
from .queries import Query
from .results import Result
from .statements import find_handler

if TYPE_CHECKING:
    from .session import Session

_CANCELS = re.compile(r"\s*SELECT\s+SYSTEM\$CANCEL_\w*QUER", re.IGNORECASE)

log = logging.getLogger("snowml.local")

# Words with which a statement of the SQL engine starts.
_SQL = {
    "SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "DROP", "ALTER",
    "TRUNCATE", "COMMENT", "DESCRIBE", "DESC", "SHOW",
}  # fmt: skip


def run(
    session: Session,
    query: Query,
    bindings: Mapping[str, Mapping[str, Any]] | None = None,
    describe_only: bool = False,
) -> Result:
    """Run a statement in its session, one after the other, and keep its result or error.

    One that cancels others does not wait for them: a client may have lost the answer of one that still runs.
    """
    if _CANCELS.match(query.sql):
        with _beside(session) as beside:
            return _run(beside, query, bindings, describe_only)
    with session.lock:
        return _run(session, query, bindings, describe_only)


@contextmanager
def _beside(session: Session) -> Iterator[Session]:
    beside = session.account.engine.fork(session)
    try:
        yield beside
    finally:
        session.account.engine.close_fork(beside)


def run_async(
    session: Session, query: Query, bindings: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Run a statement beside the others of its session; its result waits under its id."""
    beside = session.account.engine.fork(session)

    def work() -> None:
        try:
            _run(beside, query, bindings, False)
        except SnowflakeError:
            pass  # kept in the query
        finally:
            session.account.engine.close_fork(beside)

    threading.Thread(target=work, name=f"query {query.id}", daemon=True).start()


def _run(
    session: Session,
    query: Query,
    bindings: Mapping[str, Mapping[str, Any]] | None,
    describe_only: bool,
) -> Result:
    queries.set_current(query)
    timer = _statement_timeout(session, query)
    try:
        query.result = _answer(session, query, bindings, describe_only)
        return query.result
    except SnowflakeError as e:
        query.error = e
        if query.timeout is not None:
            query.error = SnowflakeError(
                630,
                "57014",
                "Statement reached its statement or warehouse timeout of "
                f"{query.timeout} second(s) and was canceled.",
            )
        raise query.error from None
    except Exception as e:
        log.exception("internal error in: %s", query.sql)
        query.error = SnowflakeError(
            300002, "XX000", f"The local Snowflake failed on this statement: {type(e).__name__}: {e}"
        )
        raise query.error from e
    finally:
        if timer is not None:
            timer.cancel()
        query.ended = time.time()
        query.finished.set()
        query.interrupt = None
        queries.set_current(None)


def _statement_timeout(session: Session, query: Query) -> threading.Timer | None:
    seconds = int(session.parameters.get("STATEMENT_TIMEOUT_IN_SECONDS", 0))
    if seconds <= 0 or seconds >= 172800:
        return None

    def time_out() -> None:
        query.timeout = seconds
        query.cancel()

    timer = threading.Timer(seconds, time_out)
    timer.daemon = True
    timer.start()
    return timer


def _answer(
    session: Session,
    query: Query,
    bindings: Mapping[str, Mapping[str, Any]] | None,
    describe_only: bool,
) -> Result:
    batch: pa.Table | None = None
    sql = query.sql
    if bindings and binds.is_batch(bindings) and not describe_only:
        batch = binds.batch_table(bindings)
    else:
        sql = resolve_identifiers(binds.inline(sql, bindings, describe_only))
    reader = Reader(sql)
    if reader.at_end():
        raise SnowflakeError(900, "42601", "SQL compilation error:\nEmpty SQL statement.")
    sql = _one_statement(sql, reader)
    if not describe_only:
        access.check(session, sql)
    handler = find_handler(reader)
    if handler is not None:
        answer, reads_only = handler
        if describe_only and not reads_only:
            return results.status("")
        return answer(session, reader)
    if reader.peek().text != "(" and reader.peek().text.upper() not in _SQL:
        raise unsupported(sql)
    if describe_only:
        return session.account.engine.describe(session, sql)
    return session.account.engine.execute(session, sql, batch, query)


def _one_statement(sql: str, reader: Reader) -> str:
    for token in reader.tokens:
        if token.kind == "symbol" and token.text == ";":
            raise SnowflakeError(
                8, "0A000", "Actual statement count did not match the desired statement count 1."
            )
    return sql[reader.tokens[0].start : reader.tokens[-1].end]
