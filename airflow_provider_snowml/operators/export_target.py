"""Where exported files go: a directory of a stage, or of whatever ``ObjectStoragePath`` reaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from airflow.sdk import ObjectStoragePath

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.snowml import SnowMLHook


class ExportTarget(Protocol):
    """A directory; the paths are below it."""

    def files(self) -> set[str]:
        """The paths of its files."""

    def read(self, path: str) -> bytes | None:
        """A small file's content; ``None`` if it isn't there."""

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, over one that is there."""

    def upload(self, path: str, file: Path) -> None:
        """Write a file from the worker's disk."""

    def remove(self, path: str) -> None:
        """Remove a file that is there."""


class StageTarget:
    """A directory of a stage.

    :param hook: the hook, with a connection open.
    :param location: the directory.
    """

    def __init__(self, hook: SnowMLHook, location: StageLocation) -> None:
        self._hook = hook
        self._location = location

    def __str__(self) -> str:
        return self._location.sql

    def files(self) -> set[str]:
        """The paths of its files."""
        # A location is a prefix of names, and ends in a slash.
        return {path.removeprefix(self._location.path) for path in self._hook.files(self._location)}

    def read(self, path: str) -> bytes | None:
        """A small file's content; ``None`` if it isn't there."""
        return self._hook.read_file(self._location, path)

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, over one that is there."""
        self._hook.write_file(self._location, path, content)

    def upload(self, path: str, file: Path) -> None:
        """Write a file from the worker's disk."""
        # Not with "/", which checks what users write: these are a model's own files, whatever their names.
        directory, slash, _ = path.rpartition("/")
        location = replace(self._location, path=f"{self._location.path}{directory}{slash}")
        self._hook.upload_file(location, file)

    def remove(self, path: str) -> None:
        """Remove a file that is there."""
        self._hook.remove_file(self._location, path)


class ObjectStorageTarget:
    """A directory of an object store, or of a file system.

    :param path: the directory.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def files(self) -> set[str]:
        """The paths of its files."""
        fs = self._path.fs
        fs.invalidate_cache()  # others write there too
        root = self._path.path.rstrip("/") + "/"
        return {found.removeprefix(root) for found in fs.find(root)}

    def read(self, path: str) -> bytes | None:
        """A small file's content; ``None`` if it isn't there."""
        file = self._path / path
        return file.read_bytes() if file.exists() else None

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, over one that is there."""
        file = self._path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def upload(self, path: str, file: Path) -> None:
        """Write a file from the worker's disk."""
        target = self._path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.fs.put_file(str(file), target.path)

    def remove(self, path: str) -> None:
        """Remove a file that is there."""
        (self._path / path).unlink()


def export_target(hook: SnowMLHook, path: str | ObjectStoragePath) -> ExportTarget:
    """The directory that a path names.

    :param hook: the hook, with a connection open.
    :param path: ``@[[database.]schema.]stage/directory``, or a URL.
    :raises InvalidArgumentError: (or a subclass) if it names none.
    :raises StageNotFoundError: if there is no such stage.
    """
    text = str(path)
    if text.startswith("@"):
        location = StageLocation.parse(text, hook.default_schema(), what="path")
        if not location.path:
            raise InvalidArgumentError(
                f"path is {text!r}, a stage's root: name a directory in it, such as {location.sql}churn/."
            )
        hook.check_internal_stage(location.stage)
        return StageTarget(hook, location)
    if "://" not in text:
        raise InvalidArgumentError(
            f"path is {text!r}; write a stage's directory, @EXPORTS/churn, or a URL, s3://bucket/churn."
        )
    return ObjectStorageTarget(path if isinstance(path, ObjectStoragePath) else ObjectStoragePath(text))
