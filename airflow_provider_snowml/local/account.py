"""The account: what all sessions share."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

# Imported for the statements and functions that they register.
from . import (  # noqa: F401
    compute_pools,
    copying,
    deployments,
    finetuning,
    grants_sql,
    information,
    jobs,
    models,
    models_sql,
    monitor_metrics,
    monitors,
    monitors_sql,
    service_methods,
    services,
    services_sql,
    sessions_sql,
    stages_sql,
    tags_sql,
)
from .catalog import Catalog, Qualified
from .containers import Containers
from .engine import Engine
from .faults import Faults
from .locks import MAX_IDLE, MAX_WAITERS
from .model_calls import Function
from .model_hosts import ModelHosts
from .queries import Queries
from .session import Session
from .stages import Stages

DATABASE, SCHEMA, WAREHOUSE, ROLE = "SNOWML", "PUBLIC", "SNOWML_WH", "SYSADMIN"


class Account:
    """What the sessions share.

    :param data_dir: where everything is kept; made when missing.
    :param host: name and port under which the server is reached.
    :param image_build_seconds: how long the image of a model version is in the making.
    :param faults: whether clients may ask for faults.
    """

    def __init__(self, data_dir: Path, host: str, image_build_seconds: float, faults: bool = False) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self.host = host
        self.image_build_seconds = image_build_seconds
        self.catalog = Catalog(data_dir / "catalog.sqlite")
        self.engine = Engine(data_dir / "databases")
        self.engine.locks.max_waiters = lambda: self.faults.waiters(MAX_WAITERS)
        self.engine.max_idle = lambda: self.faults.idle(MAX_IDLE)
        self.stages = Stages(self.catalog, data_dir / "stages")
        self.queries = Queries()
        self.faults = Faults(faults)
        self.containers = Containers(data_dir / "jobs")
        self.model_hosts = ModelHosts(data_dir / "logs" / "models.log")
        self.model_functions: dict[str, Function] = {}
        self._functions: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self._session_ids = itertools.count(1001)
        self._lock = threading.Lock()
        self.stages.drop_leftovers()
        services.recover(self)
        self.engine.create_database(DATABASE)
        warehouse = Qualified("", "", WAREHOUSE)
        if self.catalog.find("WAREHOUSE", warehouse) is None:
            self.catalog.create("WAREHOUSE", warehouse, ROLE, {"size": "X-Small"})

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
        for key, value in parameters.items():
            if key.upper() in information.PARAMETERS:
                sessions_sql.set_parameter(session, key.upper(), value)
        self.engine.connect(session, database, schema)
        with self._lock:
            self.sessions[session.token] = session
        return session

    def logout(self, session: Session) -> None:
        with self._lock:
            self.sessions.pop(session.token, None)
        # Snowflake keeps the session's things while an asynchronous query of it runs.
        running = [q for q in self.queries.all() if q.session_id == session.id and not q.finished.is_set()]

        def end() -> None:
            for query in running:
                query.finished.wait()
            self.stages.drop_temporary(session)
            self.engine.disconnect(session)

        if running:
            threading.Thread(target=end, daemon=True).start()
        else:
            end()

    def register_function(
        self, name: str, function: Callable[..., pa.Array], parameters: list[str], return_type: str
    ) -> None:
        """Make a method of a model callable from SQL, unless it is."""
        with self._lock:
            if name not in self._functions:
                self.engine.register_function(name, function, parameters, return_type)
                self._functions.add(name)

    def drop_contents(self, database: str, schema: str | None) -> None:
        """What a dropped database or schema takes with it besides its tables."""
        services.drop_in(self, database, schema)
        models.drop_in(self, database, schema)
        monitors.drop_in(self, database, schema)
        self.stages.drop_in(database, schema)
        self.catalog.drop_in(database, schema)

    def close(self) -> None:
        for session in list(self.sessions.values()):
            self.queries.cancel_all(session)
            self.logout(session)
        self.containers.close()
        self.model_hosts.close()
        self.engine.close()
        self.catalog.close()
