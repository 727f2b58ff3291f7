"""Directory tables: ``DIRECTORY(@stage)`` lists the files that the stage had when it was refreshed last."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .errors import compilation_error, does_not_exist, unsupported
from .grammar import Reader, parse_name
from .results import Result, rows, status
from .statements import statement

if TYPE_CHECKING:
    from .catalog import Object
    from .session import Session
    from .stages import StageFile

KEY = "directory_table"  # of a stage's data: its entries by path, None if it is not enabled


@statement("ALTER STAGE")
def alter_stage(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "STAGE")
    if_exists = reader.accept("IF", "EXISTS")
    name = reader.name()
    inner = session.account.stages.resolve(session, name)
    if if_exists and session.account.catalog.find("STAGE", inner) is None:
        return status("Statement executed successfully.")
    if reader.accept("REFRESH"):
        subpath = str(reader.options().get("SUBPATH", ""))
        reader.done()
        return _refresh(session, str(session.resolve(name)), subpath)
    reader.expect("SET")
    options = reader.options()
    reader.done()
    if options.keys() - {"DIRECTORY"}:
        raise unsupported(f"ALTER STAGE ... SET {', '.join(options.keys() - {'DIRECTORY'})}")
    with session.account.catalog.change("STAGE", inner) as stage:
        wanted = enabled(options["DIRECTORY"])
        stage.data[KEY] = (stage.data.get(KEY) or {}) if wanted else None
    return status("Statement executed successfully.")


def enabled(options: Any) -> bool:
    """``DIRECTORY = (ENABLE = TRUE)``."""
    given = options if isinstance(options, dict) else {}
    return str(given.get("ENABLE", "false")).lower() == "true"


def _refresh(session: Session, name: str, subpath: str) -> Result:
    location = session.account.stages.locate(session, f"@{name}/{subpath}")
    inner = session.account.stages.resolve(session, parse_name(name))
    changes = []
    with session.account.catalog.change("STAGE", inner) as stage:
        known = _entries(stage)
        found = {f.path: entry for f in location.files() if (entry := _entry(f))}
        for path in [path for path in known if path.startswith(location.path) and path not in found]:
            del known[path]
            changes.append([path, "UNREGISTERED", "Unregistered file successfully."])
        for path, entry in found.items():
            if known.get(path) != entry:
                new = "REGISTERED_UPDATE" if path in known else "REGISTERED_NEW"
                changes.append([path, new, "Registered file successfully."])
            known[path] = entry
    return rows(["file", "status", "description"], changes)


def _entries(stage: Object) -> dict[str, Any]:
    entries: dict[str, Any] | None = stage.data.get(KEY)
    if entries is None:
        raise compilation_error(
            f"stage {stage.name} has no directory table: ALTER STAGE ... SET DIRECTORY = (ENABLE = TRUE)."
        )
    return entries


def _entry(f: StageFile) -> list[Any] | None:
    try:
        stat = f.file.stat()
        return [stat.st_size, stat.st_mtime, f.md5]
    except FileNotFoundError:  # removed meanwhile
        return None


def directory_table(session: Session, reference: str) -> pa.Table:
    """The rows of ``DIRECTORY(@stage)``."""
    name = parse_name(reference.removeprefix("@"))
    stage = session.account.catalog.find("STAGE", session.account.stages.resolve(session, name))
    if stage is None:
        raise does_not_exist("Stage", str(session.resolve(name)))
    visible = session.resolve(name)
    url = f"https://localhost/api/files/{visible.database}/{visible.schema}/{visible.name}/"
    listed = [
        [path, size, datetime.datetime.fromtimestamp(modified, datetime.UTC), md5, md5, url + path]
        for path, (size, modified, md5) in sorted(_entries(stage).items())
    ]
    columns: list[str | tuple[str, str]] = [
        "RELATIVE_PATH", ("SIZE", "fixed"), ("LAST_MODIFIED", "timestamp_ltz"), "MD5", "ETAG", "FILE_URL",
    ]  # fmt: skip
    return rows(columns, listed).table
