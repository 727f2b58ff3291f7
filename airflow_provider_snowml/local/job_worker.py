"""The process of a batch inference job.

Reads Parquet, calls the model's method on batches of rows, writes Parquet with the input's columns
and the predictions, and ``_SUCCESS`` last of all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .batch_sizes import rows_at_once
from .containers import DONE, FAILED, RUNNING, write_state
from .job_input import packed, unpack, with_content
from .parquet import dictionary_columns

SCHEDULING_SECONDS = 1.0  # a job is seen PENDING for a moment, as it is (for longer) in Snowflake
_ARROW = {
    "INT8": pa.int8(), "INT16": pa.int16(), "INT32": pa.int32(), "INT64": pa.int64(),
    "UINT8": pa.uint8(), "UINT16": pa.uint16(), "UINT32": pa.uint32(), "UINT64": pa.uint64(),
    "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "BOOL": pa.bool_(), "STRING": pa.string(),
    "BYTES": pa.binary(), "TIMESTAMP_NTZ": pa.timestamp("us"),
}  # fmt: skip


class JobError(Exception):
    """What a job ends with when its input does not fit; the message says why."""


def log(text: str) -> None:
    print(text, flush=True)


def input_files(directory: Path) -> list[Path]:
    files = [f for f in sorted(directory.rglob("*")) if f.is_file()]
    files = [f for f in files if not f.name.startswith(("_", "."))]
    if not files:
        raise JobError(f"No input files found in {directory.name or directory}.")
    return files


def arguments(table: pa.Table, spec: dict[str, Any]) -> pa.Table:
    """The method's arguments in their order: columns of the input by name, and parameters."""
    inputs, param_names = spec["argument_names"]
    by_upper = {name.upper(): name for name in reversed(table.column_names)}
    params = {name.upper(): value for name, value in spec["params"].items()}
    columns = []
    for plain in (*inputs, *param_names):
        column = plain if plain in table.column_names else by_upper.get(plain.upper())
        if column is not None and plain.upper() not in params:
            columns.append(table.column(column))
        elif plain in param_names:
            columns.append(pa.array([params.get(plain.upper())] * table.num_rows))
        else:
            raise JobError(
                f"Column {plain} that function {spec['function']} needs is not in the input;"
                f" it has {', '.join(table.column_names)}."
            )
    return pa.table(columns, names=[f"c{i}" for i in range(len(columns))])


def output_types(model_directory: Path, method: str) -> dict[str, pa.DataType]:
    """The predictions' types by the model's signature, so that all batches agree."""
    import yaml

    spec = yaml.safe_load((model_directory / "model" / "model.yaml").read_text())
    types: dict[str, pa.DataType] = {}
    for output in spec["signatures"][method]["outputs"]:
        found = _ARROW.get(str(output.get("type")))
        if found is not None:
            types[output["name"]] = pa.list_(found) if output.get("shape") else found
    return types


def predictions(values: list[Any], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    if not values:
        return {name: pa.array([], type_) for name, type_ in types.items()}
    if not isinstance(values[0], dict):
        name = next(iter(types), "output_feature_0")
        values = [{name: v} for v in values]
    names = list(values[0])
    return {n: pa.array([v[n] for v in values], types.get(n), from_pandas=True) for n in names}


def with_predictions(table: pa.Table, found: dict[str, pa.Array]) -> pa.Table:
    kept = table.drop_columns([c for c in table.column_names if c in found])
    for name, array in found.items():
        kept = kept.append_column(name, array)
    return kept


def run(spec: dict[str, Any], handler: Any) -> int:
    """:return: the number of rows written."""
    output = Path(spec["output"])
    output.mkdir(parents=True, exist_ok=True)
    types = output_types(Path(spec["package"]), spec["method"])
    mishap = _mishap(spec)
    tables = _partitions(spec) if spec["type"] == "TABLE_FUNCTION" else _batches(spec)
    rows = 0
    for number, part in enumerate(tables):
        writer = None
        for table in part:
            result = _infer(spec, handler, table, types)
            if mishap in ("partial_output", "lose_rows"):
                result = result.slice(0, result.num_rows // 2)
            if writer is None:
                writer = pq.ParquetWriter(
                    output / f"part_{number}.parquet",
                    result.schema,
                    use_dictionary=dictionary_columns(result.schema),
                )
            writer.write_table(result.cast(writer.schema))
            rows += result.num_rows
        if writer is not None:
            writer.close()
        if mishap == "partial_output":
            os.kill(os.getpid(), signal.SIGKILL)
        log(f"part {number}: {rows} rows so far")
    return rows


def _infer(spec: dict[str, Any], handler: Any, table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    from .handlers import call_function, call_table_function

    contents = with_content(table, spec["column_handling"], spec["stages"])
    frame = unpack(arguments(contents, spec).to_pandas(), spec["packed"])
    if spec["type"] != "TABLE_FUNCTION":
        values = call_function(handler, frame) if len(frame) else []
        if len(values) != table.num_rows:
            raise JobError(f"The model returned {len(values)} rows for {table.num_rows}.")
        return with_predictions(table, predictions(values, types))
    answer = pa.Table.from_pandas(call_table_function(handler, frame), preserve_index=False)
    column = spec["partition_column"]
    if column is not None and answer.num_rows:
        value = table.column(_column(table, column))[0]
        answer = answer.append_column(column, pa.array([value.as_py()] * answer.num_rows, value.type))
    elif answer.num_rows == table.num_rows:
        return with_predictions(table, {n: answer.column(n) for n in answer.column_names})
    return answer


def _batches(spec: dict[str, Any]) -> Iterator[Iterator[pa.Table]]:
    for file in input_files(Path(spec["input"])):
        yield _rows(file, spec["max_batch_rows"])


def _rows(file: Path, most: int | None) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    if parquet.metadata.num_rows == 0:
        yield parquet.read()
    for batch in parquet.iter_batches(batch_size=most or rows_at_once(parquet.metadata.num_columns)):
        yield pa.Table.from_batches([batch])


def _partitions(spec: dict[str, Any]) -> Iterator[Iterator[pa.Table]]:
    """All rows, or those of each value of the partition column."""
    files = input_files(Path(spec["input"]))
    table = pa.concat_tables([pq.read_table(f, partitioning=None) for f in files])
    if spec["partition_column"] is None:
        yield iter([table])
        return
    column = table.column(_column(table, spec["partition_column"]))
    for value in column.unique():
        mask = pa.compute.equal(column, value) if value.is_valid else pa.compute.is_null(column)
        yield iter([table.filter(mask)])


def _column(table: pa.Table, name: str) -> str:
    for column in table.column_names:
        if column.upper() == name.strip('"').upper():
            return str(column)
    raise JobError(f"Partition column {name} is not in the input; it has {', '.join(table.column_names)}.")


def main(name: str) -> None:
    """:param name: the container's directory."""
    directory = Path(name)
    spec = json.loads((directory / "spec.json").read_text())
    try:
        time.sleep(SCHEDULING_SECONDS)
        if spec["mode"] == "overwrite":
            shutil.rmtree(spec["output"], ignore_errors=True)
        write_state(directory, RUNNING, "Running")
        log(f"Loading {spec['model']} version {spec['version']}, function {spec['function']}")
        from .handlers import Package, argument_names

        handler = Package(Path(spec["package"])).load(spec["handler"])
        spec["argument_names"] = argument_names(handler) or spec["argument_names"]
        if spec["engine"] == "VLLM":
            log("There is no vLLM here: the model's own method answers (simulated)")
        wanted = packed(Path(spec["package"]), spec["method"])
        spec["packed"] = [i for i, name in enumerate(spec["argument_names"][0]) if name in wanted]
        log("Model loaded, inference starts")
        suffer(spec)
        rows = run(spec, handler)
        if _mishap(spec) not in ("no_success", "late_success"):
            Path(spec["output"], "_SUCCESS").touch()
        if _mishap(spec) == "late_done":
            time.sleep(spec["fault"]["seconds"])
        log(f"Inference done, {rows} rows written")
    except BaseException as e:
        traceback.print_exc()
        write_state(directory, FAILED, f"{type(e).__name__}: {e}"[:1000])
        sys.exit(1)
    write_state(directory, DONE, "Completed successfully", rows=rows)
    if _mishap(spec) == "late_success":
        time.sleep(spec["fault"]["seconds"])
        Path(spec["output"], "_SUCCESS").touch()


def _mishap(spec: dict[str, Any]) -> str | None:
    """The kind of fault that this job was told to have; see faults.py."""
    return (spec.get("fault") or {}).get("kind")


def suffer(spec: dict[str, Any]) -> None:
    """What goes wrong before anything is written; image builds suffer it, too."""
    kind = _mishap(spec)
    if kind == "fail_job":
        raise JobError(spec["fault"]["message"])
    if kind == "hang_job":
        log("Hanging on purpose")
        while True:
            time.sleep(60)
    if kind == "slow_job":
        time.sleep(spec["fault"]["seconds"])
