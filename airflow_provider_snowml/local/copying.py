"""COPY INTO a table from staged files, and COPY INTO a location from a query."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from .catalog import LOADED_FILES, Qualified
from .errors import SnowflakeError, compilation_error, unsupported
from .grammar import Reader, quote, string_literal
from .parquet import dictionary_columns
from .results import COPY, UNKNOWN, Result, rows
from .staged_files import read_schema, snowflake_type
from .stages import StageFile, StageLocation, part_of
from .stages_sql import file_format
from .statements import statement
from .types import json_texts

if TYPE_CHECKING:
    from .session import Session


@statement("COPY INTO")
def copy_into(session: Session, reader: Reader) -> Result:
    reader.expect("COPY", "INTO")
    token = reader.peek()
    if token.kind in ("stage", "string"):
        return _unload(session, reader)
    return _load(session, reader)


# Into a location


def _unload(session: Session, reader: Reader) -> Result:
    target = _reference(reader)
    reader.expect("FROM")
    query = reader.parenthesised() if reader.peek().text == "(" else f"SELECT * FROM {reader.name()}"
    options = reader.options()
    reader.done()
    known = {
        "FILE_FORMAT",
        "OVERWRITE",
        "SINGLE",
        "HEADER",
        "MAX_FILE_SIZE",
        "INCLUDE_QUERY_ID",
        "DETAILED_OUTPUT",
    }
    for option in options:
        if option not in known:
            raise unsupported(f"COPY INTO <location> ... {option}")
    location = session.account.stages.locate(session, target)
    form = file_format(session, options.get("FILE_FORMAT"))
    kind = str(form["TYPE"]).upper()
    single = _flag(options.get("SINGLE"))
    overwrite = _flag(options.get("OVERWRITE"))
    path = _unloaded_path(location, kind, form, single)
    file = location.root / path
    if file.exists() and not overwrite:
        raise SnowflakeError(
            1030,
            "22000",
            f"Files already existing at the unload destination: {target}. "
            "Use overwrite option to force unloading.",
        )
    result = session.account.engine.execute(session, query)
    if kind == "PARQUET" and any(r["type"] in ("timestamp_tz", "timestamp_ltz") for r in result.rowtype):
        raise SnowflakeError(
            100171,
            "22000",
            "Error encountered when unloading to PARQUET: "
            "TIMESTAMP_TZ and LTZ types are not supported for unloading to Parquet.",
        )
    table = result.table.rename_columns([r["name"] for r in result.rowtype])
    header = _flag(options.get("HEADER"))
    data = _encode(table, kind, form, header) if table.num_rows or single else None
    if data is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(file)
        part.write_bytes(data)
        part.replace(file)
    size = len(data or b"")
    return rows(
        [("rows_unloaded", "fixed"), ("input_bytes", "fixed"), ("output_bytes", "fixed")],
        [[table.num_rows, size, size]],
        UNKNOWN,
    )


def _unloaded_path(location: StageLocation, kind: str, form: dict[str, Any], single: bool) -> str:
    if single:
        return location.path if location.path and not location.path.endswith("/") else location.path + "data"
    compression = str(form.get("COMPRESSION", "AUTO")).upper()
    suffix = {
        "PARQUET": ".parquet" if compression == "NONE" else ".snappy.parquet",
        "CSV": ".csv" if compression == "NONE" else ".csv.gz",
        "JSON": ".json" if compression == "NONE" else ".json.gz",
    }[kind]
    prefix = location.path + ("data" if not location.path or location.path.endswith("/") else "")
    return f"{prefix}_0_0_0{suffix}"


def _encode(table: pa.Table, kind: str, form: dict[str, Any], header: bool) -> bytes:
    sink = pa.BufferOutputStream()
    compression = str(form.get("COMPRESSION", "AUTO")).upper()
    if kind == "PARQUET":
        if not header:
            table = table.rename_columns([f"_COL_{i}" for i in range(table.num_columns)])
        plain = _plain(table)
        pq.write_table(
            plain,
            sink,
            compression="NONE" if compression == "NONE" else "snappy",
            use_dictionary=dictionary_columns(plain.schema),
        )
        return bytes(sink.getvalue())
    if kind == "CSV":
        options = pc.WriteOptions(
            include_header=header,
            delimiter=str(form.get("FIELD_DELIMITER", ",")),
            quoting_style="needed" if form.get("FIELD_OPTIONALLY_ENCLOSED_BY") else "none",
        )
        pc.write_csv(_plain(table), sink, options)
        data = bytes(sink.getvalue())
    else:
        if table.num_columns != 1:
            raise SnowflakeError(
                2151,
                "42601",
                "SQL compilation error:\n"
                "JSON file format supports only one column of type VARIANT, OBJECT, or ARRAY for unloading.",
            )
        values = table.column(0).to_pylist()
        data = b"".join((v if isinstance(v, str) else json.dumps(v)).encode() + b"\n" for v in values)
    return data if compression == "NONE" else gzip.compress(data)


def _plain(table: pa.Table) -> pa.Table:
    """Types as Snowflake unloads them: whole numbers that fit as 64 bit, semi-structured ones as JSON."""
    columns = []
    for array in table.columns:
        type_ = array.type
        if pa.types.is_decimal(type_) and type_.scale == 0:
            with suppress(pa.ArrowInvalid):
                array = array.cast(pa.int64())
        elif isinstance(type_, pa.BaseExtensionType):
            array = array.cast(pa.string())
        elif pa.types.is_nested(type_):
            array = json_texts(array)
        columns.append(array)
    return pa.Table.from_arrays(columns, names=table.column_names)


# Into a table


def _load(session: Session, reader: Reader) -> Result:
    target = session.resolve(reader.name())
    columns = _column_list(reader) if reader.peek().text == "(" else None
    reader.expect("FROM")
    select: str | None = None
    if reader.peek().text == "(":
        select = reader.parenthesised()
        inner = Reader(select)
        while not (inner.peek().kind == "stage" or inner.peek().text.startswith("'@")):
            if inner.at_end():
                raise unsupported("COPY INTO <table> FROM (query) without a stage")
            inner.next()
        reference = _reference(inner)
    else:
        reference = _reference(reader)
    options = reader.options()
    reader.done()
    known = {"FILE_FORMAT", "PATTERN", "FILES", "MATCH_BY_COLUMN_NAME", "ON_ERROR", "PURGE", "FORCE"}
    for option in options:
        if option not in known:
            raise unsupported(f"COPY INTO <table> ... {option}")
    if str(options.get("ON_ERROR", "ABORT_STATEMENT")).upper() != "ABORT_STATEMENT":
        raise unsupported(f"COPY INTO <table> ... ON_ERROR = {options['ON_ERROR']}")
    location = session.account.stages.locate(session, reference)
    files = _chosen_files(location, options)
    already = {} if _flag(options.get("FORCE")) else _loaded_files(session, target)
    key = f"{location.root.name}/"
    new = [f for f in files if already.get(key + f.path) != _etag(f)]
    if not new:
        return rows(["status"], [["Copy executed with 0 files processed."]], COPY)
    form = file_format(session, options.get("FILE_FORMAT"))
    with _inline_format(session, form) as form_name:
        source = (
            f"{string_literal('@' + str(location.stage) + '/' + location.path)} "
            f"(FILE_FORMAT => {string_literal(form_name)}, "
            f"PATTERN => {string_literal('|'.join(re.escape(f.path) for f in new))})"
        )
        if select is None:
            query, columns = _matching_query(session, target, columns, new, form, options, source)
        else:
            at = Reader(select)
            while at.peek().kind != "stage" and not at.peek().text.startswith("'@"):
                at.next()
            token = at.next()
            query = select[: token.start] + source + select[token.end :]
        names = f" ({', '.join(map(quote, columns))})" if columns else ""
        session.account.engine.execute(session, f"INSERT INTO {'.'.join(map(quote, target))}{names} {query}")
    already.update({key + f.path: _etag(f) for f in new})
    _remember(session, target, already)
    answer = [_loaded_row(location, f, form) for f in new]
    if _flag(options.get("PURGE")):
        for f in new:
            f.file.unlink(missing_ok=True)
    return rows(
        ["file", "status", ("rows_parsed", "fixed"), ("rows_loaded", "fixed"), ("error_limit", "fixed"),
         ("errors_seen", "fixed"), "first_error", ("first_error_line", "fixed"),
         ("first_error_character", "fixed"), "first_error_column_name"],
        answer,
        COPY,
    )  # fmt: skip


def _matching_query(
    session: Session,
    target: Qualified,
    columns: list[str] | None,
    files: list[StageFile],
    form: dict[str, Any],
    options: dict[str, Any],
    source: str,
) -> tuple[str, list[str]]:
    """The SELECT that a COPY without one stands for."""
    table = _table_columns(session, target)
    kind = str(form["TYPE"]).upper()
    match = str(options.get("MATCH_BY_COLUMN_NAME", "NONE")).upper()
    if kind == "CSV":
        wanted = columns or list(table)
        parts = [f"${i + 1}::{table[c]}" for i, c in enumerate(wanted)]
        return f"SELECT {', '.join(parts)} FROM {source}", wanted
    if kind != "PARQUET" or match == "NONE":
        if len(table) == 1:
            return f"SELECT $1 FROM {source}", list(table)
        raise SnowflakeError(
            2151,
            "22000",
            "SQL compilation error:\n"
            f"{kind} file format can produce one and only one column of type variant, object, or array. "
            "Load data into separate columns using the MATCH_BY_COLUMN_NAME copy option or copy with "
            "transformation.",
        )
    in_files: dict[str, str] = {}
    for f in files:
        in_files.update({field.name: snowflake_type(field.type) for field in read_schema(f)})
    fold = str.upper if match == "CASE_INSENSITIVE" else str
    by_name = {fold(c): c for c in in_files}
    matched = [c for c in (columns or list(table)) if fold(c) in by_name]
    if not matched:
        raise SnowflakeError(
            904, "42000", f"SQL compilation error:\nno column of {target} is in the staged files."
        )
    parts = [f"$1:{quote(by_name[fold(c)])}::{table[c]}" for c in matched]
    return f"SELECT {', '.join(parts)} FROM {source}", matched


def _table_columns(session: Session, target: Qualified) -> dict[str, str]:
    described = session.account.engine.describe(session, f"SELECT * FROM {'.'.join(map(quote, target))}")
    return {r["name"]: _sql_type(r) for r in described.rowtype}


def _sql_type(column: dict[str, Any]) -> str:
    if column["type"] == "fixed":
        return f"NUMBER({column['precision']}, {column['scale']})"
    return {"text": "VARCHAR", "real": "DOUBLE"}.get(column["type"], str(column["type"]).upper())


def _loaded_row(location: StageLocation, f: StageFile, form: dict[str, Any]) -> list[Any]:
    if str(form["TYPE"]).upper() == "PARQUET":
        count = pq.read_metadata(f.file).num_rows
    else:
        count = max(_lines(f.file) - int(form.get("SKIP_HEADER", 0)), 0)
    name = f"{location.stage.name.lower()}/{f.path}"
    return [name, "LOADED", count, count, 1, 0, None, None, None, None]


def _lines(file: Path) -> int:
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rb") as f:
        return sum(1 for line in f if line.strip())


def _column_list(reader: Reader) -> list[str]:
    reader.expect_symbol("(")
    names = [reader.identifier()]
    while reader.accept_symbol(","):
        names.append(reader.identifier())
    reader.expect_symbol(")")
    return names


def _chosen_files(location: StageLocation, options: dict[str, Any]) -> list[StageFile]:
    files = location.files(options.get("PATTERN"))
    if "FILES" not in options:
        return files
    chosen = []
    prefix = location.path + ("/" if location.path and not location.path.endswith("/") else "")
    for name in options["FILES"]:
        found = [f for f in files if f.path == prefix + name]
        if not found:
            raise SnowflakeError(100080, "22000", f"Remote file '{name}' was not found.")
        chosen += found
    return chosen


def _loaded_files(session: Session, target: Qualified) -> dict[str, str]:
    """What this table was loaded from. The engine forgets it when a table is made anew."""
    found = session.account.catalog.find(LOADED_FILES, _inner(session, target))
    return dict(found.data) if found else {}


def _remember(session: Session, target: Qualified, files: dict[str, str]) -> None:
    name = _inner(session, target)
    session.account.catalog.create(LOADED_FILES, name, session.role, dict(files), replace=True)


def _inner(session: Session, target: Qualified) -> Qualified:
    return session.temporary.get(("TABLE", target), target)


def _etag(f: StageFile) -> str:
    stat = f.file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


@contextmanager
def _inline_format(session: Session, form: dict[str, Any]) -> Iterator[str]:
    name = f"INLINE_{uuid.uuid4().hex}"
    session.inline_formats[name] = form
    try:
        yield name
    finally:
        del session.inline_formats[name]


def _reference(reader: Reader) -> str:
    token = reader.next()
    if token.kind == "stage":
        return token.text
    if token.kind == "string":
        reader.position -= 1
        location = reader.string()
        if "://" in location:
            raise unsupported(f"COPY INTO and external location {location}")
        return location
    raise compilation_error(f"unexpected '{token.text}': expected a stage location")


def _flag(value: Any) -> bool:
    return str(value).upper() == "TRUE"
