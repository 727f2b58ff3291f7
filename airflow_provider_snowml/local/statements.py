"""Which statement is answered by whom.

An allow-list: a statement is answered by the handler registered for its leading words, or by the
SQL engine if it is a kind of SQL that the engine is trusted with, or it is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .grammar import Reader
from .results import Result

if TYPE_CHECKING:
    from .session import Session

Handler = Callable[["Session", Reader], Result]

_HANDLERS: list[tuple[re.Pattern[str], Handler, bool]] = []


def statement(*patterns: str, reads_only: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for statements that start with these words.

    :param patterns: leading words, e.g. ``CREATE [OR REPLACE] [TEMP|TEMPORARY] STAGE``: words in
        brackets may be missing, ``|`` separates alternatives. The handler gets a Reader that
        stands at the start of the statement.
    :param reads_only: whether a request that only asks for the result's columns may run it.
    """

    def register(handler: Handler) -> Handler:
        for pattern in patterns:
            _HANDLERS.append((_compile(pattern), handler, reads_only))
        return handler

    return register


def _compile(pattern: str) -> re.Pattern[str]:
    out = ""
    for part in re.findall(r"\[[^\]]+\]|\S+", pattern):
        optional = part.startswith("[")
        alternatives = "|".join(
            r"\s+".join(re.escape(w) for w in choice.split()) for choice in part.strip("[]").split("|")
        )
        out += f"(?:(?:{alternatives})\\s+)?" if optional else f"(?:{alternatives})\\s+"
    return re.compile(out, re.IGNORECASE)


def find_handler(reader: Reader) -> tuple[Handler, bool] | None:
    """The handler for a statement and whether it only reads; the longest match wins."""
    words = " ".join(t.text if t.kind == "word" else f"<{t.text[:1]}>" for t in reader.tokens[:12]) + " "
    best: tuple[int, Handler, bool] | None = None
    for pattern, handler, reads_only in _HANDLERS:
        m = pattern.match(words)
        if m and (best is None or m.end() > best[0]):
            best = (m.end(), handler, reads_only)
    return (best[1], best[2]) if best else None
