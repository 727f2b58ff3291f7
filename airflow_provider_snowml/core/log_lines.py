"""Which lines of a container's log are new."""

from __future__ import annotations

from collections.abc import Sequence


def new_lines(seen: Sequence[str], tail: Sequence[str]) -> list[str]:
    """The lines at the end of ``tail`` that come after those seen.

    Snowflake gives the end of a log and no position in it. Where it could overlap in more than one way, the
    longest overlap counts: of lines that are all alike, too few are shown rather than some twice.

    :param seen: the tail of the last look.
    :param tail: the tail now.
    """
    for overlap in range(min(len(seen), len(tail)), 0, -1):
        if list(seen[-overlap:]) == list(tail[:overlap]):
            return list(tail[overlap:])
    return list(tail)
