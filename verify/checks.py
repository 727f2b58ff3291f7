"""A check: one belief, and what trying it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verify.place import Place


class Differs(Exception):
    """The belief does not hold; the message says what was seen."""


class NotTried(Exception):
    """It could not be tried; the message says why."""


class Stopped(Exception):
    """The user has interrupted the checks."""


@dataclass(frozen=True)
class Check:
    """One belief.

    :param name: as ``--only`` and the table in the docs name it.
    :param belief: one sentence.
    :param run: tries it; returns what was seen if that is worth a word.
    :param lane: those of a lane are tried one after another, and may go on with what the one before has left;
        the lanes at the same time.
    """

    name: str
    belief: str
    run: Callable[[Place], str | None]
    lane: str

    @property
    def wants_pool(self) -> bool:
        """Whether it needs a compute pool."""
        return self.lane not in (STATEMENTS, FILES)


STATEMENTS, FILES = "statements", "files"
# The first job has the model's image built, which the others then find.
FIRST = "first job"

CHECKS: dict[str, Check] = {}


def check(
    name: str, belief: str, lane: str = STATEMENTS
) -> Callable[[Callable[[Place], str | None]], Callable[[Place], str | None]]:
    """Register a check; those of a lane run in the order in which they are registered."""

    def register(function: Callable[[Place], str | None]) -> Callable[[Place], str | None]:
        CHECKS[name] = Check(name, belief, function, lane)
        return function

    return register


def must(holds: bool, seen: object) -> None:
    """:raises Differs: with what was seen, unless it holds."""
    if not holds:
        raise Differs(str(seen))
