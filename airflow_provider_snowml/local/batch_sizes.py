"""How many rows a model gets in one call if nobody says."""

from __future__ import annotations

_VALUES = 1_500_000


def rows_at_once(columns: int) -> int:
    """Fewer calls cost less; of wide rows many would take too much memory.

    :param columns: how many columns the rows have.
    """
    return max(1, _VALUES // max(columns, 1))
