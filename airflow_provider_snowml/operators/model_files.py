"""A model's file, wherever it lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow.sdk import ObjectStoragePath

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.snowml import SnowMLHook


@contextmanager
def fetched(hook: SnowMLHook, location: str | None) -> Iterator[Path | None]:
    """The file on this machine, for as long as it is needed; ``None`` for none.

    :param hook: the hook, for a file on a stage.
    :param location: a path, a URL that ``ObjectStoragePath`` takes, or ``@[[database.]schema.]stage/path``.
    :raises InvalidArgumentError: if it isn't there.
    """
    if location is None or not (location.startswith("@") or "://" in location):
        yield Path(location) if location is not None else None
        return
    with tempfile.TemporaryDirectory() as directory:
        name = location.rsplit("/", 1)[-1]
        file = Path(directory) / name
        if location.startswith("@"):
            parent = StageLocation.parse(location.removesuffix(name), hook.default_schema())
            content = hook.read_file(parent, name)
        else:
            path = ObjectStoragePath(location)
            content = path.read_bytes() if path.is_file() else None
        if content is None:
            raise InvalidArgumentError(f"There is no file {location}, or it may not be read.")
        file.write_bytes(content)
        yield file
