"""Statements about models: CREATE, ALTER, DROP, SHOW."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import models, processes, services
from .catalog import Qualified
from .errors import SnowflakeError, compilation_error, invalid_value
from .functions import system_function
from .grammar import Reader, like_to_regex, quote_if_needed
from .models import Model, Version
from .results import DESCRIBE, Result, rows, status
from .scope import read_like, read_scope
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

_DONE = "Statement executed successfully."


@statement("CREATE [OR REPLACE] MODEL")
def create_model(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("MODEL")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = session.resolve(reader.name())
    reader.accept("WITH")
    model_id = uuid.uuid4().hex
    existing = session.account.catalog.find("MODEL", name)
    if existing is not None and if_not_exists:
        return status(f"{quote_if_needed(name.name)} already exists, statement succeeded.")
    if existing is None or replace:
        version = _read_new_version(session, reader, model_id)
        data = Model(name, session.role, version.created, "", model_id, version.name, [version]).data()
    else:
        data = {}  # refused by the catalog
    try:
        session.account.catalog.create("MODEL", name, session.role, data, replace=replace)
    except SnowflakeError:
        shutil.rmtree(session.account.data_dir / "models" / model_id, ignore_errors=True)
        raise
    if existing is not None:
        models.forget(session.account, models.from_object(existing))
    processes.prepare()  # a model that was just registered is soon called
    return status(f"Model {quote_if_needed(name.name)} successfully created.")


def _read_new_version(session: Session, reader: Reader, model_id: str) -> Version:
    """``VERSION v FROM @stage`` or ``VERSION v FROM MODEL m [VERSION v]``; copies the files."""
    reader.expect("VERSION")
    name = reader.identifier()
    if name in models.SYSTEM_ALIASES:
        raise invalid_value(f"invalid version name '{name}': it is a system alias.")
    reader.expect("FROM")
    if reader.accept("MODEL"):
        source = models.get(session, session.resolve(reader.name()))
        wanted = reader.identifier() if reader.accept("VERSION") else None
        reader.done()
        return models.version_from_model(session, model_id, name, source, source.version(wanted))
    location = reader.next().text
    if not location.startswith("@"):
        reader.position -= 1
        raise reader.unexpected()
    reader.done()
    return models.version_from_stage(session, model_id, name, location)


@contextmanager
def _changing(session: Session, name: Qualified) -> Iterator[Model]:
    """The model to change in place; written back when the block ends without an error."""
    models.get(session, name)
    with session.account.catalog.change("MODEL", name) as found:
        model = models.from_object(found)
        yield model
        found.data, found.comment, found.name = model.data(), model.comment, model.name


@statement("ALTER MODEL")
def alter_model(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "MODEL")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    if if_exists and session.account.catalog.find("MODEL", name) is None:
        return status(_DONE)
    with _changing(session, name) as model:
        _alter(session, reader, model)
    return status(_DONE)


def _alter(session: Session, reader: Reader, model: Model) -> None:
    if reader.accept("RENAME", "TO"):
        model.name = session.resolve(reader.name())
        reader.done()
    elif reader.accept("ADD"):
        _add_version(session, reader, model)
    elif reader.accept("DROP", "VERSION"):
        _drop_version(session, reader, model)
    elif reader.accept("MODIFY", "VERSION"):
        version = model.version(reader.identifier())
        reader.expect("SET")
        options = _options(reader, "COMMENT", "METADATA")
        if "METADATA" in options:
            version.metadata = _json_object(options["METADATA"])
        version.comment = options.get("COMMENT", version.comment)
    elif reader.accept("VERSION"):
        _alias(reader, model)
    elif reader.accept("SET", "TAG"):
        _set_tags(session, reader, model)
    elif reader.accept("UNSET", "TAG"):
        _unset_tags(session, reader, model)
    elif reader.accept("UNSET", "COMMENT"):
        reader.done()
        model.comment = ""
    elif reader.accept("SET"):
        _set(reader, model)
    else:
        raise reader.unexpected()


def _add_version(session: Session, reader: Reader, model: Model) -> None:
    if reader.is_word("VERSION") and model.find(_peek_identifier(reader)):
        version = _peek_identifier(reader)
        raise SnowflakeError(
            100132,
            "P0000",
            f"Version {quote_if_needed(version)} already exists in model {model.name}.",
        )
    model.versions.append(_read_new_version(session, reader, model.id))


def _peek_identifier(reader: Reader) -> str:
    start = reader.position
    reader.next()
    name = reader.identifier()
    reader.position = start
    return name


def _drop_version(session: Session, reader: Reader, model: Model) -> None:
    version = model.version(reader.identifier())
    reader.done()
    if version.name == model.default:
        raise compilation_error(
            f"Cannot drop version {quote_if_needed(version.name)} of model {model.name}: it is the"
            " default version. Set another default version first, or drop the model."
        )
    model.versions.remove(version)
    models.forget(session.account, model, version)


def _alias(reader: Reader, model: Model) -> None:
    version = model.version(reader.identifier())
    if reader.accept("UNSET", "ALIAS"):
        reader.done()
        version.alias = None
        return
    reader.expect("SET", "ALIAS")
    reader.accept_symbol("=")
    alias = reader.string().upper() if reader.is_string() else reader.identifier()
    reader.done()
    if alias in models.SYSTEM_ALIASES:
        raise invalid_value(f"invalid alias '{alias}': it is a system alias.")
    holder = model.find(alias)
    if holder is not None and holder is not version:
        raise SnowflakeError(
            2002,
            "42710",
            f"SQL compilation error:\nAlias '{alias}' already exists in model {model.name},"
            f" on version {quote_if_needed(holder.name)}.",
        )
    version.alias = alias


def _set(reader: Reader, model: Model) -> None:
    options: dict[str, str] = {}
    while not reader.at_end():
        key = reader.next().text.upper()
        reader.accept_symbol("=")
        if key == "COMMENT":
            options[key] = reader.string()
        elif key == "DEFAULT_VERSION":
            options[key] = reader.string().upper() if reader.is_string() else reader.identifier()
        else:
            reader.position -= 1
            raise reader.unexpected()
    if "DEFAULT_VERSION" in options:
        model.default = model.version(options["DEFAULT_VERSION"]).name
    model.comment = options.get("COMMENT", model.comment)


def _set_tags(session: Session, reader: Reader, model: Model) -> None:
    while True:
        tag = session.account.catalog.get("TAG", session.resolve(reader.name()))
        reader.expect_symbol("=")
        value = reader.string()
        allowed = tag.data.get("allowed_values")
        if allowed and value not in allowed:
            raise invalid_value(f"invalid value '{value}' for tag '{tag.name}': allowed are {allowed}.")
        if len(value) > 256:
            raise invalid_value(f"value of tag '{tag.name}' is longer than 256 characters.")
        model.tags[str(tag.name)] = value
        if not reader.accept_symbol(","):
            break
    reader.done()


def _unset_tags(session: Session, reader: Reader, model: Model) -> None:
    while True:
        tag = session.account.catalog.get("TAG", session.resolve(reader.name()))
        model.tags.pop(str(tag.name), None)
        if not reader.accept_symbol(","):
            break
    reader.done()


def _options(reader: Reader, *known: str) -> dict[str, Any]:
    options = reader.options()
    reader.done()
    for key in options:
        if key not in known:
            raise compilation_error(f"invalid property '{key}'; expected one of {', '.join(known)}.")
    if not options:
        raise compilation_error(f"syntax error: expected one of {', '.join(known)}.")
    return options


def _json_object(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError as e:
        raise invalid_value(f"METADATA is not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise invalid_value("METADATA is not a JSON object.")
    return text


@statement("COMMENT [IF EXISTS] ON MODEL")
def comment_on_model(session: Session, reader: Reader) -> Result:
    reader.expect("COMMENT")
    if_exists = reader.accept("IF", "EXISTS")
    reader.expect("ON", "MODEL")
    name = session.resolve(reader.name())
    reader.expect("IS")
    comment = reader.string()
    reader.done()
    if not (if_exists and session.account.catalog.find("MODEL", name) is None):
        with _changing(session, name) as model:
            model.comment = comment
    return status(_DONE)


@statement("DROP MODEL")
def drop_model(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "MODEL")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    if if_exists and session.account.catalog.find("MODEL", name) is None:
        return status(f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped).")
    model = models.get(session, name)
    session.account.catalog.drop("MODEL", name)
    models.forget(session.account, model)
    return status(f"{quote_if_needed(name.name)} successfully dropped.")


@statement("SHOW MODELS", reads_only=True)
def show_models(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "MODELS")
    like = read_like(reader)
    database, schema = read_scope(session, reader)
    reader.done()
    found = session.account.catalog.list("MODEL", database, schema, like)
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "model_type", "database_name", "schema_name",
        "comment", "owner", "default_version_name", "versions", "aliases",
    ]  # fmt: skip
    return rows(columns, [_model_row(models.from_object(o)) for o in found])


def _model_row(model: Model) -> dict[str, Any]:
    return {
        "created_on": model.created_on,
        "name": model.name.name,
        "model_type": model.model_type,
        "database_name": model.name.database,
        "schema_name": model.name.schema,
        "comment": model.comment,
        "owner": model.owner,
        "default_version_name": model.default,
        "versions": json.dumps([v.name for v in model.versions]),
        "aliases": json.dumps({a: v.name for v in model.versions for a in model.aliases(v)}),
    }


@statement("SHOW VERSIONS", reads_only=True)
def show_versions(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "VERSIONS")
    like = read_like(reader)
    reader.expect("IN", "MODEL")
    model = models.get(session, session.resolve(reader.name()))
    reader.done()
    matches = like_to_regex(like) if like is not None else None
    found = [v for v in model.versions if matches is None or matches.fullmatch(v.name)]
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "aliases", "comment", "database_name",
        "schema_name", "model_name", "is_default_version", "functions", "metadata", "user_data",
        "model_attributes", "runnable_in", "inference_services", "model_spec",
    ]  # fmt: skip
    return rows(columns, [_version_row(session, model, v) for v in found])


def _version_row(session: Session, model: Model, version: Version) -> dict[str, Any]:
    spec = models.spec_text(session, model, version)
    return {
        "created_on": version.created,
        "name": version.name,
        "aliases": json.dumps(model.aliases(version)),
        "comment": version.comment,
        "database_name": model.name.database,
        "schema_name": model.name.schema,
        "model_name": model.name.name,
        "is_default_version": version.name == model.default,
        "functions": models.function_list(version),
        "metadata": version.metadata,
        "user_data": json.dumps(version.user_data),
        "model_attributes": json.dumps(models.attributes(spec)),
        "runnable_in": json.dumps(version.runnable_in),
        "inference_services": json.dumps(
            [str(s.name) for s in services.of_version(session.account, version.id)]
        ),
        "model_spec": spec,
    }


@statement("SHOW FUNCTIONS IN MODEL", reads_only=True)
def show_functions(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "FUNCTIONS", "IN", "MODEL")
    model = models.get(session, session.resolve(reader.name()))
    version = model.version(reader.identifier() if reader.accept("VERSION") else None)
    reader.done()
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "database_name", "schema_name", "model_name",
        "model_version_name", ("min_num_arguments", "fixed"), ("max_num_arguments", "fixed"),
        "arguments", "return_type", "language",
    ]  # fmt: skip
    return rows(
        columns,
        [
            [
                version.created,
                m.name,
                model.name.database,
                model.name.schema,
                model.name.name,
                version.name,
                len(m.inputs),
                len(m.inputs),
                f"{m.name}({', '.join(t for _, t in m.inputs)}) RETURN {m.return_type}",
                m.return_type,
                "PYTHON",
            ]
            for m in version.methods
        ],
    )


@system_function("SYSTEM$ML_PLATFORM_CAPABILITIES")
def ml_platform_capabilities(session: Session) -> str:
    return json.dumps(
        {
            "SET_MODULE_FUNCTIONS_VOLATILITY_FROM_MANIFEST": True,
            "ENABLE_INLINE_DEPLOYMENT_SPEC_FROM_CLIENT_VERSION": "1.8.0",
        }
    )


@statement("DESC ARTIFACT REPOSITORY", "DESCRIBE ARTIFACT REPOSITORY", reads_only=True)
def describe_artifact_repository(session: Session, reader: Reader) -> Result:
    reader.next()
    reader.expect("ARTIFACT", "REPOSITORY")
    name = reader.name()
    reader.done()
    if str(name).upper() != "SNOWFLAKE.SNOWPARK.PYPI_SHARED_REPOSITORY":
        raise compilation_error(f"Artifact repository '{name}' does not exist or not authorized.")
    return rows(["property", "value"], [["NAME", str(name)], ["TYPE", "PYPI"]], DESCRIBE)
