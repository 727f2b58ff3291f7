"""A model's function in the select list of a plain query gets many rows at once.

DuckDB asks for 2,048 rows at a time, which costs many a model more than its work on them. So where a
statement takes every row of ``SELECT ..., MODEL(m, v)!PREDICT(...) AS p FROM ... WHERE ...``, the rows are
read first, the model is called on them, and both together are put in the query's place. Everywhere else,
inside a CASE, below a LIMIT or an aggregate, DuckDB calls the function, for the rows that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from . import queries
from .batch_sizes import rows_at_once
from .model_tables import common_table_expressions
from .model_types import is_packed

if TYPE_CHECKING:
    from .model_calls import Function
    from .session import Session

_PLAIN = {"expressions", "from_", "with_"}
_ARGUMENT = "snowml argument"


def expand(session: Session, tree: exp.Expression, view_of: Callable[[pa.Table], exp.Table]) -> None:
    """Run the model for every such query, and put the rows and what it gave in the query's place.

    :param view_of: makes a table of rows part of the statement.
    """
    selects = [select for select in tree.find_all(exp.Select) if _calls(session, select)]
    for select in sorted(selects, key=lambda select: -select.depth):  # the inner before the outer
        _expand(session, select, view_of)


def _calls(session: Session, select: exp.Select) -> dict[int, Function]:
    """The functions that are a column of their own, by the column's number; none if it is no such query."""
    found: dict[int, Function] = {}
    for number, column in enumerate(select.expressions):
        if isinstance(column, exp.Alias) and isinstance(column.this, exp.Anonymous):
            function = session.account.model_functions.get(str(column.this.this))
            if function is not None:
                found[number] = function
    if not found or not select.args.get("from_") or _given(select) - _PLAIN - {"where", "joins"}:
        return {}
    types = [[type_ for _, type_ in function.method.inputs] for function in found.values()]
    if not all(types) or any(is_packed(type_) for some in types for type_ in some):
        return {}
    names = {select.expressions[number].alias.upper() for number in found}
    if any(column.name.upper() in names and not column.table for column in select.find_all(exp.Column)):
        return {}  # another column may be made of what the model gives
    return found if _every_row_is_taken(select) else {}


def _every_row_is_taken(select: exp.Select) -> bool:
    """Whether what is around a query takes its rows as they are."""
    node: exp.Expression = select
    while (parent := node.parent) is not None:
        if isinstance(parent, exp.Create):
            return parent.kind == "TABLE" and node is parent.expression
        if isinstance(parent, exp.Insert):
            return node is parent.expression
        if isinstance(parent, exp.Select):
            if not isinstance(node, exp.From) or _given(parent) - _PLAIN:
                return False
            if any(column.find(exp.AggFunc) for column in parent.expressions):
                return False
        elif not isinstance(parent, (exp.From, exp.Subquery)):
            return False
        node = parent
    return True


def _given(node: exp.Expression) -> set[str]:
    return {key for key, value in node.args.items() if value}


def _expand(session: Session, select: exp.Select, view_of: Callable[[pa.Table], exp.Table]) -> None:
    calls = _calls(session, select)
    found = session.account.engine.execute(session, _with_arguments(select, calls).sql("snowflake"))
    columns: dict[str, pa.ChunkedArray] = {}
    arguments: dict[int, list[pa.ChunkedArray]] = {number: [] for number in calls}
    expressions: list[exp.Expression] = []
    for array, described in zip(found.table.columns, found.rowtype, strict=True):
        name = str(described["name"])
        if not name.startswith(_ARGUMENT):
            columns[f"c{len(columns)}"] = array
            expressions.append(exp.alias_(exp.column(f"c{len(columns) - 1}"), name, quoted=True))
            continue
        number = int(name.removeprefix(_ARGUMENT))
        if not arguments[number]:
            expressions.append(_given_by_model(select.expressions[number], calls[number], number))
        arguments[number].append(array)
    for number, function in calls.items():
        columns[f"m{number}"] = _run(function, arguments[number])
    for key in _given(select):
        select.set(key, None)
    select.set("expressions", expressions)
    select.set("from_", exp.From(this=view_of(pa.table(columns))))


def _with_arguments(select: exp.Select, calls: dict[int, Function]) -> exp.Select:
    """The query with the functions' arguments in the place of the calls."""
    query = select.copy()
    columns: list[exp.Expression] = []
    for number, column in enumerate(query.expressions):
        if number in calls:
            _, *arguments = column.this.expressions  # the first only says which statement it is
            columns += [exp.alias_(a, f"{_ARGUMENT}{number}", quoted=True) for a in arguments]
        else:
            columns.append(column)
    query.set("expressions", columns)
    if tables := common_table_expressions(select):
        query.set("with_", exp.With(expressions=tables))
    return query


def _given_by_model(column: exp.Expression, function: Function, number: int) -> exp.Expression:
    type_ = function.method.return_type
    value = exp.cast(exp.column(f"m{number}"), "VARIANT" if is_packed(type_) else type_, dialect="snowflake")
    return exp.alias_(value, column.args["alias"].copy())


def _run(function: Function, arguments: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    query, rows, size = queries.current(), len(arguments[0]), rows_at_once(len(arguments))
    parts = [
        function.run(query, [array.slice(start, size) for array in arguments])
        for start in range(0, rows, size)
    ]
    tables = [pa.table({"": part}) for part in parts] or [pa.table({"": pa.nulls(0)})]
    return pa.concat_tables(tables, promote_options="permissive").column(0)
