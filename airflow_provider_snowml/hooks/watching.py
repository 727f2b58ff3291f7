"""What a wait takes from one look to the next: its connection, and what it said last."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from airflow_provider_snowml.exceptions import StatementError
from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)

# In seconds, for the connector. Left alone it repeats a request that nobody answers for ever, and a look that
# never ends would hang everything that waits. Snowflake may take 45 s to say that a statement still runs.
TIMEOUTS = {"login_timeout": 60, "network_timeout": 120, "socket_timeout": 60}


class KeptConnection:
    """Keeps a hook's connection open between uses, and replaces it after one that failed.

    A trigger that is cancelled closes it while a thread may still be using it: closing waits for that. A
    network that hangs, without an answer and without an end, ends a use after ``TIMEOUTS``.

    :param hook: the hook, used by nobody else meanwhile.
    """

    def __init__(self, hook: SnowMLHook) -> None:
        self._hook = hook
        hook.connector_options.update(TIMEOUTS)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._is_open = self._is_closed = False

    @contextmanager
    def use(self) -> Iterator[SnowMLHook]:
        """The hook, with the connection open."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("The connection was closed.")
            try:
                if not self._is_open:
                    self._stack.enter_context(self._hook.open_connection())
                    self._is_open = True
                yield self._hook
            except Exception:
                self._drop()
                raise

    def close(self) -> None:
        """Close it for good; never raises."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _drop(self) -> None:
        self._is_open = False
        try:
            self._stack.close()
        except Exception:
            log.debug("Closing a broken connection failed.", exc_info=True)


def in_short(error: Exception) -> str:
    """Why a look failed."""
    return f"{type(error).__name__}: {error}"


def refusal(error: StatementError) -> str:
    """Why a statement was refused, for those that it was about.

    :raises StatementError: if it was not Snowflake that said so: whatever is asked next on that connection
        would wait as long for no answer.
    """
    if not error.query_id:
        raise error
    return in_short(error)


def log_change(what: object, detail: str, last: str) -> str:
    """Log what a look found if it is something else than the last time; the detail.

    :param what: what was looked at.
    :param detail: one clause.
    :param last: the clause of the last look, ``""`` for none.
    """
    if detail != last:
        doubtful = "failed" in detail or "does not know" in detail
        log.log(logging.WARNING if doubtful else logging.INFO, "%s: %s", what, detail)
    return detail
