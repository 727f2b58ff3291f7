"""Bad days on demand, for tests of what survives them. Only where the server was started with ``--faults``.

A fault is told as JSON, ``CALL SYSTEM$SNOWML_LOCAL_FAULT('{"kind": "drop_reply", "statement": "^COPY"}')``,
and meets the next request, job or lock that fits it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .errors import invalid_value, unsupported
from .functions import system_function

if TYPE_CHECKING:
    from .session import Session

REQUEST_KINDS = {
    "drop_request": "the request is not carried out and the connection breaks",
    "drop_reply": "the request is carried out and the connection breaks instead of an answer",
    "delay": "the request is carried out after some seconds",
    "refuse": "the request is answered with an error number",
    "expire_session": "the request finds its session gone",
    "hold": "the request waits for SYSTEM$SNOWML_LOCAL_RELEASE(id, 'drop' | 'carry_out' | 'answer')",
}
NOTE_KINDS = {"note": "nothing goes wrong; what is asked is listed as `requests` of the fault"}
BUILD_KINDS = {
    "fail_job": "the job fails",
    "hang_job": "the job runs and does not end",
    "slow_job": "the job takes some seconds more",
}
JOB_KINDS = BUILD_KINDS | {
    "partial_output": "the job's process dies when part of the output is written",
    "no_success": "the job is DONE and writes no _SUCCESS",
    "late_success": "the job is DONE and writes _SUCCESS some seconds later",
    "late_done": "the job writes _SUCCESS and is DONE some seconds later",
    "lose_rows": "the job is DONE, with _SUCCESS, and some rows did not come out",
}
STATEMENT_KINDS = {
    "slow_statement": "the statement that starts the job takes some seconds more, as for an image to be built"
}
LOCK_KINDS = {
    "lock_waiters": "more than so many waiters for a table's lock are refused",
    "abort_idle": "a transaction that others wait for and whose client is gone is rolled back after so many "
    "seconds, not after 300",
}
KINDS = REQUEST_KINDS | JOB_KINDS | STATEMENT_KINDS | LOCK_KINDS | NOTE_KINDS


@dataclass
class Fault:
    """What goes wrong, to whom, and how often.

    :param kind: one of ``KINDS``.
    :param statement: for requests: a regular expression that is searched for in the statement's text;
        empty for any request, also of files and results.
    :param user: only requests of this user's sessions, and jobs that they start; empty for all.
    :param job: for jobs: a regular expression that is searched for in the job's name; image builds, named
        ``MODEL_BUILD_...``, are jobs that ``fail_job``, ``hang_job`` and ``slow_job`` can meet.
    :param skip: how many requests or jobs that fit are spared first.
    :param times: how many it meets then.
    :param seconds: of ``delay``, ``slow_job``, ``slow_statement``, ``late_success``, ``late_done`` and
        ``abort_idle``.
    :param errno: of ``refuse``.
    :param message: of ``refuse`` and ``fail_job``.
    :param limit: of ``lock_waiters``.
    """

    kind: str
    statement: str = ""
    user: str = ""
    job: str = ""
    skip: int = 0
    times: int = 1
    seconds: float = 0.0
    errno: int = 370001
    message: str = "A fault on purpose."
    limit: int = 0
    id: int = 0
    seen: int = 0
    held: bool = False
    released: str = ""
    requests: list[str] = field(default_factory=list)

    def meets(self) -> bool:
        """Count one that fits, and say whether it is met."""
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


_TOLD = {field.name for field in fields(Fault)} - {"id", "seen", "held", "released", "requests"}
_FORMS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "a regular expression": lambda value: isinstance(value, str) and _compiles(value),
    "a whole number": lambda value: type(value) is int,  # true is none, though Python counts with it
    "a number of seconds": lambda value: type(value) in (int, float) and 0 <= value < math.inf,
}
_FORM_OF = {
    **dict.fromkeys(("kind", "user", "message"), "text"),
    **dict.fromkeys(("statement", "job"), "a regular expression"),
    **dict.fromkeys(("skip", "times", "limit", "errno"), "a whole number"),
    "seconds": "a number of seconds",
}


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


class Faults:
    """Those that are waiting for what they shall meet.

    :param allowed: whether the server was started with faults.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._faults: list[Fault] = []

    def add(self, told: dict[str, Any]) -> Fault:
        """Make a fault of what a client tells; whatever is not understood is refused."""
        if set(told) - _TOLD or told.get("kind") not in list(KINDS):
            raise invalid_value(
                f"a fault has a kind ({', '.join(KINDS)}) and may have "
                f"{', '.join(sorted(_TOLD - {'kind'}))}; got {told}."
            )
        for name, value in told.items():
            if not _FORMS[_FORM_OF[name]](value):
                raise invalid_value(f"'{name}' of a fault must be {_FORM_OF[name]}; got {value!r}.")
        fault = Fault(**told, id=next(self._ids))
        fault.user = fault.user.upper()
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let what is held go, and forget all."""
        with self._lock:
            for fault in self._faults:
                fault.released = fault.released or "carry_out"
            self._faults.clear()

    def release(self, id_: int, how: str) -> None:
        if how not in ("drop", "carry_out", "answer"):
            raise invalid_value(
                "a held request can be dropped, carried out without an answer, or answered: 'drop', "
                f"'carry_out', 'answer'; got '{how}'."
            )
        for fault in self.all():
            if fault.id == id_:
                fault.released = how
                if not fault.held:
                    self.forget(fault)

    def forget(self, fault: Fault) -> None:
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def all(self) -> list[Fault]:
        with self._lock:
            return list(self._faults)

    def for_request(self, user: str, statement: str, path: str = "") -> Fault | None:
        """What befalls a request.

        :param path: what is noted of one that has no statement.
        """

        def fits(fault: Fault) -> bool:
            return fault.user in ("", user) and (
                not fault.statement or bool(re.search(fault.statement, statement, re.IGNORECASE))
            )

        for note in self.all():
            if note.kind in NOTE_KINDS and fits(note) and note.meets():
                note.requests.append(statement or path)
        return self._first(REQUEST_KINDS, fits)

    def for_job(self, name: str, user: str, kinds: dict[str, str] = JOB_KINDS) -> dict[str, Any] | None:
        """What the job's process is told.

        :param user: who starts it.
        :param kinds: those that can befall it; faults of other kinds do not count it.
        """

        def fits(fault: Fault) -> bool:
            return fault.user in ("", user.upper()) and bool(re.search(fault.job, name, re.IGNORECASE))

        fault = self._first(kinds, fits)
        return asdict(fault) if fault is not None else None

    def waiters(self, usual: int) -> int:
        """How many may wait for one lock."""
        return min([usual, *(fault.limit for fault in self.all() if fault.kind == "lock_waiters")])

    def idle(self, usual: float) -> float:
        """After how many seconds without a statement a transaction that others wait for is rolled back."""
        return min([usual, *(fault.seconds for fault in self.all() if fault.kind == "abort_idle")])

    def _first(self, kinds: dict[str, str], fits: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            found = [fault for fault in self._faults if fault.kind in kinds and fits(fault)]
            met = [fault for fault in found if fault.meets()]
        return met[0] if met else None


def _faults(session: Session) -> Faults:
    faults = session.account.faults
    if not faults.allowed:
        raise unsupported("faults, since this server was started without --faults: they")
    return faults


@system_function("SYSTEM$SNOWML_LOCAL_FAULT")
def tell_fault(session: Session, text: str) -> int:
    """:return: the fault's id."""
    faults = _faults(session)
    try:
        told = json.loads(text)
    except ValueError as e:
        raise invalid_value(f"a fault is told as JSON: {e}") from None
    if not isinstance(told, dict):
        raise invalid_value(f"a fault is told as a JSON object; got {text}")
    return faults.add(told).id


@system_function("SYSTEM$SNOWML_LOCAL_FAULTS")
def list_faults(session: Session) -> str:
    """:return: the faults as JSON, with how often each was ``seen`` and whether a request is ``held``."""
    return json.dumps([asdict(fault) for fault in _faults(session).all()])


@system_function("SYSTEM$SNOWML_LOCAL_RELEASE")
def release(session: Session, id_: int, how: str) -> str:
    _faults(session).release(int(id_), how)
    return "released"


@system_function("SYSTEM$SNOWML_LOCAL_CLEAR_FAULTS")
def clear_faults(session: Session) -> str:
    _faults(session).clear()
    return "cleared"
