"""What the SQL engine does not know is replaced before it sees a statement.

Current-session functions and ``SYSTEM$`` functions become constants, table functions and staged
files become views of the engine's connection, temporary tables get their inner names.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp

from . import functions, grants, model_batches, model_tables
from .catalog import Qualified
from .directory_tables import directory_table
from .errors import SnowflakeError, already_exists, unsupported
from .grammar import Name, fold, quote_if_needed
from .results import DDL, Result
from .results import status as results_status

if TYPE_CHECKING:
    from .engine import Connection
    from .session import Session

TEMPORARY_SCHEMA = "_SNOWML_TEMP"

_CURRENT: dict[str, Callable[[Session], Any]] = {
    "CURRENT_WAREHOUSE": lambda s: s.warehouse,
    "CURRENT_ROLE": lambda s: s.role,
    "CURRENT_AVAILABLE_ROLES": lambda s: f'["{s.role}"]',
    "CURRENT_SECONDARY_ROLES": lambda s: _secondary_roles(s),
    "CURRENT_USER": lambda s: s.user,
    "CURRENT_SESSION": lambda s: str(s.id),
    "CURRENT_TRANSACTION": lambda s: s.connection.transaction_id if s.connection else None,
    "CURRENT_DATABASE": lambda s: s.database,
    "CURRENT_SCHEMA": lambda s: s.schema,
    "CURRENT_SCHEMAS": lambda s: f'["{s.database}.{s.schema}"]',
    "CURRENT_ACCOUNT": lambda s: "LOCAL",
    "CURRENT_ACCOUNT_NAME": lambda s: "LOCAL",
    "CURRENT_ORGANIZATION_NAME": lambda s: "SNOWML",
    "CURRENT_REGION": lambda s: "LOCAL",
    "CURRENT_VERSION": lambda s: "10.0.0",
    "CURRENT_CLIENT": lambda s: "PythonConnector",
}


def _secondary_roles(session: Session) -> str:
    found = [role for role, _ in grants.roles_of(session.account, "USER", session.user)]
    names = [quote_if_needed(role) for role in found if role != session.role]
    value = "ALL" if session.secondary_roles else ""
    return json.dumps({"roles": ",".join(names) if value else "", "value": value}, separators=(",", ":"))


class Rewriter:
    """Rewrites one statement; ``finish`` removes the views it made and settles temporary names."""

    def __init__(self, session: Session, connection: Connection, *, describe_only: bool = False) -> None:
        self._session = session
        self._describe_only = describe_only
        self._connection = connection
        self._views: list[str] = []
        self._registered: list[str] = []
        self._created: tuple[tuple[str, Qualified], Qualified] | None = None
        self._dropped: list[tuple[str, Qualified]] = []
        self._visible: dict[str, str] = {}

    def rewrite(self, tree: exp.Expression) -> exp.Expression:
        model_tables.expand(self._session, tree, self.view_of, describe_only=self._describe_only)
        self._name_projections(tree)
        # In a transaction a write may have to be done again, when the rows would be gone.
        autocommit = self._session.parameters.get("AUTOCOMMIT") is not False
        if autocommit and not self._connection.in_transaction and not self._describe_only:
            model_batches.expand(self._session, tree, self.view_of)
        for node in list(tree.find_all(exp.TableFromRows)):
            self._table_function(node)
        for table in list(tree.find_all(exp.Table)):
            if isinstance(table.this, exp.DirectoryStage):
                listed = directory_table(self._session, table.this.this.name)
                _take_place(table, self.view_of(listed))
            location = _stage_of(table)
            if location is not None:
                self._staged_files(table, location)
        for values in list(tree.find_all(exp.Values)):
            _name_values(values)
        tree = tree.transform(self._scalar)
        self._information_schema(tree)
        self._using_template(tree)
        self._column_list(tree)
        self._create(tree)
        self._temporary_names(tree)
        return tree

    def batch(self, tree: exp.Expression, table: pa.Table) -> exp.Expression:
        """Turn an INSERT with an array binding into an INSERT ... SELECT of the bound rows."""
        source = self.view_of(table)
        values = tree.find(exp.Values)
        if values is None:
            raise unsupported("array binding of " + tree.sql("snowflake"))
        row = values.expressions[0].expressions
        if isinstance(tree, exp.Insert) and tree.expression is values:
            columns = [e.transform(_numbered_placeholder(i)) for i, e in enumerate(row)]
            tree.set("expression", exp.select(*columns).from_(source))
            return tree
        values.replace(source)
        return tree.transform(lambda n: _dollar_column(n) if isinstance(n, exp.Parameter) else n)

    def view_of(self, table: pa.Table) -> exp.Table:
        name = f"rows_{uuid.uuid4().hex}"
        self._connection.duck.register(name, table)
        self._registered.append(name)
        return exp.table_(exp.to_identifier(name, quoted=True), db="main", catalog="temp")

    def status(self, result: Result) -> Result:
        """The answer of a DDL statement, with the names that the session knows."""
        if result.type_id != DDL or not self._visible:
            return result
        text = str(result.table.column(0)[0])
        for inner, visible in self._visible.items():
            text = text.replace(inner, visible)
        return results_status(text)

    def finish(self, succeeded: bool) -> None:
        for name in self._registered:
            self._connection.duck.unregister(name)
        for name in self._views:
            self._connection.duck.execute(f'DROP VIEW IF EXISTS temp.main."{name}"')
        if succeeded:
            for key in self._dropped:
                self._session.temporary.pop(key, None)
            if self._created:
                self._session.temporary[self._created[0]] = self._created[1]

    def _name_projections(self, tree: exp.Expression) -> None:
        """A column without a name is called as it was written, in upper case."""
        select = tree
        while isinstance(select, (exp.SetOperation, exp.Subquery)):
            select = select.this
        if not isinstance(select, exp.Select):
            return
        named = []
        for e in select.expressions:
            plain = isinstance(e, (exp.Column, exp.Alias, exp.Star, exp.Dot)) or e.is_star
            if plain or (e.find(exp.Star) and not isinstance(e, exp.Count)):
                named.append(e)
            else:
                text = e.sql("snowflake").upper()
                named.append(exp.alias_(e, text, quoted=True))
        select.set("expressions", named)

    def _scalar(self, node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Anonymous):
            # SNOWFLAKE.CORTEX.FINETUNE(...)
            name = node.sql("snowflake").partition("(")[0].upper()
            node = node.expression if name in functions.SYSTEM else node
        elif isinstance(node, exp.Anonymous):
            name = str(node.this).upper()
        elif isinstance(node, exp.Func):
            name = node.sql_name().upper()
        else:
            return node
        if name in _CURRENT:
            return _constant(_CURRENT[name](self._session))
        function = functions.SYSTEM.get(name)
        if function is not None:
            return _constant(function(self._session, *self.arguments(node.expressions)[0]))
        if name.startswith("SYSTEM$"):
            raise unsupported(f"function {name}")
        return node

    def arguments(self, nodes: list[exp.Expression]) -> tuple[list[Any], dict[str, Any]]:
        """The values of positional and of named arguments; they must be constants."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for node in nodes:
            if isinstance(node, exp.Kwarg):
                named[node.this.name.lower()] = self._value(node.expression)
            else:
                positional.append(self._value(node))
        return positional, named

    def _value(self, node: exp.Expression) -> Any:
        if isinstance(node, (exp.Literal, exp.RawString)):
            return node.to_py() if isinstance(node, exp.Literal) else node.this
        if isinstance(node, exp.Tuple):
            return [self._value(e) for e in node.expressions]
        if isinstance(node, exp.Paren):
            return self._value(node.this)
        if isinstance(node, exp.Null):
            return None
        if isinstance(node, exp.Boolean):
            return bool(node.this)
        if isinstance(node, (exp.Column, exp.Identifier)):
            return node.sql("snowflake")
        evaluated = exp.select(node.copy().transform(self._scalar)).sql("duckdb")
        found = self._connection.duck.execute(evaluated).fetchall()  # to the end: else it stays open
        return found[0][0] if found else None

    def _table_function(self, node: exp.TableFromRows) -> None:
        call = node.this
        path = []
        while isinstance(call, exp.Dot):
            path.append(call.this.name.upper() if not isinstance(call.this, exp.Dot) else None)
            if isinstance(call.this, exp.Dot):
                path[-1] = call.this.expression.name.upper()
            call = call.expression
            break
        if not isinstance(call, exp.Anonymous):
            return  # FLATTEN, GENERATOR and the like are the engine's
        name = str(call.this).upper()
        full = ".".join([*(p for p in path if p), name])
        function = functions.TABLE.get(full) or functions.TABLE.get(name)
        if function is None:
            raise unsupported(f"table function {full}")
        positional, named = self.arguments(call.expressions)
        view = self.view_of(function(self._session, *positional, **named).table)
        _take_place(node, view)

    def _staged_files(self, table: exp.Table, location: str) -> None:
        from .staged_files import query_of

        select = table.parent_select
        extracts = [p.parent for p in _parameters(select) if isinstance(p.parent, exp.JSONExtract)]
        sql, is_parquet = query_of(
            self._session,
            location,
            _name(table.args.get("format")),
            _text(table.args.get("pattern")),
            len(extracts) < len(_parameters(select)),
            {_path(e) for e in extracts},
        )
        name = f"stage_{uuid.uuid4().hex}"
        self._connection.duck.execute(f'CREATE TEMP VIEW "{name}" AS {sql}')
        self._views.append(name)
        _take_place(table, exp.table_(exp.to_identifier(name, quoted=True), "main", "temp"))
        if select is not None:
            for parameter in _parameters(select):
                extract = parameter.parent
                if is_parquet and isinstance(extract, exp.JSONExtract):
                    extract.replace(exp.column(_path(extract), quoted=True))
                else:
                    parameter.replace(_dollar_column(parameter))
            for column in list(select.find_all(exp.Column)):
                if column.name.upper().startswith("METADATA$"):
                    column.replace(exp.column(column.name.upper(), quoted=True))

    def _information_schema(self, tree: exp.Expression) -> None:
        for table in list(tree.find_all(exp.Table)):
            if table.db.upper() == "INFORMATION_SCHEMA":
                function = functions.TABLE.get("VIEW." + table.name.upper())
                if function is not None:
                    _take_place(table, self.view_of(function(self._session).table))

    def _using_template(self, tree: exp.Expression) -> None:
        """CREATE TABLE ... USING TEMPLATE (SELECT ARRAY_AGG(OBJECT_CONSTRUCT(*)) FROM ...)."""
        properties = tree.args.get("properties") if isinstance(tree, exp.Create) else None
        template = properties.find(exp.UsingTemplateProperty) if properties is not None else None
        if properties is None or template is None:
            return
        query = template.this
        while isinstance(query, exp.Subquery):
            query = query.this
        if not isinstance(query, exp.Select) or not isinstance(query.expressions[0].unalias(), exp.ArrayAgg):
            raise unsupported(tree.sql("snowflake"))
        source = exp.select("*").from_(query.args["from_"].this.copy())
        found = self._connection.duck.execute(source.sql("duckdb")).fetchall()
        columns = [
            exp.ColumnDef(
                this=exp.to_identifier(row[0], quoted=True),
                kind=exp.DataType.build(row[1], dialect="snowflake"),
            )
            for row in sorted(found, key=lambda row: row[5])
        ]
        template.pop()
        if not properties.expressions:
            tree.set("properties", None)
        tree.set("this", exp.Schema(this=tree.this, expressions=columns))

    def _column_list(self, tree: exp.Expression) -> None:
        """``CREATE TABLE t (a T, ...) AS SELECT * ...``: the types become casts of the columns.

        The engine asks DuckDB for the columns behind the star, in Snowflake's dialect.
        """
        if not (isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema)):
            return
        query, definitions = tree.expression, tree.this.expressions
        if not (isinstance(query, exp.Query) and query.is_star and definitions):
            return
        described = self._session.account.engine.describe(self._session, query.sql("snowflake"))
        if len(described.rowtype) != len(definitions):
            raise SnowflakeError(2026, "42601", "SQL compilation error:\nInvalid column definition list")
        names = [exp.to_identifier(f"c{i}", quoted=True) for i in range(len(definitions))]
        columns = [
            exp.alias_(exp.cast(exp.column(n.copy()), d.kind) if d.kind else exp.column(n.copy()), d.this)
            for n, d in zip(names, definitions, strict=True)
        ]
        source = exp.Subquery(
            this=query.unnest() if isinstance(query, exp.Subquery) else query,
            alias=exp.TableAlias(this=exp.to_identifier("snowml_source"), columns=names),
        )
        tree.set("expression", exp.select(*columns).from_(source))
        tree.set("this", tree.this.this)

    def _create(self, tree: exp.Expression) -> None:
        """CREATE TEMPORARY TABLE or VIEW: a table of a hidden schema, known to this session only."""
        if not isinstance(tree, exp.Create):
            return
        properties = tree.args.get("properties")
        temporary = properties.find(exp.TemporaryProperty) if properties is not None else None
        if properties is None or temporary is None:
            return
        temporary.pop()
        if not properties.expressions:
            tree.set("properties", None)
        target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        name = self.qualified(target)
        key = ("TABLE", name)
        inner = self._session.temporary.get(key)
        if inner is not None and not tree.args.get("replace") and not tree.args.get("exists"):
            raise already_exists(str(name))
        if inner is None:
            inner = Qualified(
                name.database, TEMPORARY_SCHEMA, f"{name.schema}.{name.name}.{self._session.id}"
            )
        self._created = (key, inner)
        self._visible[inner.name] = name.name
        _rename(target, inner)

    def _temporary_names(self, tree: exp.Expression) -> None:
        if not self._session.temporary:
            return
        ctes = {fold(c.alias) for c in tree.find_all(exp.CTE)}
        ctes |= {c.alias.upper() for c in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            if not isinstance(table.this, exp.Identifier) or table.catalog == "temp":
                continue
            if not table.db and table.name.upper() in ctes:
                continue
            if not table.db and self._session.schema is None:
                continue
            key = ("TABLE", self.qualified(table))
            inner = self._session.temporary.get(key)
            if inner is None:
                continue
            if isinstance(tree, exp.Drop):
                self._dropped.append(key)
            self._visible[inner.name] = key[1].name
            alias = table.alias
            _rename(table, inner)
            if not alias and not isinstance(tree, (exp.Drop, exp.Create, exp.Alter)):
                written = key[1].name
                if table.parent and isinstance(table.parent, (exp.From, exp.Join)):
                    table.set("alias", exp.TableAlias(this=exp.to_identifier(written, quoted=True)))

    def qualified(self, table: exp.Table) -> Qualified:
        return self._session.resolve(table_name(table))


def table_name(table: exp.Table) -> Name:
    parts = [table.args.get("catalog"), table.args.get("db"), table.this]
    names = [_folded(p) if p is not None else None for p in parts]
    return Name(names[0], names[1], names[2] or "")


def _folded(identifier: exp.Expression) -> str:
    quoted = isinstance(identifier, exp.Identifier) and identifier.args.get("quoted")
    return str(identifier.name) if quoted else str(identifier.name).upper()


def _rename(table: exp.Table, name: Qualified) -> None:
    table.set("this", exp.to_identifier(name.name, quoted=True))
    table.set("db", exp.to_identifier(name.schema, quoted=True))
    table.set("catalog", exp.to_identifier(name.database, quoted=True))


def _take_place(old: exp.Expression, new: exp.Table) -> None:
    alias = old.args.get("alias")
    if alias is not None:
        new.set("alias", alias.copy())
    for key in ("joins", "laterals"):
        if old.args.get(key):
            new.set(key, old.args[key])
    old.replace(new)


def _stage_of(table: exp.Table) -> str | None:
    if isinstance(table.this, exp.Var) and table.this.name.startswith("@"):
        return str(table.this.name)
    if isinstance(table.this, exp.Literal) and table.this.name.startswith("@"):
        return str(table.this.name)
    return None


def _name_values(values: exp.Values) -> None:
    """``SELECT $1 FROM VALUES (...)``: the columns of VALUES are called COLUMN1, COLUMN2, ..."""
    if not isinstance(values.parent, (exp.From, exp.Join)) or values.alias_column_names:
        return
    width = len(values.expressions[0].expressions)
    names = [exp.to_identifier(f"COLUMN{i + 1}") for i in range(width)]
    alias = values.alias or "VALUES_"
    values.set("alias", exp.TableAlias(this=exp.to_identifier(alias), columns=names))
    for parameter in _parameters(values.parent_select):
        parameter.replace(exp.column(f"COLUMN{parameter.this.name}"))


def _parameters(select: exp.Expression | None) -> list[exp.Parameter]:
    return list(select.find_all(exp.Parameter)) if select is not None else []


def _path(extract: exp.JSONExtract) -> str:
    return ".".join(str(k.this) for k in extract.expression.find_all(exp.JSONPathKey))


def _dollar_column(parameter: exp.Expression) -> exp.Expression:
    return exp.column(f"${parameter.name or parameter.this.name}", quoted=True)


def _numbered_placeholder(index: int) -> Callable[[exp.Expression], exp.Expression]:
    def replace(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Placeholder):
            return exp.column(f"${index + 1}", quoted=True)
        return node

    return replace


def _text(node: exp.Expression | None) -> str | None:
    return None if node is None else str(node.name)


def _name(node: exp.Expression | None) -> str | None:
    """A name as it is written, also within a text."""
    return _text(node) if node is None or isinstance(node, exp.Literal) else node.sql("snowflake")


def _constant(value: Any) -> exp.Expression:
    if value is None:
        return exp.cast(exp.Null(), "VARCHAR")
    return exp.convert(value)
