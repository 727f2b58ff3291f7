"""What a batch job does with the values of its input before the method gets them."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

ENCODINGS: dict[str, Callable[[Path, bytes], Any]] = {
    "raw_bytes": lambda path, content: content,
    "base64": lambda path, content: base64.b64encode(content).decode(),
    "base64_data_url": lambda path, content: _data_url(path, content),
}


class InputFileError(Exception):
    """A column names a file that cannot be read; the message says which and why."""


def with_content(table: pa.Table, handling: dict[str, dict[str, str]], stages: dict[str, str]) -> pa.Table:
    """The same rows, with the content of stage files in place of their paths.

    :param handling: ``input.column_handling`` of the specification.
    :param stages: the directories of the stages that may be read, by full name.
    """
    for name, options in handling.items():
        found = [i for i, column in enumerate(table.column_names) if column.upper() == name.upper()]
        if not found:
            known = ", ".join(table.column_names)
            raise InputFileError(f"Column {name} of column_handling is not in the input; it has {known}.")
        encode = ENCODINGS[options["convert_to"]]
        contents = [
            None if path is None else encode(file := _file(path, stages), file.read_bytes())
            for path in table.column(found[0]).to_pylist()
        ]
        type_ = pa.binary() if options["convert_to"] == "raw_bytes" else pa.string()
        table = table.set_column(found[0], table.column_names[found[0]], pa.array(contents, type_))
    return table


def _file(path: str, stages: dict[str, str]) -> Path:
    from .grammar import parse_name

    stage, _, below = path.removeprefix("@").partition("/")
    name = parse_name(stage) if path.startswith("@") and below else None
    if name is None or not (name.database and name.schema):
        raise InputFileError(f"{path!r} is no full stage path: @database.schema.stage/path/file.")
    directory = stages.get(f"{name.database}.{name.schema}.{name.name}")
    if directory is None:
        raise InputFileError(
            f"{path}: there is no such stage whose files a job can read; it must be internal, with "
            "ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')."
        )
    file = Path(directory, below)
    if ".." in Path(below).parts or not file.is_file():
        raise InputFileError(f"{path}: there is no such file.")
    return file


def _data_url(path: Path, content: bytes) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def packed(package: Path, method: str) -> set[str]:
    """The inputs of a method that are arrays or objects, by its signature."""
    import yaml

    described = yaml.safe_load((package / "model" / "model.yaml").read_text())
    inputs = described["signatures"][method]["inputs"]
    return {str(one["name"]) for one in inputs if "specs" in one or one.get("shape")}


def unpack(frame: pd.DataFrame, columns: list[int]) -> pd.DataFrame:
    """Arrays and objects, which Parquet files of Snowflake hold as JSON, as the lists and dicts they are."""
    for i in columns:
        frame.isetitem(i, [json.loads(v) if isinstance(v, str) else v for v in frame.iloc[:, i]])
    return frame
