"""The account: what all sessions share."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

# Imported for the statements and functions that they register.
from . import (  # noqa: F401
    information,
    sessions_sql,
    stages_sql,
)
from .catalog import Catalog
from .engine import Engine
from .queries import Queries
from .session import Session
from .stages import Stages

DATABASE, SCHEMA, WAREHOUSE, ROLE = "SNOWML", "PUBLIC", "SNOWML_WH", "SYSADMIN"


class Account:
    """:param data_dir: where everything is kept; made when missing."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self.catalog = Catalog(data_dir / "catalog.sqlite")
        self.engine = Engine(data_dir / "databases")
        self.stages = Stages(self.catalog, data_dir / "stages")
        self.queries = Queries()
        self.sessions: dict[str, Session] = {}
        self._session_ids = itertools.count(1001)
        self._lock = threading.Lock()
        self.engine.create_database(DATABASE)
        self._ensure_warehouse()

    def _ensure_warehouse(self) -> None:
        from .catalog import Qualified

        name = Qualified("", "", WAREHOUSE)
        if self.catalog.find("WAREHOUSE", name) is None:
            self.catalog.create("WAREHOUSE", name, ROLE, {"size": "X-Small"})

    def login(
        self,
        user: str,
        role: str | None,
        warehouse: str | None,
        database: str | None,
        schema: str | None,
        parameters: dict[str, Any],
    ) -> Session:
        session = Session(self, next(self._session_ids), user, role or ROLE, warehouse)
        session.parameters.update(parameters)
        self.engine.connect(session, database, schema)
        with self._lock:
            self.sessions[session.token] = session
        return session

    def logout(self, session: Session) -> None:
        with self._lock:
            self.sessions.pop(session.token, None)
        self.queries.cancel_all(session)
        self.stages.drop_temporary(session)
        self.engine.disconnect(session)

    def close(self) -> None:
        for session in list(self.sessions.values()):
            self.logout(session)
        self.engine.close()
        self.catalog.close()
