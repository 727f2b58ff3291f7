"""Image repositories, and which images were built. There are no images: see build_worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .catalog import Qualified
from .errors import compilation_error
from .grammar import Reader, parse_name, quote_if_needed
from .models import Version
from .results import Result, rows, status
from .scope import read_like, read_scope
from .statements import statement

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

_DEFAULT = "snowflake/images/snowflake_images"  # Snowflake's own, where none is named


def image_name(
    session: Session, repository: str | None, version: Version, kind: str = "model-inference"
) -> str:
    """The path of a version's image.

    :param repository: the name of an image repository, which must be there; None: the default.
    :param kind: what it runs.
    """
    path = _DEFAULT
    if repository:
        found = session.account.catalog.get("IMAGE REPOSITORY", session.resolve(parse_name(repository)))
        path = "/".join(found.name).lower()
    return f"/{path}/{kind}:{version.id}"


def is_built(account: Account, version: Version, image: str) -> bool:
    return account.catalog.find("IMAGE", Qualified("", version.id, image)) is not None


def remember(account: Account, version: Version, image: str) -> None:
    account.catalog.create("IMAGE", Qualified("", version.id, image), "", replace=True)


@statement("CREATE [OR REPLACE] IMAGE REPOSITORY")
def create_image_repository(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("IMAGE", "REPOSITORY")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = session.resolve(reader.name())
    options = reader.options()
    reader.done()
    if set(options) - {"COMMENT"}:
        raise compilation_error(
            f"invalid property '{min(set(options) - {'COMMENT'})}' for 'IMAGE_REPOSITORY'"
        )
    catalog = session.account.catalog
    if if_not_exists and catalog.find("IMAGE REPOSITORY", name):
        return status(f"{quote_if_needed(name.name)} already exists, statement succeeded.")
    catalog.create("IMAGE REPOSITORY", name, session.role, {}, options.get("COMMENT", ""), replace)
    return status(f"Image Repository {quote_if_needed(name.name)} successfully created.")


@statement("SHOW IMAGE REPOSITORIES", reads_only=True)
def show_image_repositories(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "IMAGE", "REPOSITORIES")
    like = read_like(reader)
    database, schema = read_scope(session, reader)
    reader.done()
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "database_name", "schema_name", "repository_url",
        "owner", "owner_role_type", "comment",
    ]  # fmt: skip
    found = session.account.catalog.list("IMAGE REPOSITORY", database, schema, like)
    return rows(
        columns,
        [
            {
                "created_on": o.created_on,
                "name": o.name.name,
                "database_name": o.name.database,
                "schema_name": o.name.schema,
                "repository_url": f"{session.account.host}/" + "/".join(o.name).lower(),
                "owner": o.owner,
                "owner_role_type": "ROLE",
                "comment": o.comment,
            }
            for o in found
        ],
    )


@statement("DROP IMAGE REPOSITORY")
def drop_image_repository(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "IMAGE", "REPOSITORY")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    if if_exists and session.account.catalog.find("IMAGE REPOSITORY", name) is None:
        return status(f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped).")
    session.account.catalog.get("IMAGE REPOSITORY", name)
    session.account.catalog.drop("IMAGE REPOSITORY", name)
    return status(f"{quote_if_needed(name.name)} successfully dropped.")
