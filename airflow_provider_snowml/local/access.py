"""The statements for which a role that CREATE ROLE made needs privileges here.

Those with which what is checked beforehand would fail afterwards: creating, changing and dropping models, and
what batch jobs start with. Anything else is allowed; see the documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import grants
from .catalog import Qualified
from .grammar import Reader

if TYPE_CHECKING:
    from .session import Session

# Objects of a schema that are made with ``CREATE [OR REPLACE] <kind>``; temporary ones need nothing.
_MADE = ("MODEL MONITOR", "MODEL", "STAGE", "TABLE", "VIEW", "TAG", "IMAGE REPOSITORY", "FILE FORMAT")


def check(session: Session, sql: str) -> None:
    """Refuse a statement that the session's role may not run."""
    if grants.may_all(session.account, session.role):
        return
    reader = Reader(sql)
    if reader.accept("CREATE"):
        _create(session, reader)
    elif reader.accept("ALTER", "MODEL") or reader.accept("DROP", "MODEL"):
        if not reader.is_word("MONITOR"):
            reader.accept("IF", "EXISTS")
            _require_on(session, grants.OWNERSHIP, "MODEL", reader)
    elif reader.accept("EXECUTE", "INFERENCE", "JOB", "SERVICE"):
        _inference_job(session, reader)


def _create(session: Session, reader: Reader) -> None:
    reader.accept("OR", "REPLACE")
    reader.accept("TRANSIENT")
    if reader.accept("SCHEMA"):
        reader.accept("IF", "NOT", "EXISTS")
        name = reader.name()
        database = name.schema or session.database or ""
        grants.require(session, "CREATE SCHEMA", "DATABASE", Qualified(database, "", ""))
        return
    for kind in _MADE:
        if reader.accept(*kind.split()):
            reader.accept("IF", "NOT", "EXISTS")
            made = session.resolve(reader.name())
            schema = Qualified(made.database, made.schema, "")
            grants.require(session, f"CREATE {kind}", "SCHEMA", schema)
            return


def _inference_job(session: Session, reader: Reader) -> None:
    while not reader.at_end():
        if reader.accept("IN", "COMPUTE", "POOL"):
            _require_on(session, "USAGE", "COMPUTE POOL", reader)
        elif reader.accept("MODEL"):
            reader.accept_symbol("=")
            _require_on(session, "READ", "MODEL", reader)
        elif reader.accept("NAME"):
            reader.accept_symbol("=")
            name = session.resolve(reader.name())
            grants.require(session, "CREATE SERVICE", "SCHEMA", Qualified(name.database, name.schema, ""))
        else:
            reader.next()


def _require_on(session: Session, privilege: str, kind: str, reader: Reader) -> None:
    named = reader.name()
    name = Qualified("", "", named.name) if kind == "COMPUTE POOL" else session.resolve(named)
    if grants.exists(session.account, kind, name):  # else the statement says so itself
        grants.require(session, privilege, kind, name)
