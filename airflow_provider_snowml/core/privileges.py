"""Privileges: what is needed on an object, what a role has, and the GRANT that gives the rest.

See https://docs.snowflake.com/en/user-guide/security-access-control-privileges.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName

OWNERSHIP = "OWNERSHIP"

# To be in one of these is to have far more than a model.
SYSTEM_ROLES = ("ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN", "SYSADMIN", "USERADMIN")

# These share their names in a schema: what is called a table may be any of them.
TABLES = (
    "TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "DYNAMIC TABLE",
    "EXTERNAL TABLE",
    "ICEBERG TABLE",
    "HYBRID TABLE",
    "EVENT TABLE",
)

#: The name of what a privilege is on; ``None`` for the account.
ObjectName = Identifier | SchemaName | QualifiedName | None

#: A role: ``ROLE`` or ``DATABASE ROLE``, and its name.
Role = tuple[str, ObjectName]

CONTAINERS = ("DATABASE", "SCHEMA")

_PART = r'"(?:[^"]|"")*"|[^".]+'


@dataclass(frozen=True)
class Need:
    """What is needed on one object.

    :param kind: what it is, as GRANT names it: ``MODEL``, ``COMPUTE POOL``, ``SCHEMA``. ``TABLE`` is a view
        as well.
    :param name: which one.
    :param privileges: all of these. Who owns the object has them.
    :param creates: the privilege on its schema with which it is made, if it need not be there:
        ``CREATE MODEL``.
    """

    kind: str
    name: ObjectName
    privileges: tuple[str, ...]
    creates: str | None = None

    def __str__(self) -> str:
        return f"{', '.join(self.privileges)} on {described(self.kind, self.name)}"

    @property
    def is_to_create(self) -> bool:
        """Whether it is about creating, which only the primary role's privileges allow."""
        return all(privilege.startswith("CREATE ") for privilege in self.privileges)

    def missing_of(self, held: Iterable[str]) -> tuple[str, ...]:
        """What is missing for somebody who holds these privileges on the object.

        Any privilege on a database or a schema is enough to work in it.
        """
        held = set(held)
        if OWNERSHIP in held or (held and self.privileges == ("USAGE",) and self.kind in CONTAINERS):
            return ()
        return tuple(privilege for privilege in self.privileges if privilege not in held)


def resolved(need: Need, *, is_there: bool) -> Need:
    """A need once it is known whether its object is there: to use it, or to make it."""
    if is_there or need.creates is None or not isinstance(need.name, QualifiedName):
        return need
    return Need("SCHEMA", need.name.parent, (need.creates,))


@dataclass
class Grants:
    """The privileges that some roles have.

    :param objects: the privileges, by kind and name of the object.
    :param tables: what each table or view is.
    """

    objects: dict[tuple[str, ObjectName], set[str]] = field(default_factory=dict)
    tables: dict[ObjectName, str] = field(default_factory=dict)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> list[Role]:
        """Add the rows of a SHOW GRANTS TO ROLE.

        :return: the roles among them, whose privileges it has as well.
        """
        roles = []
        for row in rows:
            kind = str(row["granted_on"]).replace("_", " ").upper()
            privilege = str(row["privilege"]).upper()
            name = None if kind == "ACCOUNT" else object_name(str(row["name"]))
            if kind in ("ROLE", "DATABASE ROLE"):
                if privilege == "USAGE":  # its owner may grant it, and is not in it
                    roles.append((kind, name))
            else:
                self.objects.setdefault((_shared(kind), name), set()).add(privilege)
                if kind in TABLES:
                    self.tables[name] = kind
        return roles

    def copy(self) -> Grants:
        """The same, to be added to."""
        return Grants({key: set(held) for key, held in self.objects.items()}, dict(self.tables))

    def on(self, kind: str, name: ObjectName) -> set[str]:
        """The privileges on an object; none if nothing is known of it."""
        return self.objects.get((_shared(kind), name), set())


def _shared(kind: str) -> str:
    return "TABLE" if kind in TABLES else kind


def object_name(text: str) -> ObjectName:
    """A name as SHOW GRANTS prints it: resolved, each part in double quotes where it needs them."""
    parts = re.findall(_PART, text) if re.fullmatch(rf"(?:{_PART})(?:\.(?:{_PART})){{0,2}}", text) else [text]
    match [_part(part) for part in parts]:
        case [database, schema, name]:
            return QualifiedName(database, schema, name)
        case [database, schema]:
            return SchemaName(database, schema)
    return _part(text)


def last_part(name: ObjectName) -> str:
    """An object's name in its schema or database, resolved, as SHOW lists it."""
    match name:
        case QualifiedName():
            return name.name.name
        case SchemaName():
            return name.schema.name
        case Identifier():
            return name.name
    return ""


def _part(text: str) -> Identifier:
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return Identifier.of(text[1:-1].replace('""', '"') if is_quoted else text)


def described(kind: str, name: ObjectName) -> str:
    """``model DB.SCHEMA.CHURN``, ``the account``."""
    return "the account" if name is None else f"{kind.lower()} {name}"


def grant_statement(privileges: Collection[str], kind: str, name: object, role: object) -> str:
    """The GRANT that gives privileges.

    :param privileges: the privileges; OWNERSHIP is all of them.
    :param kind: what they are on: ``COMPUTE POOL``; ``ACCOUNT``.
    :param name: which one, as SQL; ``None`` for the account.
    :param role: who gets them, as SQL.
    """
    on = kind if name is None else f"{kind} {name}"
    if OWNERSHIP in privileges:
        # An object has one owner. Without COPY, the others lose what they were granted.
        return f"GRANT OWNERSHIP ON {on} TO ROLE {role} COPY CURRENT GRANTS"
    return f"GRANT {', '.join(privileges)} ON {on} TO ROLE {role}"
