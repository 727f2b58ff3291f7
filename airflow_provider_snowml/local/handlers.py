"""Calling a model through the handlers inside its package, as Snowflake's sandbox does.

Runs in processes of its own, never in the server: this is the user's code.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd


def _fake_sandbox() -> types.ModuleType:
    """``_snowflake``, the module of Snowflake's sandbox that the handlers import."""
    module = types.ModuleType("_snowflake")

    def vectorized(**options: Any) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            function._flatten_object_input = options.get("flatten_object_input", False)
            function._max_batch_size = options.get("max_batch_size")
            return function

        return decorate

    def udf_init_once(function: Callable[[], Any]) -> Callable[[], Any]:
        module.__dict__.setdefault("init_functions", []).append(function)
        return function

    module.vectorized = vectorized  # type: ignore[attr-defined]
    module.udf_init_once = udf_init_once  # type: ignore[attr-defined]
    return module


class Package:
    """:param directory: the uploaded package, with ``functions/`` and ``model/``."""

    def __init__(self, directory: Path) -> None:
        self._sandbox = _fake_sandbox()
        sys.modules["_snowflake"] = self._sandbox
        sys._xoptions["snowflake_import_directory"] = f"{directory}/"
        sys.path.insert(0, str(directory))

    def load(self, handler: str) -> Any:
        """:param handler: as in the manifest: ``functions.predict.infer``."""
        module_name, _, attribute = handler.rpartition(".")
        module = importlib.import_module(module_name)
        for function in self._sandbox.__dict__.pop("init_functions", []):
            function()
        return getattr(module, attribute)


def argument_names(handler: Any) -> tuple[list[str], list[str]] | None:
    """The names of inputs and parameters, where a generated handler knows them."""
    module = sys.modules[handler.__module__]
    inputs, params = getattr(module, "input_cols", None), getattr(module, "param_cols", None)
    return None if inputs is None else (list(inputs), list(params or []))


def call_function(function: Callable[..., Any], frame: pd.DataFrame) -> list[Any]:
    """A method of type FUNCTION: one value per row, a dict where the SQL type is OBJECT."""
    answer = function(frame)
    return answer if isinstance(answer, list) else list(answer)


def batches(function: Any, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows, by as many as the function takes at once."""
    size = getattr(function, "_max_batch_size", None) or len(frame)
    if size >= len(frame):
        yield frame
        return
    for start in range(0, len(frame), size):
        yield frame.iloc[start : start + size].reset_index(drop=True)


def flatten(function: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """More arguments than SQL takes come as one object per row: back to a column each."""
    names = argument_names(function)
    method = table_method(function) if isinstance(function, type) else function
    if not getattr(method, "_flatten_object_input", False) or names is None:
        return frame
    records = [{str(k).strip('"').upper(): v for k, v in o.items()} for o in frame.iloc[:, 0]]
    keys = [n.upper() for n in (*names[0], *names[1])]
    return pd.DataFrame({k: [r.get(k) for r in records] for k in keys})


def table_method(handler: type[Any]) -> Callable[..., Any]:
    """What a handler of type TABLE_FUNCTION works with: ``end_partition``, or else ``process``."""
    found: Callable[..., Any] = getattr(handler, "end_partition", None) or handler.process
    return found


def call_table_function(handler: type[Any], frame: pd.DataFrame) -> pd.DataFrame:
    """A method of type TABLE_FUNCTION on one partition, or on a batch of rows."""
    answer = table_method(handler)(handler(), frame)
    if not isinstance(answer, pd.DataFrame):
        raise TypeError(f"returned a {type(answer).__name__}, not a pandas DataFrame")
    if not hasattr(handler, "end_partition") and len(answer) != len(frame):
        raise ValueError(f"process returned {len(answer)} rows for {len(frame)}: it must be one for each")
    return answer


def partitions(frame: pd.DataFrame, keys: pd.DataFrame) -> Iterator[pd.Index]:
    """The numbers of the rows of each partition; without keys all rows are one."""
    if not len(frame):
        return
    if not len(keys.columns):
        yield frame.index
        return
    groups = keys.groupby(list(keys.columns), dropna=False, sort=False)
    yield from (keys.index[numbers] for numbers in groups.indices.values())


def json_default(value: Any) -> Any:
    """What the json module cannot write: numpy values and times."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex().upper()
    return str(value)
