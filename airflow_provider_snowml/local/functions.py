"""Functions of Snowflake's own that the server answers: ``SYSTEM$...`` and table functions.

The engine looks them up while it reads a query and puts the answer in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .results import Result

ScalarFunction = Callable[..., Any]
TableFunction = Callable[..., Result]

SYSTEM: dict[str, ScalarFunction] = {}
TABLE: dict[str, TableFunction] = {}


def system_function(*names: str) -> Callable[[ScalarFunction], ScalarFunction]:
    """Register ``f(session, *arguments) -> str | number | None`` under an upper-case name."""

    def register(function: ScalarFunction) -> ScalarFunction:
        SYSTEM.update(dict.fromkeys(names, function))
        return function

    return register


def table_function(*names: str) -> Callable[[TableFunction], TableFunction]:
    """Register ``f(session, *arguments, **named) -> Result`` for ``TABLE(name(...))``.

    :param names: upper case, without the database: ``RESULT_SCAN``,
        ``INFORMATION_SCHEMA.TAG_REFERENCES``. Named arguments (``KEY => value``) come with
        lower-case keys. The database of ``DB.INFORMATION_SCHEMA.F(...)`` is dropped.
    """

    def register(function: TableFunction) -> TableFunction:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return register
