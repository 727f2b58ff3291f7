"""Tags: CREATE, SHOW, DROP, and what is tagged with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import models
from .errors import invalid_value
from .functions import system_function, table_function
from .grammar import Reader, parse_name, quote_if_needed
from .results import Result, rows, status
from .scope import read_like, read_scope
from .statements import statement

if TYPE_CHECKING:
    from .session import Session


@statement("CREATE [OR REPLACE] TAG")
def create_tag(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("TAG")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = session.resolve(reader.name())
    allowed: list[str] = []
    if reader.accept("ALLOWED_VALUES"):
        allowed.append(reader.string())
        while reader.accept_symbol(","):
            allowed.append(reader.string())
    comment = ""
    if reader.accept("COMMENT"):
        reader.accept_symbol("=")
        comment = reader.string()
    reader.done()
    if if_not_exists and session.account.catalog.find("TAG", name):
        return status(f"{quote_if_needed(name.name)} already exists, statement succeeded.")
    session.account.catalog.create(
        "TAG", name, session.role, {"allowed_values": allowed or None}, comment, replace=replace
    )
    return status(f"Tag {quote_if_needed(name.name)} successfully created.")


@statement("SHOW TAGS", reads_only=True)
def show_tags(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "TAGS")
    like = read_like(reader)
    database, schema = read_scope(session, reader)
    reader.done()
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "database_name", "schema_name", "owner",
        "comment", "allowed_values",
    ]  # fmt: skip
    return rows(
        columns,
        [
            [
                t.created_on,
                t.name.name,
                t.name.database,
                t.name.schema,
                t.owner,
                t.comment,
                json.dumps(t.data["allowed_values"]) if t.data.get("allowed_values") else None,
            ]
            for t in session.account.catalog.list("TAG", database, schema, like)
        ],
    )


@statement("DROP TAG")
def drop_tag(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "TAG")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    if not (if_exists and session.account.catalog.find("TAG", name) is None):
        session.account.catalog.get("TAG", name)
        session.account.catalog.drop("TAG", name)
    return status(f"{quote_if_needed(name.name)} successfully dropped.")


@system_function("SYSTEM$GET_TAG")
def get_tag(session: Session, tag: str, object_name: str, domain: str) -> str | None:
    _only_models(domain)
    wanted = session.account.catalog.get("TAG", session.resolve(parse_name(tag)))
    model = models.get(session, session.resolve(parse_name(object_name)))
    return model.tags.get(str(wanted.name))


@table_function("INFORMATION_SCHEMA.TAG_REFERENCES")
def tag_references(session: Session, object_name: str, domain: str) -> Result:
    _only_models(domain)
    model = models.get(session, session.resolve(parse_name(object_name)))
    columns = [
        "TAG_DATABASE", "TAG_SCHEMA", "TAG_NAME", "TAG_VALUE", "LEVEL", "OBJECT_DATABASE",
        "OBJECT_SCHEMA", "OBJECT_NAME", "DOMAIN", "COLUMN_NAME",
    ]  # fmt: skip
    found = []
    for tag, value in model.tags.items():
        name = parse_name(tag)
        if session.account.catalog.find("TAG", session.resolve(name)):
            found.append([*name, value, "MODULE", *model.name, "MODULE", None])
    return rows(columns, found)


def _only_models(domain: str) -> None:
    if domain.upper() not in ("MODULE", "MODEL"):
        raise invalid_value(f"invalid domain '{domain}': the local Snowflake keeps tags of models only.")
