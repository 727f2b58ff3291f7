"""A client's session: who it is, where it stands, what it has set and what is its own."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .catalog import Qualified
from .errors import no_current
from .grammar import Name

if TYPE_CHECKING:
    from .account import Account
    from .engine import Connection


@dataclass
class Session:
    """:param id: the number Snowflake calls the session id; :param token: what requests carry.

    ``database`` and ``schema`` are the current ones or None; ``temporary`` maps temporary tables,
    views, stages and file formats of this session to what they are called inside.
    ``secondary_roles`` is whether all roles of the user count.
    """

    account: Account
    id: int
    user: str
    role: str
    warehouse: str | None
    database: str | None = None
    schema: str | None = None
    secondary_roles: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    temporary: dict[tuple[str, Qualified], Qualified] = field(default_factory=dict)
    inline_formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    connection: Connection | None = None

    def resolve(self, name: Name) -> Qualified:
        """Complete a name with the current database and schema, or say which one is missing."""
        database = name.database or self.database
        if database is None:
            raise no_current("database")
        schema = name.schema or self.schema
        if schema is None:
            raise no_current("schema")
        return Qualified(database, schema, name.name)

    def query(self, sql: str) -> pa.Table:
        """Run a query for the server's own use, as this session sees the tables."""
        return self.account.engine.execute(self, sql).table
