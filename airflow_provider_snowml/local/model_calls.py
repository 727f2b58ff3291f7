"""Methods in SQL: ``MODEL(m, v)!PREDICT(...)`` becomes a function of the SQL engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from . import model_tables, models, queries, service_calls, service_methods
from .catalog import Qualified
from .errors import compilation_error
from .grammar import Name, Reader, fold, string_literal
from .model_types import duckdb_type, from_json, method_of, typed_arguments
from .models import Method, Model, Version

if TYPE_CHECKING:
    from .model_hosts import ModelHosts
    from .queries import Query
    from .session import Session


def rewrite(session: Session, sql: str) -> str:
    """Replace every ``object!method(...)`` by a call of a function that runs it.

    Knows ``MODEL(name [, version])!method(...)``, ``name!method(...)`` of a model's default
    version, ``WITH mv AS MODEL name [VERSION v] ... mv!method(...)``, and the functions and the
    ``spcs_`` table functions of services. A version may be an alias.
    """
    sql, declared = _declarations(session, sql)
    return _rewrite(session, sql, declared)


def _rewrite(session: Session, sql: str, declared: dict[str, tuple[Model, Version]]) -> str:
    out, done = "", 0
    reader = Reader(sql)
    while not reader.at_end():
        start, position = reader.peek().start, reader.position
        target = _target(session, reader, declared)
        if target is None:
            reader.position = position + 1
            continue
        method = reader.identifier()
        arguments = _rewrite(session, reader.parenthesised(), declared)
        if isinstance(target, Qualified) and method.lower().startswith("spcs_"):
            call = service_methods.table_function_call(target, method, arguments)
        elif isinstance(target, Qualified):
            call = service_calls.rewrite_call(session, target, method, arguments)
        else:
            call = _call(session, *target, method, arguments)
        out += sql[done:start] + call
        done = reader.tokens[reader.position - 1].end
    return out + sql[done:]


def _declarations(session: Session, sql: str) -> tuple[str, dict[str, tuple[Model, Version]]]:
    """Take every ``mv AS MODEL name [VERSION v]`` out of the WITH clauses."""
    declared: dict[str, tuple[Model, Version]] = {}
    if not re.search(r"\bAS\s+MODEL\b", sql, re.IGNORECASE):
        return sql, declared
    out, done = "", 0
    reader = Reader(sql)
    while not reader.at_end():
        start = reader.peek().start
        if not reader.accept("WITH"):
            reader.next()
            continue
        first = reader.position
        kept = _common_table_expressions(session, reader, declared)
        if kept is None:
            reader.position = first
            continue
        out += sql[done:start] + ("WITH " + ", ".join(kept) + " " if kept else "")
        done = reader.peek().start
    return out + sql[done:], declared


def _common_table_expressions(
    session: Session, reader: Reader, declared: dict[str, tuple[Model, Version]]
) -> list[str] | None:
    """The expressions of a WITH clause that are no models; None if it is no such clause."""
    kept = []
    while reader.peek().kind in ("word", "quoted"):
        token = reader.next()
        if reader.is_word("AS", "MODEL") and reader.peek(2).kind in ("word", "quoted"):
            reader.position += 2
            name = reader.name()
            version = reader.identifier() if reader.accept("VERSION") else None
            declared[fold(token.text)] = _find(session, name, version)
        else:
            if reader.peek().text == "(":
                reader.parenthesised()
            if not reader.accept("AS") or reader.peek().text != "(":
                return None
            reader.parenthesised()
            kept.append(reader.sql[token.start : reader.tokens[reader.position - 1].end])
        if not reader.accept_symbol(","):
            return kept
    return None


def _target(
    session: Session, reader: Reader, declared: dict[str, tuple[Model, Version]]
) -> tuple[Model, Version] | Qualified | None:
    """What stands before a ``!``, a version of a model or a service; the reader is behind it then."""
    if reader.peek().kind not in ("word", "quoted"):
        return None
    if reader.is_word("MODEL") and reader.peek(1).text == "(":
        reader.next()
        inner = Reader(reader.parenthesised())
        if not reader.accept_symbol("!"):
            return None
        name = inner.name()
        version = None
        if inner.accept_symbol(","):
            version = inner.string().upper() if inner.is_string() else inner.identifier()
        inner.done()
        return _find(session, name, version)
    if reader.peek(1).text not in (".", "!"):
        return None
    written = _dotted(reader)
    if written is None or not reader.accept_symbol("!"):
        return None
    if written.schema is None and written.name in declared:
        return declared[written.name]
    qualified = session.resolve(written)
    is_service = session.account.catalog.find("SERVICE", qualified) is not None
    if is_service or reader.peek().text.lower().startswith("spcs_"):
        return qualified
    return _find(session, written, None)


def _dotted(reader: Reader) -> Name | None:
    """A name, if that is what comes; dots may also stand before a star."""
    parts = [reader.identifier()]
    while reader.peek().text == "." and reader.peek(1).kind in ("word", "quoted"):
        reader.next()
        parts.append(reader.identifier())
    if len(parts) > 3:
        return None
    padded: list[str | None] = [None] * (3 - len(parts)) + list(parts)
    return Name(padded[0], padded[1], parts[-1])


def _find(session: Session, name: Name, version: str | None) -> tuple[Model, Version]:
    model = models.get(session, session.resolve(name))
    found = model.version(version)
    if "WAREHOUSE" not in found.runnable_in:
        raise compilation_error(
            f"Model {model.name} version {found.name} cannot run in a warehouse; its target"
            f" platforms are {', '.join(found.runnable_in)}."
        )
    return model, found


def _call(session: Session, model: Model, version: Version, name: str, arguments: str) -> str:
    method = method_of(version.methods, name, f"model {model.name} version {version.name}")
    if method.type == "TABLE_FUNCTION":
        return model_tables.call(model, version, method, arguments)
    function = f"SNOWML_MODEL_{version.id}_{method.target_method}".upper()
    values = typed_arguments(method, arguments)
    _register(session, function, model, version, method)
    query = queries.current()
    return f"{function}({', '.join([string_literal(query.id if query else ''), *values])})"


class Function:
    """A method of a version as a function of the SQL engine.

    :param package: the directory of the version's package.
    """

    def __init__(self, hosts: ModelHosts, version: Version, package: Path, method: Method) -> None:
        self.method = method
        self.types = [duckdb_type(t) for _, t in method.inputs]
        self.returned = duckdb_type(method.return_type)
        self._call = partial(hosts.call, version.id, package, method)

    def run(self, query: Query | None, arguments: Sequence[pa.ChunkedArray]) -> pa.Array:
        """:param query: the statement that it is for."""
        columns = [from_json(a) if t == "JSON" else a for a, t in zip(arguments, self.types, strict=True)]
        answer = self._call(pa.table(columns, names=[f"c{i}" for i in range(len(columns))]), query)
        return pa.ExtensionArray.from_storage(pa.json_(), answer) if self.returned == "JSON" else answer


def _register(session: Session, name: str, model: Model, version: Version, method: Method) -> None:
    account = session.account
    function = Function(account.model_hosts, version, models.directory(session, model, version), method)

    def run(query_ids: pa.ChunkedArray, *arguments: pa.ChunkedArray) -> pa.Array:
        # DuckDB calls from threads of its own, so the statement says which one it is.
        query = account.queries.find(query_ids[0].as_py()) if len(query_ids) else None
        return function.run(query, arguments)

    account.model_functions.setdefault(name, function)
    account.register_function(name, run, ["VARCHAR", *function.types], function.returned)
