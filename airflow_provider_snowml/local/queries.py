"""The statements that ran or are running, by query id."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import SnowflakeError
from .results import Result

if TYPE_CHECKING:
    from .session import Session

KEPT = 2000
_FEW = 200  # more than that, before the oldest go


@dataclass
class Query:
    """One statement. ``interrupt`` stops the engine in the middle of it."""

    sql: str
    session_id: int
    user: str
    role: str
    warehouse: str | None
    database: str | None
    schema: str | None
    tag: str
    request_id: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.time)
    ended: float | None = None
    result: Result | None = None
    error: SnowflakeError | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    interrupt: Callable[[], None] | None = None
    timeout: int | None = None  # seconds, once STATEMENT_TIMEOUT_IN_SECONDS has ended it

    @property
    def status(self) -> str:
        if not self.finished.is_set():
            return "RUNNING"
        return "FAILED_WITH_ERROR" if self.error else "SUCCESS"

    def cancel(self) -> None:
        """Stop it. Asked again until it has stopped: the engine may not have started on it yet."""
        if self.cancelled.is_set() or self.finished.is_set():
            return
        self.cancelled.set()
        threading.Thread(target=self._interrupt_until_finished, daemon=True).start()

    def _interrupt_until_finished(self) -> None:
        while not self.finished.is_set():
            if (interrupt := self.interrupt) is not None:
                interrupt()
            self.finished.wait(0.1)


class Queries:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queries: dict[str, Query] = {}
        self._by_request: dict[str, Query] = {}

    def start(self, session: Session, sql: str, request_id: str | None = None) -> Query:
        query = Query(
            sql,
            session.id,
            session.user,
            session.role,
            session.warehouse,
            session.database,
            session.schema,
            str(session.parameters.get("QUERY_TAG", "")),
            request_id,
        )
        with self._lock:
            self._queries[query.id] = query
            if request_id is not None:
                self._by_request.setdefault(request_id, query)
            if len(self._queries) > KEPT + _FEW:
                self._forget_the_oldest()
        return query

    def _forget_the_oldest(self) -> None:
        for old in [q for q in self._queries.values() if q.finished.is_set()][:-KEPT]:
            del self._queries[old.id]
            if old.request_id is not None and self._by_request.get(old.request_id) is old:
                del self._by_request[old.request_id]

    def find(self, query_id: str) -> Query | None:
        with self._lock:
            return self._queries.get(query_id)

    def by_request(self, request_id: str) -> Query | None:
        with self._lock:
            return self._by_request.get(request_id)

    def all(self) -> list[Query]:
        with self._lock:
            return list(self._queries.values())

    def cancel_all(self, session: Session, but: Session | None = None) -> int:
        """:param but: whose statement of the moment goes on: the one that asks for this."""
        current = getattr(_running, "query", None) if but is not None else None
        running = [
            q
            for q in self.all()
            if q.session_id == session.id and not q.finished.is_set() and q is not current
        ]
        for query in running:
            query.cancel()
        return len(running)


_running = threading.local()


def set_current(query: Query | None) -> None:
    """The statement that this thread works on."""
    _running.query = query


def current() -> Query | None:
    return getattr(_running, "query", None)
