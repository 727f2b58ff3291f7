"""Internal stages: where their files lie on the server's disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalog import Catalog, Qualified
from .errors import already_exists, compilation_error, does_not_exist, unsupported
from .grammar import Name, parse_name

if TYPE_CHECKING:
    from .session import Session

_REFERENCE = re.compile(
    r'@((?:"(?:[^"]|"")*"|[\w$])+(?:\.(?:"(?:[^"]|"")*"|[\w$])+){0,2})(?:/(.*))?', re.DOTALL
)


_PART = ".snowml-part"


def part_of(file: Path) -> Path:
    """Where a file is written first, so that one that is listed is whole."""
    return file.with_name(f".{uuid.uuid4().hex}{_PART}")


@dataclass(frozen=True)
class StageFile:
    """:param path: below the stage, with ``/``."""

    path: str
    file: Path

    @property
    def md5(self) -> str:
        stat = self.file.stat()
        return _md5(self.file, stat.st_size, stat.st_mtime_ns)


@lru_cache(10_000)
def _md5(file: Path, size: int, modified: int) -> str:
    """Once for each content: whoever waits lists again and again."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


@dataclass(frozen=True)
class StageLocation:
    """``@stage/some/path``. A path is a prefix of file names, as it is in Snowflake.

    :param stage: the stage's visible name; :param path: below the stage, no leading slash;
    :param root: the stage's directory.
    """

    stage: Qualified
    path: str
    root: Path

    @property
    def directory(self) -> Path:
        return self.root / self.path

    def files(self, pattern: str | None = None) -> list[StageFile]:
        """The files whose path starts with this one's, sorted.

        :param pattern: a regular expression for the whole path, as PATTERN = '...' takes it.
        """
        matches = re.compile(pattern) if pattern else None
        above, _, beginning = self.path.rpartition("/")
        if ".." in above.split("/"):
            return []
        found = []
        # Only where the path leads: whoever waits lists again and again, and a stage may hold a lot.
        for directory, directories, names in os.walk(top := self.root / above):
            if Path(directory) == top:
                directories[:] = [name for name in directories if name.startswith(beginning)]
            for file in (Path(directory, name) for name in names if not name.endswith(_PART)):
                path = file.relative_to(self.root).as_posix()
                if path.startswith(self.path) and (matches is None or matches.fullmatch(path)):
                    found.append(StageFile(path, file))
        return sorted(found, key=lambda it: it.path)


class Stages:
    """:param root: every stage has a directory here, named by an id of its own."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._catalog = catalog
        self.root = root

    def create(
        self,
        session: Session,
        name: Qualified,
        data: dict[str, Any],
        *,
        temporary: bool,
        replace: bool,
        comment: str = "",
    ) -> None:
        inner = name
        if temporary:
            inner = Qualified(name.database, name.schema, f"{name.name} {session.id}")
        if self._catalog.find("STAGE", inner):
            if not replace:
                raise already_exists(str(name))
            self._remove(inner)
        directory = uuid.uuid4().hex
        (self.root / directory).mkdir()
        self._catalog.create(
            "STAGE", inner, session.role, {**data, "directory": directory, "temporary": temporary}, comment
        )
        if temporary:
            session.temporary["STAGE", name] = inner

    def drop(self, session: Session, name: Qualified) -> None:
        inner = session.temporary.pop(("STAGE", name), name)
        if self._catalog.find("STAGE", inner) is None:
            raise does_not_exist("Stage", str(name))
        self._remove(inner)

    def drop_temporary(self, session: Session) -> None:
        for (kind, name), inner in list(session.temporary.items()):
            if kind == "STAGE":
                del session.temporary[kind, name]
                self._remove(inner)
            elif kind == "FILE FORMAT":
                del session.temporary[kind, name]
                self._catalog.drop("FILE FORMAT", inner)

    def drop_in(self, database: str, schema: str | None) -> None:
        for stage in self._catalog.list("STAGE", database, schema):
            self._remove(stage.name)

    def drop_leftovers(self) -> None:
        """Temporary stages of sessions that a killed server did not end."""
        for kind in ("STAGE", "FILE FORMAT"):
            for found in self._catalog.list(kind):
                if found.data.get("temporary"):
                    if kind == "STAGE":
                        self._remove(found.name)
                    else:
                        self._catalog.drop(kind, found.name)

    def _remove(self, inner: Qualified) -> None:
        found = self._catalog.find("STAGE", inner)
        if found is not None:
            self._catalog.drop("STAGE", inner)
            shutil.rmtree(self.root / found.data["directory"], ignore_errors=True)

    def resolve(self, session: Session, name: Name) -> Qualified:
        """The inner name of a stage: a temporary one of the session hides a permanent one."""
        qualified = session.resolve(name)
        return session.temporary.get(("STAGE", qualified), qualified)

    def locate(self, session: Session, reference: str) -> StageLocation:
        """:param reference: ``@[db.][schema.]stage[/path]``; names may be quoted.

        :raises SnowflakeError: 2003 when the stage is not there.
        """
        text = reference.strip()
        if text.startswith(("@~", "@%")):
            raise unsupported(f"user and table stages ({text})")
        m = _REFERENCE.fullmatch(text)
        if m is None:
            raise compilation_error(f"invalid stage location '{reference}'")
        name = parse_name(m[1])
        inner = self.resolve(session, name)
        found = self._catalog.find("STAGE", inner)
        if found is None:
            raise does_not_exist("Stage", str(session.resolve(name)))
        if found.data.get("url"):
            raise unsupported(f"files of an external stage ({text}): it can be made and listed only")
        path = re.sub(r"/+", "/", m[2] or "").lstrip("/")
        if ".." in path.split("/"):
            raise compilation_error(f"invalid stage location '{reference}'")
        return StageLocation(session.resolve(name), path, self.root / found.data["directory"])
