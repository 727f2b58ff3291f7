"""CREATE / DROP / DESCRIBE / SHOW STAGE and FILE FORMAT, LIST, REMOVE, PUT, GET."""

from __future__ import annotations

import contextlib
import posixpath
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import directory_tables, models
from .catalog import Object, Qualified
from .errors import already_exists, compilation_error, does_not_exist, unsupported
from .grammar import Reader, parse_name
from .results import DESCRIBE, SHOW, UNKNOWN, Result, column, rows, status
from .scope import read_scope
from .stages import StageFile
from .statements import statement

if TYPE_CHECKING:
    from .session import Session


def _creation(reader: Reader, *kind: str) -> tuple[bool, bool, bool]:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.accept("SCOPED")
    temporary = bool(reader.accept_any("TEMP", "TEMPORARY"))
    reader.expect(*kind)
    return replace, temporary, reader.accept("IF", "NOT", "EXISTS")


@statement("CREATE [OR REPLACE] [SCOPED] [TEMP|TEMPORARY] STAGE")
def create_stage(session: Session, reader: Reader) -> Result:
    replace, temporary, if_not_exists = _creation(reader, "STAGE")
    name = session.resolve(reader.name())
    options = reader.options()
    reader.done()
    for option in options:
        if option not in ("ENCRYPTION", "DIRECTORY", "FILE_FORMAT", "COMMENT", "COPY_OPTIONS", "URL"):
            raise unsupported(f"CREATE STAGE ... {option}")
    encryption = options.get("ENCRYPTION", {})
    kind = str(encryption.get("TYPE", "SNOWFLAKE_FULL")).upper()
    if kind not in ("SNOWFLAKE_FULL", "SNOWFLAKE_SSE"):
        raise compilation_error(f"invalid value [{kind}] for parameter 'TYPE'")
    stages = session.account.stages
    try:
        stages.create(
            session,
            name,
            {
                "encryption": kind,
                "file_format": options.get("FILE_FORMAT"),
                "url": str(options.get("URL", "")),
                directory_tables.KEY: {} if directory_tables.enabled(options.get("DIRECTORY")) else None,
            },
            temporary=temporary,
            replace=replace,
            comment=str(options.get("COMMENT", "")),
        )
    except Exception:
        if if_not_exists and stages.locate(session, f"@{name}"):
            return status(f"{name.name} already exists, statement succeeded.")
        raise
    return status(f"Stage area {name.name} successfully created.")


@statement("DROP STAGE")
def drop_stage(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "STAGE")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    inner = session.temporary.get(("STAGE", name), name)
    if if_exists and session.account.catalog.find("STAGE", inner) is None:
        return status("Drop statement executed successfully (object already dropped).")
    session.account.stages.drop(session, name)
    return status(f"{name.name} successfully dropped.")


@statement("DESCRIBE STAGE", "DESC STAGE", reads_only=True)
def describe_stage(session: Session, reader: Reader) -> Result:
    reader.next()
    reader.expect("STAGE")
    name = reader.name()
    reader.done()
    inner = session.account.stages.resolve(session, name)
    stage = session.account.catalog.find("STAGE", inner)
    if stage is None:
        raise does_not_exist("Stage", str(session.resolve(name)))
    columns = ["parent_property", "property", "property_type", "property_value", "property_default"]
    return rows(
        columns,
        [
            ["STAGE_LOCATION", "URL", "String", stage.data.get("url", ""), ""],
            ["STAGE_INTEGRATION", "STORAGE_INTEGRATION", "String", "", ""],
            ["STAGE_ENCRYPTION", "TYPE", "String", stage.data["encryption"], ""],
            ["DIRECTORY", "ENABLE", "Boolean", str(_has_directory(stage)).lower(), "false"],
        ],
        DESCRIBE,
    )


def _has_directory(stage: Object) -> bool:
    return stage.data.get(directory_tables.KEY) is not None


@statement("SHOW STAGES", reads_only=True)
def show_stages(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "STAGES")
    like = reader.string() if reader.accept("LIKE") else None
    database, schema = read_scope(session, reader)
    reader.done()
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"),
        "name",
        "database_name",
        "schema_name",
        "url",
        "has_credentials",
        "has_encryption_key",
        "owner",
        "comment",
        "region",
        "type",
        "cloud",
        "notification_channel",
        "storage_integration",
        "endpoint",
        "owner_role_type",
        "directory_enabled",
    ]
    found = session.account.catalog.list("STAGE", database, schema, like)
    mine = set(session.temporary.values())
    return rows(
        columns,
        [
            {
                "created_on": s.created_on,
                "name": s.name.name.split(" ")[0],
                "database_name": s.name.database,
                "schema_name": s.name.schema,
                "url": s.data.get("url", ""),
                "has_credentials": "N",
                "has_encryption_key": "N",
                "owner": s.owner,
                "comment": s.comment,
                "type": ("EXTERNAL" if s.data.get("url") else "INTERNAL")
                + (" TEMPORARY" if s.data.get("temporary") else ""),
                "owner_role_type": "ROLE",
                "directory_enabled": "Y" if _has_directory(s) else "N",
            }
            for s in found
            if not s.data.get("temporary") or s.name in mine
        ],
    )


@statement("CREATE [OR REPLACE] [SCOPED] [TEMP|TEMPORARY] FILE FORMAT")
def create_file_format(session: Session, reader: Reader) -> Result:
    replace, temporary, if_not_exists = _creation(reader, "FILE", "FORMAT")
    name = session.resolve(reader.name())
    options = reader.options()
    reader.done()
    key = ("FILE FORMAT", name)
    inner = Qualified(name.database, name.schema, f"{name.name} {session.id}") if temporary else name
    catalog = session.account.catalog
    if not replace and catalog.find("FILE FORMAT", inner):
        if if_not_exists:
            return status(f"{name.name} already exists, statement succeeded.")
        raise already_exists(str(name))
    data = {"options": options, "temporary": temporary}
    catalog.create("FILE FORMAT", inner, session.role, data, replace=True)
    if temporary:
        session.temporary[key] = inner
    return status(f"File format {name.name} successfully created.")


@statement("DROP FILE FORMAT")
def drop_file_format(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "FILE", "FORMAT")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    inner = session.temporary.pop(("FILE FORMAT", name), name)
    if not session.account.catalog.drop("FILE FORMAT", inner) and not if_exists:
        raise does_not_exist("File format", str(name))
    return status(f"{name.name} successfully dropped.")


@statement("LIST", "LS", reads_only=True)
def list_files(session: Session, reader: Reader) -> Result:
    reader.next()
    reference = _location(reader)
    pattern = reader.options().get("PATTERN")
    reader.done()
    columns: list[str | tuple[str, str]] = ["name", ("size", "fixed"), "md5", "last_modified"]
    listed = []
    for name, f in _files(session, reference, pattern):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            stat = f.file.stat()
            listed.append([name, stat.st_size, f.md5, formatdate(stat.st_mtime, usegmt=True)])
    return rows(columns, listed, UNKNOWN)


def _files(session: Session, reference: str, pattern: str | None) -> list[tuple[str, StageFile]]:
    """The files of a location with the names that LIST gives them."""
    if reference.startswith("snow://"):
        found = models.snow_files(session, reference)
        return [(path, StageFile(path, file)) for path, file in found]
    location = session.account.stages.locate(session, reference)
    name = location.stage.name.lower()
    return [(f"{name}/{f.path}", f) for f in location.files(pattern)]


@statement("REMOVE", "RM")
def remove_files(session: Session, reader: Reader) -> Result:
    reader.next()
    reference = _location(reader)
    pattern = reader.options().get("PATTERN")
    reader.done()
    if reference.startswith("snow://"):
        raise unsupported(f"REMOVE {reference}")
    removed = []
    for name, f in _files(session, reference, pattern):
        f.file.unlink(missing_ok=True)
        removed.append([name, "removed"])
    return rows(["name", "result"], removed, UNKNOWN)


def _location(reader: Reader) -> str:
    token = reader.peek()
    if token.kind == "stage":
        reader.next()
        return token.text
    if reader.is_string():
        return reader.string()
    raise reader.unexpected()


@statement("PUT")
def put(session: Session, reader: Reader) -> Result:
    reader.expect("PUT")
    source = _file_url(reader)
    reference = _location(reader)
    options = reader.options()
    reader.done()
    location = session.account.stages.locate(session, reference)
    path = location.path + ("/" if location.path and not location.path.endswith("/") else "")
    return _transfer(
        {
            "command": "UPLOAD",
            "src_locations": [source],
            "parallel": int(options.get("PARALLEL", 4)),
            "threshold": 209715200,
            "autoCompress": str(options.get("AUTO_COMPRESS", "true")).lower() == "true",
            "overwrite": str(options.get("OVERWRITE", "false")).lower() == "true",
            "sourceCompression": str(options.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
            "encryptionMaterial": None,
            "directory": location.root / path,
        }
    )


@statement("GET")
def get(session: Session, reader: Reader) -> Result:
    reader.expect("GET")
    reference = _location(reader)
    target = _file_url(reader)
    options = reader.options()
    reader.done()
    files = [f.file for _, f in _files(session, reference, options.get("PATTERN"))]
    directory = files[0].parent if files else session.account.data_dir
    for file in files:
        while not file.is_relative_to(directory):
            directory = directory.parent
    return _transfer(
        {
            "command": "DOWNLOAD",
            "src_locations": [f.relative_to(directory).as_posix() for f in files],
            "localLocation": target,
            "parallel": int(options.get("PARALLEL", 10)),
            "threshold": 209715200,
            "encryptionMaterial": [],
            "directory": directory,
        }
    )


def _file_url(reader: Reader) -> str:
    """``file://...``, quoted or bare, as a path on the client's disk."""
    url = reader.next().text if reader.peek().kind == "file" else reader.string()
    if not url.startswith("file://"):
        raise compilation_error(f"invalid file location '{url}'")
    path = url.removeprefix("file://")
    return path if path.endswith("/") and path == "/" else posixpath.normpath(path)


def _transfer(data: dict[str, Any]) -> Result:
    empty = pa.table({"status": pa.array([], pa.string())})
    return Result(empty, [column("status", "text")], UNKNOWN, data)


@statement("SHOW FILE FORMATS", reads_only=True)
def show_file_formats(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "FILE", "FORMATS")
    like = reader.string() if reader.accept("LIKE") else None
    database, schema = read_scope(session, reader)
    reader.done()
    found = session.account.catalog.list("FILE FORMAT", database, schema, like)
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "database_name", "schema_name", "type", "owner", "comment",
    ]  # fmt: skip
    return rows(
        columns,
        [
            [f.created_on, f.name.name, f.name.database, f.name.schema,
             str(f.data["options"].get("TYPE", "CSV")).upper(), f.owner, f.comment]
            for f in found
            if not f.data.get("temporary")
        ],
        SHOW,
    )  # fmt: skip


def file_format(session: Session, given: str | dict[str, Any] | None) -> dict[str, Any]:
    """A file format's options: named, inline, or the default CSV."""
    if given is None:
        return {"TYPE": "CSV"}
    if isinstance(given, dict):
        if "FORMAT_NAME" in given:
            return file_format(session, str(given["FORMAT_NAME"]))
        return {"TYPE": "CSV", **given}
    if given in session.inline_formats:
        return session.inline_formats[given]
    name = session.resolve(parse_name(given))
    inner = session.temporary.get(("FILE FORMAT", name), name)
    found = session.account.catalog.find("FILE FORMAT", inner)
    if found is None:
        raise does_not_exist("File format", given)
    return {"TYPE": "CSV", **found.data["options"]}
