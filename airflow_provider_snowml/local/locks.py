"""Writers of one table wait for each other, as Snowflake's do.

DELETE, UPDATE, MERGE, TRUNCATE and DDL lock the whole table until their transaction ends;
INSERT does not wait. At most 20 statements may wait for one lock. A transaction that makes others wait
and has been idle for five minutes, because its client is gone, is rolled back.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from .errors import SnowflakeError

MAX_WAITERS = 20
MAX_IDLE = 300.0  # seconds
_LOOK_AGAIN = 0.2


class TableLocks:
    def __init__(self) -> None:
        self.max_waiters: Callable[[], int] = lambda: MAX_WAITERS
        self.end_if_idle: Callable[[object], None] = lambda owner: None
        self._changed = threading.Condition()
        self._owners: dict[str, object] = {}
        self._waiters: Counter[str] = Counter()

    def acquire(
        self, tables: Iterable[str], owner: object, timeout: float, cancelled: threading.Event
    ) -> None:
        """Take the locks for a statement, in a fixed order so that two statements cannot deadlock.

        :param owner: whose transaction it is; who holds a lock gets it again. A session's asynchronous
            statements are transactions of their own.
        :param timeout: LOCK_TIMEOUT of the session, in seconds.
        :param cancelled: ends the wait.
        """
        for table in sorted(set(tables)):
            self._acquire(table, owner, timeout, cancelled)

    def _acquire(self, table: str, owner: object, timeout: float, cancelled: threading.Event) -> None:
        def free() -> bool:
            return cancelled.is_set() or self._owners.get(table, owner) is owner

        with self._changed:
            if not free():
                if self._waiters[table] >= (most := self.max_waiters()):
                    raise SnowflakeError(
                        625,
                        "57014",
                        f"A statement of another transaction has locked table '{table}' and this "
                        "lock has not yet been released.\nYour statement was aborted because the "
                        f"number of waiters for this lock exceeds the {most} statements limit.",
                    )
                self._waiters[table] += 1
                try:
                    got = self._wait(table, free, timeout)
                finally:
                    self._waiters[table] -= 1
                if not got:
                    raise SnowflakeError(
                        610,
                        "57014",
                        f"Statement aborted: the lock on table '{table}' was not released within "
                        f"LOCK_TIMEOUT ({timeout:.0f} seconds).",
                    )
            if cancelled.is_set():
                raise SnowflakeError(604, "57014", "SQL execution canceled")
            self._owners[table] = owner

    def _wait(self, table: str, free: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not free():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self.end_if_idle(self._owners[table])
            self._changed.wait_for(free, min(left, _LOOK_AGAIN))
        return True

    def release(self, owner: object) -> None:
        with self._changed:
            self._owners = {t: o for t, o in self._owners.items() if o is not owner}
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting statements see that they were cancelled."""
        with self._changed:
            self._changed.notify_all()
