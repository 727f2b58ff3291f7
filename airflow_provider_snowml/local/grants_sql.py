"""Statements about roles and privileges: CREATE ROLE, GRANT, REVOKE, SHOW GRANTS."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import grants
from .catalog import Qualified
from .errors import SnowflakeError, already_exists, compilation_error, does_not_exist, unsupported
from .grammar import Reader, quote_if_needed
from .grants import OWNERSHIP, PRIVILEGES, START, SYSTEM_ROLES, Grant
from .results import Result, rows, status
from .scope import read_like
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

_DONE = "Statement executed successfully."
_COLUMNS: list[str | tuple[str, str]] = [
    ("created_on", "timestamp_ltz"), "privilege", "granted_on", "name", "granted_to", "grantee_name",
    "grant_option", "granted_by",
]  # fmt: skip
_PLURALS = {"TABLES": "TABLE", "VIEWS": "VIEW", "MODELS": "MODEL", "STAGES": "STAGE"}


# -- roles ----------------------------------------------------------------------------------------------


@statement("CREATE [OR REPLACE] ROLE")
def create_role(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("ROLE")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    name = reader.identifier()
    options = reader.options()
    reader.done()
    if set(options) - {"COMMENT"}:
        raise unsupported(f"CREATE ROLE ... {next(iter(set(options) - {'COMMENT'}))}")
    there = name in SYSTEM_ROLES or grants.role_object(session.account, name) is not None
    if there and if_not_exists:
        return status(f"{quote_if_needed(name)} already exists, statement succeeded.")
    if name in SYSTEM_ROLES or (there and not replace):
        raise already_exists(quote_if_needed(name))
    session.account.catalog.create(
        "ROLE", Qualified("", "", name), session.role, {}, str(options.get("COMMENT", "")), replace=True
    )
    return status(f"Role {quote_if_needed(name)} successfully created.")


@statement("DROP ROLE")
def drop_role(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "ROLE")
    if_exists = reader.accept("IF", "EXISTS")
    name = reader.identifier()
    reader.done()
    account = session.account
    if name in SYSTEM_ROLES:
        raise compilation_error(f"the system role {name} cannot be dropped.")
    if grants.role_object(account, name) is None:
        if if_exists:
            return status(f"Drop statement executed successfully ({quote_if_needed(name)} already dropped).")
        raise does_not_exist("Role", name)
    # What it owned goes to the role that drops it, and what it was granted goes with it.
    for kind, thing, _ in list(grants.owned(account, name)):
        _set_owner(session, kind, thing, session.role, keep=True)
    for kind, thing, _ in grants.to(account, name):
        kept = [grant for grant in grants.on(account.catalog, kind, thing) if grant.role != name]
        grants.write(account.catalog, kind, thing, kept)
    for role, _ in grants.roles_of(account, "ROLE", name):
        _set_member(session, role, "ROLE", name, member=False)
    account.catalog.drop("ROLE", Qualified("", "", name))
    return status(f"{quote_if_needed(name)} successfully dropped.")


@statement("SHOW ROLES", reads_only=True)
def show_roles(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "ROLES")
    like = read_like(reader)
    reader.done()
    account = session.account
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "name", "is_default", "is_current", "is_inherited",
        ("assigned_to_users", "fixed"), ("granted_to_roles", "fixed"), ("granted_roles", "fixed"), "owner",
        "comment",
    ]  # fmt: skip
    made = {o.name.name: (o.created_on, o.owner, o.comment) for o in account.catalog.list("ROLE", like=like)}
    if like is None:
        made |= dict.fromkeys(SYSTEM_ROLES, (START, "", ""))
    active = grants.active_roles(session)
    found = []
    for name, (created_on, owner, comment) in sorted(made.items()):
        kinds = [member["kind"] for member in grants.members(account, name)]
        found.append(
            [
                created_on, name, "N", "Y" if name == session.role else "N", "Y" if name in active else "N",
                kinds.count("USER"), kinds.count("ROLE"), len(grants.roles_of(account, "ROLE", name)), owner,
                comment,
            ]
        )  # fmt: skip
    return rows(columns, found)


# -- GRANT and REVOKE -----------------------------------------------------------------------------------


@statement("GRANT ROLE", "REVOKE ROLE")
def grant_role(session: Session, reader: Reader) -> Result:
    gives = reader.next().text.upper() == "GRANT"
    reader.expect("ROLE")
    role = reader.identifier()
    reader.expect("TO" if gives else "FROM")
    kind = reader.accept_any("ROLE", "USER")
    if kind is None:
        raise reader.unexpected()
    name = reader.identifier()
    reader.done()
    account = session.account
    grants.require_role(account, role)
    if kind == "ROLE":
        grants.require_role(account, name)
        within = [role]
        while within:  # a circle would give both the same privileges
            inner = within.pop()
            if inner == name:
                raise SnowflakeError(3056, "42501", "SQL access control error:\nGranting would be circular.")
            within += [found for found, _ in grants.roles_of(account, "ROLE", inner)] if gives else []
    _set_member(session, role, kind, name, member=gives)
    return status(_DONE)


def _set_member(session: Session, role: str, kind: str, name: str, *, member: bool) -> None:
    others = [
        found
        for found in grants.members(session.account, role)
        if (found["kind"], found["name"]) != (kind, name)
    ]
    if member:
        others.append({"kind": kind, "name": name, "granted_by": session.role, "created_on": grants.now()})
    catalog, key = session.account.catalog, Qualified("", "", role)
    if catalog.find("ROLE", key) is None:  # one of the system's
        catalog.create("ROLE", key, "")
    with catalog.change("ROLE", key) as found:
        found.data["members"] = others


@statement("GRANT OWNERSHIP ON")
def grant_ownership(session: Session, reader: Reader) -> Result:
    reader.expect("GRANT", "OWNERSHIP", "ON")
    things = _things(session, reader)
    role = _to_role(session, reader, "TO")
    keep = not reader.accept("REVOKE", "CURRENT", "GRANTS") and reader.accept("COPY", "CURRENT", "GRANTS")
    reader.done()
    for kind, name in things:
        others = [g for g in grants.on(session.account.catalog, kind, name) if g.privilege != OWNERSHIP]
        if others and not keep:
            raise SnowflakeError(
                3036,
                "42501",
                "SQL access control error:\nDependent grant of privileges exists. It must be revoked first: "
                "REVOKE CURRENT GRANTS, or COPY CURRENT GRANTS.",
            )
        _set_owner(session, kind, name, role, keep=keep)
    return status(_DONE)


def _set_owner(session: Session, kind: str, name: Qualified, role: str, *, keep: bool) -> None:
    catalog = session.account.catalog
    if kind in ("TABLE", "VIEW"):
        grants.note_owner(catalog, kind, name, role, keep=keep)
        return
    is_noted = catalog.find(kind, name) is not None
    if not is_noted:  # a database or schema that was there from the start
        catalog.create(kind, name, role)
    with catalog.change(kind, name) as thing:
        thing.owner = role
        if not is_noted:
            thing.created_on = START


@statement("GRANT", "REVOKE")
def grant_privileges(session: Session, reader: Reader) -> Result:
    gives = reader.next().text.upper() == "GRANT"
    if not gives and reader.accept("GRANT", "OPTION", "FOR"):
        raise unsupported("REVOKE GRANT OPTION FOR")
    privileges = list(_privileges(reader))
    things = _things(session, reader)
    role = _to_role(session, reader, "TO" if gives else "FROM")
    option = gives and reader.accept("WITH", "GRANT", "OPTION")
    if not gives:
        reader.accept_any("CASCADE", "RESTRICT")
    reader.done()
    catalog = session.account.catalog
    for kind, name in things:
        wanted = PRIVILEGES[kind] if privileges in (["ALL"], ["ALL PRIVILEGES"]) else privileges
        for privilege in wanted:
            if privilege not in PRIVILEGES[kind]:
                raise SnowflakeError(
                    3008,
                    "42501",
                    f"SQL access control error:\nInvalid privilege {privilege} for {kind.lower()}.",
                )
        kept = [g for g in grants.on(catalog, kind, name) if g.role != role or g.privilege not in wanted]
        new = [Grant(p, role, session.role, grants.now(), option) for p in wanted] if gives else []
        grants.write(catalog, kind, name, [*kept, *new])
    return status(_DONE)


def _privileges(reader: Reader) -> Iterator[str]:
    words: list[str] = []
    while not reader.accept("ON"):
        if reader.at_end():
            raise reader.unexpected()
        if reader.accept_symbol(","):
            yield " ".join(words)
            words = []
        else:
            words.append(reader.next().text.upper())
    yield " ".join(words)


def _things(session: Session, reader: Reader) -> list[tuple[str, Qualified]]:
    """What follows ON: one thing, or all of a kind in a schema or database."""
    if reader.is_word("FUTURE"):
        raise unsupported("GRANT ... ON FUTURE")
    if reader.accept("ALL"):
        plural = reader.accept_any(*_PLURALS)
        if plural is None:
            raise unsupported(f"GRANT ... ON ALL {reader.peek().text}")
        reader.expect("IN")
        where = _thing(session, reader)
        kind = _PLURALS[plural]
        return [(kind, name) for name in _all(session, kind, where[1])]
    return [_thing(session, reader)]


def _all(session: Session, kind: str, within: Qualified) -> list[Qualified]:
    database, schema = within.database, within.schema or None
    if kind in ("TABLE", "VIEW"):
        return [name for name, found in session.account.engine.tables(database, schema) if found == kind]
    return [found.name for found in session.account.catalog.list(kind, database, schema)]


def _thing(session: Session, reader: Reader) -> tuple[str, Qualified]:
    kind = next((k for k in sorted(PRIVILEGES, key=len, reverse=True) if reader.accept(*k.split())), None)
    if kind is None:
        raise unsupported(f"privileges on {reader.peek().text}")
    if kind == "ACCOUNT":
        return kind, grants.ACCOUNT
    named = reader.name()
    if kind == "DATABASE":
        name = Qualified(named.name, "", "")
    elif kind == "SCHEMA":
        name = Qualified(named.schema or session.database or "", named.name, "")
    elif kind in grants.ACCOUNT_LEVEL:
        name = Qualified("", "", named.name)
    else:
        name = session.resolve(named)
    if not grants.exists(session.account, kind, name):
        raise does_not_exist(kind.capitalize(), str(name))
    return kind, name


def _to_role(session: Session, reader: Reader, word: str) -> str:
    reader.expect(word)
    if reader.is_word("USER") or reader.is_word("SHARE") or reader.is_word("DATABASE"):
        raise unsupported(f"GRANT ... {word} {reader.peek().text.upper()}")
    reader.accept("ROLE")
    role = reader.identifier()
    grants.require_role(session.account, role)
    return role


# -- SHOW GRANTS ----------------------------------------------------------------------------------------


@statement("SHOW GRANTS", reads_only=True)
def show_grants(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "GRANTS")
    if reader.at_end():
        return _of_user(session, session.user)
    if reader.accept("TO", "USER"):
        user = reader.identifier()
        reader.done()
        return _of_user(session, user)
    if reader.accept("TO", "ROLE"):
        role = reader.identifier()
        reader.done()
        grants.require_role(session.account, role)
        return rows(_COLUMNS, _to(session, role))
    if reader.accept("OF", "ROLE"):
        role = reader.identifier()
        reader.done()
        grants.require_role(session.account, role)
        return rows(
            [("created_on", "timestamp_ltz"), "role", "granted_to", "grantee_name", "granted_by"],
            [
                [_time(member), role, member["kind"], member["name"], member["granted_by"]]
                for member in grants.members(session.account, role)
            ],
        )
    if reader.accept("ON"):
        kind, name = _thing(session, reader)
        reader.done()
        return rows(_COLUMNS, _on(session, kind, name))
    raise unsupported(f"SHOW GRANTS {reader.rest()}")


def _to(session: Session, role: str) -> Iterator[list[Any]]:
    account = session.account
    for kind, name, since in grants.owned(account, role):
        yield [since, OWNERSHIP, _underscored(kind), _shown(name), "ROLE", role, True, role]
    for kind, name, grant in grants.to(account, role):
        yield _row(kind, name, grant)
    for inner, member in grants.roles_of(account, "ROLE", role):
        by = member["granted_by"]
        yield [_time(member), "USAGE", "ROLE", quote_if_needed(inner), "ROLE", role, False, by]


def _on(session: Session, kind: str, name: Qualified) -> Iterator[list[Any]]:
    account = session.account
    found = account.catalog.find(kind, name)
    if kind != "ACCOUNT":
        owner = grants.owner(account, kind, name)
        since = found.created_on if found else START
        yield [since, OWNERSHIP, _underscored(kind), _shown(name), "ROLE", owner, True, owner]
    for grant in grants.on(account.catalog, kind, name):
        if grant.privilege != OWNERSHIP:
            yield _row(kind, name, grant)


def _row(kind: str, name: Qualified, grant: Grant) -> list[Any]:
    return [
        grant.time, grant.privilege, _underscored(kind), _shown(name), "ROLE", grant.role, grant.grant_option,
        grant.granted_by,
    ]  # fmt: skip


def _shown(name: Qualified) -> str:
    return str(name) or "LOCAL"


def _underscored(kind: str) -> str:
    return kind.replace(" ", "_")


def _time(member: dict[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(member["created_on"])


def _of_user(session: Session, user: str) -> Result:
    columns: list[str | tuple[str, str]] = [
        ("created_on", "timestamp_ltz"), "privilege", "granted_on", "name", "role", "granted_to",
        "grantee_name", "grant_option", "granted_by",
    ]  # fmt: skip
    return rows(
        columns,
        [
            [_time(m), "USAGE", "ROLE", role, role, "USER", user, False, m["granted_by"]]
            for role, m in grants.roles_of(session.account, "USER", user)
        ],
    )
