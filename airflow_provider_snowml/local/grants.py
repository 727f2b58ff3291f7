"""Roles and what was granted to them.

A grant is kept under the name of what it is on, in the catalog, so that it goes when that is dropped or made
anew. Owners are not grants: each object knows its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .catalog import Catalog, Object, Qualified
from .errors import SnowflakeError, does_not_exist

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

OWNERSHIP = "OWNERSHIP"
PUBLIC = "PUBLIC"
SYSADMIN = "SYSADMIN"
# Roles that are there from the start, and what was granted to each. They may do anything here.
SYSTEM_ROLES: dict[str, tuple[str, ...]] = {
    "ACCOUNTADMIN": (SYSADMIN, "SECURITYADMIN"),
    "SECURITYADMIN": ("USERADMIN",),
    SYSADMIN: (),
    "USERADMIN": (),
    PUBLIC: (),
}

ACCOUNT = Qualified("", "", "")
START = datetime.datetime.fromtimestamp(0, datetime.UTC)  # of what was there before everything

_CREATES = (
    *(
        "FILE FORMAT",
        "IMAGE REPOSITORY",
        "MODEL",
        "MODEL MONITOR",
        "SERVICE",
        "STAGE",
        "TABLE",
        "TAG",
        "VIEW",
    ),
)
# What can be granted on what.
PRIVILEGES: dict[str, tuple[str, ...]] = {
    "ACCOUNT": (
        *("APPLY TAG", "BIND SERVICE ENDPOINT", "CREATE COMPUTE POOL", "CREATE DATABASE", "CREATE ROLE"),
        *("CREATE WAREHOUSE", "MANAGE GRANTS"),
    ),
    "DATABASE": ("USAGE", "MONITOR", "MODIFY", "CREATE SCHEMA"),
    "SCHEMA": ("USAGE", "MONITOR", "MODIFY", *(f"CREATE {kind}" for kind in _CREATES)),
    "WAREHOUSE": ("USAGE", "MONITOR", "MODIFY", "OPERATE"),
    "COMPUTE POOL": ("USAGE", "MONITOR", "MODIFY", "OPERATE"),
    "TABLE": ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES"),
    "VIEW": ("SELECT", "REFERENCES"),
    "STAGE": ("READ", "WRITE"),
    "FILE FORMAT": ("USAGE",),
    "MODEL": ("USAGE", "READ"),
    "MODEL MONITOR": ("SELECT", "MONITOR", "OPERATE"),
    "SERVICE": ("MONITOR", "OPERATE"),
    "IMAGE REPOSITORY": ("READ", "WRITE"),
    "TAG": ("APPLY", "READ"),
}
ACCOUNT_LEVEL = ("DATABASE", "WAREHOUSE", "COMPUTE POOL")
_TABLES = ("TABLE", "VIEW")


@dataclass
class Grant:
    """A privilege on something, and who has it from whom."""

    privilege: str
    role: str
    granted_by: str
    created_on: str
    grant_option: bool = False

    @property
    def time(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.created_on)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


# -- what is there, and whose it is ---------------------------------------------------------------------


def exists(account: Account, kind: str, name: Qualified) -> bool:
    engine = account.engine
    if kind == "ACCOUNT":
        return True
    if kind == "DATABASE":
        return name.database in engine.databases()
    if kind == "SCHEMA":
        return name.database in engine.databases() and engine.has_schema(name.database, name.schema)
    if kind in _TABLES:
        return (name, kind) in engine.tables(name.database, name.schema)
    return account.catalog.find(kind, name) is not None


def owner(account: Account, kind: str, name: Qualified) -> str:
    """Whose it is; SYSADMIN's if that was not noted."""
    if kind in _TABLES:
        noted = [g.role for g in on(account.catalog, kind, name) if g.privilege == OWNERSHIP]
        return noted[0] if noted else SYSADMIN
    found = account.catalog.find(kind, name)
    return found.owner if found else SYSADMIN


def owned(account: Account, role: str) -> Iterator[tuple[str, Qualified, datetime.datetime]]:
    """What a role owns, and since when it is there: kinds and names."""
    for kind in PRIVILEGES:
        if kind in _TABLES or kind == "ACCOUNT":
            continue
        for found in account.catalog.list(kind):
            if found.owner == role and not found.data.get("temporary"):
                yield kind, found.name, found.created_on
    if role == SYSADMIN:
        for database in account.engine.databases():
            names = [("DATABASE", Qualified(database, "", ""))]
            names += [
                ("SCHEMA", Qualified(database, schema, "")) for schema in account.engine.schemas(database)
            ]
            for kind, name in names:
                if account.catalog.find(kind, name) is None:
                    yield kind, name, START
    for name, kind in account.engine.tables():
        if owner(account, kind, name) == role:
            yield kind, name, START


# -- grants ---------------------------------------------------------------------------------------------


def _key(kind: str) -> str:
    return f"GRANTS ON {kind}"


def on(catalog: Catalog, kind: str, name: Qualified) -> list[Grant]:
    """The grants on something; those on an earlier one of its name do not count."""
    found = catalog.find(_key(kind), name)
    return _valid(catalog, kind, found) if found else []


def _valid(catalog: Catalog, kind: str, found: Object) -> list[Grant]:
    thing = catalog.find(kind, found.name)
    grants = [Grant(**values) for values in found.data["grants"]]
    return [grant for grant in grants if thing is None or grant.time >= thing.created_on]


def to(account: Account, role: str) -> list[tuple[str, Qualified, Grant]]:
    """What was granted to a role, with what is gone left out."""
    return [
        (kind, found.name, grant)
        for kind in PRIVILEGES
        for found in account.catalog.list(_key(kind))
        if exists(account, kind, found.name)
        for grant in _valid(account.catalog, kind, found)
        if grant.role == role and grant.privilege != OWNERSHIP
    ]


def write(catalog: Catalog, kind: str, name: Qualified, grants: list[Grant]) -> None:
    catalog.create(_key(kind), name, "", {"grants": [asdict(grant) for grant in grants]}, replace=True)


def forget(catalog: Catalog, kind: str, name: Qualified) -> None:
    catalog.drop(_key(kind), name)


def note_owner(catalog: Catalog, kind: str, name: Qualified, role: str, *, keep: bool = False) -> None:
    """Whose a table or view is, which the engine does not know. Others lose theirs, unless it is kept."""
    others = [g for g in on(catalog, kind, name) if g.privilege != OWNERSHIP] if keep else []
    write(catalog, kind, name, [Grant(OWNERSHIP, role, role, now(), True), *others])


def table_changed(session: Session, kind: str, name: Qualified, *, made: bool) -> None:
    """A table or view was made by a session, or dropped."""
    if made and not may_all(session.account, session.role):
        note_owner(session.account.catalog, kind, name, session.role)
    else:
        forget(session.account.catalog, kind, name)


# -- roles ----------------------------------------------------------------------------------------------


def role_object(account: Account, name: str) -> Object | None:
    return account.catalog.find("ROLE", Qualified("", "", name))


def require_role(account: Account, name: str) -> None:
    if name not in SYSTEM_ROLES and role_object(account, name) is None:
        raise does_not_exist("Role", name)


def may_all(account: Account, role: str) -> bool:
    """Whether nothing is refused to a role: those that nobody made with CREATE ROLE are of the system."""
    return role in SYSTEM_ROLES or role_object(account, role) is None


def members(account: Account, role: str) -> list[dict[str, Any]]:
    """Whom a role was granted to, as ``{"kind": "ROLE" | "USER", "name", "granted_by", "created_on"}``."""
    found = role_object(account, role)
    return list(found.data.get("members", ())) if found else []


def roles_of(account: Account, kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """The roles that were granted to a role or a user."""
    found = [
        (role.name.name, member)
        for role in account.catalog.list("ROLE")
        for member in role.data.get("members", ())
        if (member["kind"], member["name"]) == (kind, name)
    ]
    if kind == "ROLE":
        start = {"granted_by": "", "created_on": START.isoformat()}
        found += [(role, start) for role in SYSTEM_ROLES.get(name, ())]
    return found


def active_roles(session: Session, *, primary_only: bool = False) -> set[str]:
    """The roles whose privileges a session has."""
    waiting = [session.role, PUBLIC]
    if session.secondary_roles and not primary_only:
        waiting += [role for role, _ in roles_of(session.account, "USER", session.user)]
    active: set[str] = set()
    while waiting:
        role = waiting.pop()
        if role not in active:
            active.add(role)
            waiting += [inner for inner, _ in roles_of(session.account, "ROLE", role)]
    return active


def require(session: Session, privilege: str, kind: str, name: Qualified) -> None:
    """Refuse what none of the session's roles may do."""
    account = session.account
    active = active_roles(session, primary_only=privilege.startswith("CREATE "))
    if any(may_all(account, role) for role in active - {PUBLIC}) or owner(account, kind, name) in active:
        return
    if not any(g.role in active and g.privilege == privilege for g in on(account.catalog, kind, name)):
        label = name.name or name.schema or name.database
        raise SnowflakeError(
            3001,
            "42501",
            f"SQL access control error:\nInsufficient privileges to operate on {kind.lower()} '{label}'.",
        )
