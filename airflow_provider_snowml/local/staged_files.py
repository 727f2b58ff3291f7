"""Reading the files of a stage: as the source of a query, and INFER_SCHEMA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import SnowflakeError, unsupported
from .functions import table_function
from .grammar import quote
from .results import SELECT, Result, rows
from .stages import StageFile, StageLocation
from .stages_sql import file_format

if TYPE_CHECKING:
    from .session import Session


def query_of(
    session: Session,
    reference: str,
    format_name: str | None,
    pattern: str | None,
    wants_row: bool,
    paths: set[str],
) -> tuple[str, bool]:
    """A DuckDB query over staged files.

    Columns of Parquet files keep their names and ``$1`` is the row as an object if asked for;
    CSV has ``$1``, ``$2``, ...; JSON has ``$1``.

    :param wants_row: whether ``$1`` is used other than as ``$1:column``.
    :param paths: the columns used as ``$1:column``; one that no file has is NULL.
    :return: the query, and whether the files are Parquet.
    """
    location = session.account.stages.locate(session, reference)
    options = file_format(session, format_name)
    kind = str(options["TYPE"]).upper()
    files = location.files(pattern)
    sources = "[" + ", ".join(_literal(f.file) for f in files) + "]"
    root = _literal(location.root)
    named = f'substr(filename, length({root}) + 2) AS "METADATA$FILENAME"'
    if kind == "PARQUET":
        known = set().union(*(read_schema(f).names for f in files)) if files else set()
        nulls = "".join(f", NULL AS {quote(p)}" for p in sorted(paths) if p not in known)
        if not files:
            return f'SELECT NULL::JSON AS "$1", NULL AS "METADATA$FILENAME"{nulls} WHERE false', True
        row = ""
        if wants_row:
            pairs = ", ".join(f"{_literal(c)}, {quote(c)}" for c in sorted(known))
            row = f', json_object({pairs}) AS "$1"'
        read = f"read_parquet({sources}, union_by_name=true, filename=true)"
        return f"SELECT * EXCLUDE (filename), {named}{nulls}{row} FROM {read}", True
    if kind == "JSON":
        if not files:
            return 'SELECT NULL::JSON AS "$1", NULL AS "METADATA$FILENAME" WHERE false', False
        read = f"read_json_objects({sources}, format='auto', filename=true)"
        return f'SELECT json AS "$1", {named} FROM {read}', False
    if kind == "CSV":
        return _csv(files, sources, named, options), False
    raise unsupported(f"file format TYPE = {kind}")


def read_schema(f: StageFile) -> pa.Schema:
    """:raises SnowflakeError: if it is no Parquet file, such as a ``_SUCCESS`` among them."""
    try:
        return pq.read_schema(f.file)
    except pa.ArrowInvalid as e:
        raise SnowflakeError(
            100016, "22000", f"Error parsing the parquet file: {e} File '{f.path}'"
        ) from None


def _csv(files: list[StageFile], sources: str, named: str, options: dict[str, Any]) -> str:
    if not files:
        columns = ", ".join(f'NULL AS "${i}"' for i in range(1, 21))
        return f'SELECT {columns}, NULL AS "METADATA$FILENAME" WHERE false'
    delimiter = str(options.get("FIELD_DELIMITER", ","))
    delimiter = {"NONE": "\x1f"}.get(delimiter.upper(), delimiter)
    enclosed = str(options.get("FIELD_OPTIONALLY_ENCLOSED_BY", ""))
    enclosed = "" if enclosed.upper() == "NONE" else enclosed
    width = max(_csv_width(f.file, delimiter, enclosed) for f in files)
    names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width))
    nulls = options.get("NULL_IF", ["\\N"])
    nulls = nulls if isinstance(nulls, list) else [nulls]
    if str(options.get("EMPTY_FIELD_AS_NULL", "true")).lower() == "true":
        nulls = [*nulls, ""]
    read = (
        f"read_csv({sources}, header=false, auto_detect=false, columns={{{names}}}, "
        f"delim={_literal(delimiter)}, quote={_literal(enclosed)}, escape={_literal(enclosed)}, "
        f"skip={int(options.get('SKIP_HEADER', 0))}, null_padding=true, filename=true, "
        f"nullstr=[{', '.join(_literal(n) for n in nulls)}])"
    )
    columns = ", ".join(f'c{i} AS "${i + 1}"' for i in range(width))
    return f"SELECT {columns}, {named} FROM {read}"


def _csv_width(file: Path, delimiter: str, enclosed: str) -> int:
    import csv
    import gzip

    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter[0], quotechar=enclosed or None,
                            quoting=csv.QUOTE_MINIMAL if enclosed else csv.QUOTE_NONE)  # fmt: skip
        return max(len(next(reader, [""])), 1)


def _literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


@table_function("INFER_SCHEMA")
def infer_schema(
    session: Session,
    *,
    location: str,
    file_format: str,
    files: Any = None,
    ignore_case: bool = False,
    **others: Any,
) -> Result:
    """The columns of staged Parquet files."""
    if others:
        raise unsupported(f"INFER_SCHEMA({', '.join(others)} => ...)")
    found = session.account.stages.locate(session, location)
    listed = _chosen(found, files)
    options = _format(session, file_format)
    if str(options["TYPE"]).upper() != "PARQUET":
        raise unsupported(f"INFER_SCHEMA of TYPE = {options['TYPE']}")
    columns: dict[str, dict[str, Any]] = {}
    untyped: set[str] = set()
    for f in listed:
        for field in read_schema(f):
            name = field.name.upper() if ignore_case else field.name
            type_ = snowflake_type(field.type)
            typed = {
                "TYPE": type_,
                "EXPRESSION": f"$1:{quote(field.name) if name != field.name.upper() else name}::{type_}",
            }
            if name not in columns:
                columns[name] = {
                    "COLUMN_NAME": name,
                    "TYPE": "",
                    "NULLABLE": True,
                    "EXPRESSION": "",
                    "FILENAMES": [],
                    "ORDER_ID": len(columns),
                    **typed,
                }
                if pa.types.is_null(field.type):
                    untyped.add(name)
            elif name in untyped and not pa.types.is_null(field.type):
                columns[name].update(typed)
                untyped.remove(name)
            columns[name]["FILENAMES"].append(f.path)
    for entry in columns.values():
        entry["FILENAMES"] = ",".join(entry["FILENAMES"])
    return rows(
        ["COLUMN_NAME", "TYPE", ("NULLABLE", "boolean"), "EXPRESSION", "FILENAMES", ("ORDER_ID", "fixed")],
        columns.values(),
        SELECT,
    )


def _format(session: Session, name: str) -> dict[str, Any]:
    return file_format(session, name)


def _chosen(location: StageLocation, files: Any) -> list[StageFile]:
    listed = location.files()
    if files is None:
        return [f for f in listed if not f.path.rsplit("/", 1)[-1].startswith("_")] or listed
    names = [str(f) for f in (files if isinstance(files, (list, tuple)) else [files])]
    prefix = location.path + ("/" if location.path and not location.path.endswith("/") else "")
    return [f for f in listed if f.path.removeprefix(prefix) in names]


def snowflake_type(type_: pa.DataType) -> str:
    if pa.types.is_boolean(type_):
        return "BOOLEAN"
    if pa.types.is_integer(type_):
        return "NUMBER(38, 0)"
    if pa.types.is_decimal(type_):
        return f"NUMBER({type_.precision}, {type_.scale})"
    if pa.types.is_floating(type_):
        return "REAL"
    if pa.types.is_date(type_):
        return "DATE"
    if pa.types.is_time(type_):
        return "TIME"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP_NTZ" if type_.tz is None else "TIMESTAMP_LTZ"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return "BINARY"
    if pa.types.is_nested(type_):
        return "OBJECT" if pa.types.is_struct(type_) or pa.types.is_map(type_) else "ARRAY"
    return "TEXT"
