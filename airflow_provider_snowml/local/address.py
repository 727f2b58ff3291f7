"""How to reach a running server: what it writes down, and what clients make of it.

Needs nothing but the standard library, so that a process that only connects stays light.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

ACCOUNT, USER, DATABASE, SCHEMA = "local", "SNOWML", "SNOWML", "PUBLIC"
WAREHOUSE, ROLE = "SNOWML_WH", "SYSADMIN"


def default_data_dir() -> Path:
    """``$SNOWML_LOCAL_DIR``, else below the user's data directory."""
    if given := os.environ.get("SNOWML_LOCAL_DIR"):
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "snowml-local"


@dataclass(frozen=True)
class Address:
    """:param pid: of the server; :param bundle: certificates to trust, None without TLS."""

    pid: int
    host: str
    port: int
    protocol: str
    password: str
    bundle: str | None

    @classmethod
    def file(cls, data_dir: Path) -> Path:
        return data_dir / "server.json"

    @classmethod
    def read(cls, data_dir: Path) -> Address | None:
        """The address of the server that runs on this directory, or None."""
        try:
            address = cls(**json.loads(cls.file(data_dir).read_text()))
            os.kill(address.pid, 0)
        except (FileNotFoundError, ProcessLookupError, json.JSONDecodeError):
            return None
        return address

    def write(self, data_dir: Path) -> None:
        part = data_dir / "server.json.part"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            json.dump(asdict(self), f)
        part.replace(self.file(data_dir))

    @property
    def connection_parameters(self) -> dict[str, Any]:
        """For ``snowflake.connector.connect(**...)`` and ``Session.builder.configs(...)``."""
        return {
            "user": USER,
            "password": self.password,
            "account": ACCOUNT,
            "host": self.host,
            "port": self.port,
            "protocol": self.protocol,
            "database": DATABASE,
            "schema": SCHEMA,
            "warehouse": WAREHOUSE,
            "role": ROLE,
        }

    @property
    def airflow_connection_uri(self) -> str:
        """For ``AIRFLOW_CONN_SNOWFLAKE_DEFAULT``. Airflow's hook passes no protocol: TLS only."""
        return self.airflow_connection_into(SCHEMA)

    def airflow_connection_into(self, schema: str) -> str:
        """The same, into another schema."""
        keys = ("account", "host", "port", "database", "warehouse", "role")
        extra = {k: self.connection_parameters[k] for k in keys}
        query = urlencode({"__extra__": json.dumps(extra)})
        return f"snowflake://{quote(USER)}:{quote(self.password, safe='')}@/{quote(schema, safe='')}?{query}"

    @property
    def client_settings(self) -> dict[str, str]:
        """Environment variables for the clients of this server, none of them secret."""
        # On which cloud a client runs does not matter here, and to find out loads boto3 for each login.
        found = {"SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true"}
        if self.bundle:
            found["REQUESTS_CA_BUNDLE"] = self.bundle
        return found

    def environment(self) -> dict[str, str]:
        """What a shell or process needs to reach the server through Airflow and the connector."""
        return {"AIRFLOW_CONN_SNOWFLAKE_DEFAULT": self.airflow_connection_uri, **self.client_settings}

    def shell_exports(self) -> str:
        return "\n".join(f"export {k}={shlex.quote(v)}" for k, v in self.environment().items())
