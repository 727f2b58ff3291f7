"""Table functions of models: ``FROM t, TABLE(MODEL(m, v)!METHOD(...) OVER (PARTITION BY c))``.

The rows of ``t`` are read, the model's handler runs on them, and what it gives takes the place of both in
the statement. A handler with ``process`` gives a row for each row; the columns of ``t`` stay beside it. One
with ``end_partition`` gives any rows for each partition: of the columns of ``t`` only those of PARTITION BY
have a value there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from . import models, queries
from .errors import SnowflakeError, compilation_error, unsupported
from .grammar import parse_name, string_literal
from .model_types import duckdb_type, from_json, is_packed, typed_arguments
from .models import Method, Model, Version

if TYPE_CHECKING:
    from .session import Session

FUNCTION = "SNOWML_MODEL_TABLE"
_SOURCE = "SNOWML_SOURCE"


def call(model: Model, version: Version, method: Method, arguments: str) -> str:
    """What stands for the call in the statement's text until :func:`expand` finds it in its tree."""
    which = (str(model.name), version.id, method.name)
    return f"{FUNCTION}({', '.join([*map(string_literal, which), *typed_arguments(method, arguments)])})"


def is_call(node: exp.Expression) -> bool:
    return isinstance(node, exp.Anonymous) and str(node.this).upper() == FUNCTION


def expand(
    session: Session, tree: exp.Expression, view_of: Callable[[pa.Table], exp.Table], *, describe_only: bool
) -> None:
    """Run every such call and put its rows in its place.

    :param view_of: makes a table of rows part of the statement.
    :param describe_only: only the columns are wanted: nothing runs.
    """
    calls = [node for node in tree.find_all(exp.TableFromRows) if is_call(_unwindowed(node.this))]
    # One may read what another gives: those in WITH clauses first, the inner before the outer.
    for node in sorted(calls, key=lambda n: (n.find_ancestor(exp.CTE) is None, -n.depth)):
        _Call(session, node).replace(view_of, describe_only)
    if any(is_call(node) for node in tree.find_all(exp.Anonymous)):
        raise compilation_error("A model's table function is called as TABLE(...) in a FROM clause.")


def common_table_expressions(node: exp.Expression) -> list[exp.Expression]:
    """What a part of a statement may read from, of its own WITH clause and of all around it."""
    found: dict[str, exp.Expression] = {}
    inside: exp.Expression | None = node
    while inside is not None:
        with_ = inside.args.get("with_")
        for table in with_.expressions if with_ is not None else ():
            if node.find_ancestor(exp.CTE) is not table:
                found.setdefault(table.alias, table.copy())
        inside = inside.parent
    return list(found.values())


def _unwindowed(node: exp.Expression) -> exp.Expression:
    return node.this if isinstance(node, exp.Window) else node


@dataclass(frozen=True)
class _Rows:
    """The rows a function is called on: their columns by name, arguments and partition's keys."""

    columns: dict[str, pa.ChunkedArray]
    arguments: list[pa.ChunkedArray]
    keys: list[pa.ChunkedArray]


class _Call:
    def __init__(self, session: Session, node: exp.TableFromRows) -> None:
        self._session = session
        self._node = node
        self._window = node.this if isinstance(node.this, exp.Window) else None
        name, version_id, method_name, *self._arguments = _unwindowed(node.this).expressions
        model = models.get(session, session.resolve(parse_name(name.this)))
        version = next(v for v in model.versions if v.id == version_id.this)
        self._version = version
        self._method = next(m for m in version.methods if m.name == method_name.this)
        self._package = models.directory(session, model, version)
        self._select, self._source = self._find_source()

    def _find_source(self) -> tuple[exp.Select, exp.Expression | None]:
        """The SELECT, and the one thing before the function in its FROM."""
        select, parent = self._node.parent_select, self._node.parent
        if isinstance(select, exp.Select):
            joins = select.args.get("joins") or []
            if isinstance(parent, exp.From) and not joins:
                return select, None
            if joins == [parent] and set(_given(parent)) == {"this"}:
                source = select.args["from_"].this
                if not (source.args.get("joins") or source.args.get("laterals")):
                    return select, source
        raise unsupported("a model's table function that is joined with more than one table")

    def replace(self, view_of: Callable[[pa.Table], exp.Table], describe_only: bool) -> None:
        rows = self._read(describe_only)
        outputs = [name for name, _ in self._method.outputs]
        for name in outputs:
            if name in rows.columns:
                raise SnowflakeError(2028, "42702", f"SQL compilation error:\nambiguous column name '{name}'")
        view = view_of(self._run(rows))
        columns = [_column(name) for name in rows.columns]
        for i, (name, type_) in enumerate(self._method.outputs):
            value = _column(f"output{i}")
            if is_packed(type_):
                typed: exp.Expression = exp.ParseJSON(this=value)
            else:
                typed = exp.cast(value, type_, dialect="snowflake")
            columns.append(exp.alias_(typed, name, quoted=True))
        self._take_place(exp.select(*columns).from_(view), list(rows.columns), outputs)

    def _read(self, describe_only: bool) -> _Rows:
        wanted = [*self._arguments, *self._keys()]
        query = exp.select(*(exp.alias_(e.copy(), f"snowml{i}", quoted=True) for i, e in enumerate(wanted)))
        if self._source is not None:
            query = query.select("*").from_(self._source.copy())
        order = self._window.args.get("order") if self._window is not None else None
        if order is not None:
            query.set("order", order.copy())
        tables = common_table_expressions(self._node)
        if tables:
            query.set("with_", exp.With(expressions=tables))
        sql = query.sql("snowflake")
        if describe_only:
            sql = f"SELECT * FROM ({sql}) LIMIT 0"
        found = self._session.account.engine.execute(self._session, sql)
        arrays = found.table.columns
        at = len(self._arguments)
        names = [str(column["name"]) for column in found.rowtype[len(wanted) :]]
        return _Rows(
            dict(zip(names, arrays[len(wanted) :], strict=True)), arrays[:at], arrays[at : len(wanted)]
        )

    def _run(self, rows: _Rows) -> pa.Table:
        """The columns of the source and, as ``output0`` and so on, those that the function gives."""
        types = [duckdb_type(type_) for _, type_ in self._method.inputs]
        arguments = [from_json(a) if t == "JSON" else a for a, t in zip(rows.arguments, types, strict=True)]
        answer, partitioned = self._session.account.model_hosts.call_table_function(
            self._version.id, self._package, self._method, arguments, rows.keys, queries.current()
        )
        at = answer.column("row")
        keys = [key.this for key in self._keys() if isinstance(key, exp.Column)]
        key_names = {key.name if key.args.get("quoted") else key.name.upper() for key in keys}
        columns = {}
        for name, array in rows.columns.items():
            # What end_partition gives belongs to no row of the source, only to the partition.
            kept = not partitioned or name in key_names
            columns[name] = array.take(at) if kept else pa.nulls(len(at), array.type)
        outputs = answer.columns[1:]
        names = [*columns, *(f"output{i}" for i in range(len(outputs)))]
        return pa.Table.from_arrays([*columns.values(), *outputs], names=names)

    def _keys(self) -> list[exp.Expression]:
        return list(self._window.args.get("partition_by") or []) if self._window is not None else []

    def _take_place(self, rows: exp.Select, columns: list[str], outputs: list[str]) -> None:
        """Columns and stars of the source's and of the function's alias become those of the rows."""
        source = self._source.alias_or_name if self._source is not None else ""
        alias, function = source or _SOURCE, self._node.alias
        belonging = {source.upper(): columns, function.upper(): outputs}
        expressions = []
        for e in self._select.expressions:
            if isinstance(e, exp.Column) and isinstance(e.this, exp.Star) and e.table:
                expressions += [_column(name) for name in belonging.get(e.table.upper(), ())] or [e]
            else:
                expressions.append(e)
        self._select.set("expressions", expressions)
        for column in self._select.find_all(exp.Column):
            if function and column.table.upper() == function.upper():
                column.set("table", exp.to_identifier(alias))
        self._select.set("joins", None)
        quoted = self._source is not None and bool(_alias_identifier(self._source).args.get("quoted"))
        name = exp.TableAlias(this=exp.to_identifier(alias, quoted=quoted))
        self._select.set("from_", exp.From(this=exp.Subquery(this=rows, alias=name)))


def _given(node: exp.Expression) -> list[str]:
    return [key for key, value in node.args.items() if value]


def _alias_identifier(source: exp.Expression) -> exp.Expression:
    alias = source.args.get("alias")
    found = alias.this if alias is not None else source.this
    return found if isinstance(found, exp.Identifier) else exp.to_identifier(_SOURCE)


def _column(name: str) -> exp.Expression:
    return exp.column(name, quoted=True)
