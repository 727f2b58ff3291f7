"""Where the operators are let loose: a schema with one of each, and a look at all that is in it."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pendulum
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import DownstreamTasksSkipped
from snowflake.connector.errors import ProgrammingError
from snowflake.snowpark import Session

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.local.grammar import quote

VERSIONS = ("V1", "V2")
SLEEPING = "FUZZ_SLEEPING_POOL"  # a service in it never starts
ROWS = """
    SELECT ID, DATEADD(HOUR, ID, '2013-06-01'::TIMESTAMP_NTZ) AS AT, ID / 60 AS P, F1, F2,
        IFF(ID > 30, 1, 0) AS PREDICTED, IFF(MOD(ID, 7) > 3, 1, 0) AS HAPPENED
    FROM {schema}.X
"""


class Store:
    """A task state store of one try."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._values[key] = json.loads(json.dumps(value))


class OneSession(SnowMLHook):
    """A hook whose Snowpark sessions are one, on the connection that is open: logging in takes longer than
    all the rest."""

    _only: Session | None = None

    def get_snowpark_session(self) -> Session:
        if self._only is None:
            self._only = Session.builder.configs({"connection": self._connection}).create()
            self._only.close = lambda: None
        return self._only

    def end(self) -> None:
        """Close it for good."""
        if self._only is not None:
            del self._only.close
            self._only.close()


class World:
    """A schema of its own with models, tables, a view, a stage and a tag.

    :param connection: of the test's own, into the schema.
    :param schema: ``DATABASE.SCHEMA``.
    :param scoring: whose model is copied.
    """

    def __init__(self, connection: Any, schema: str, scoring: Any) -> None:
        self._connection, self.schema, self.pool = connection, schema, scoring.pool
        self._source = f"{scoring.schema}.M"
        self.database, self.name = schema.split(".")
        self.hook = OneSession(database=self.database, schema=self.name)
        self.make_model("M")
        self.make_model("R")
        for made in (
            "TABLE BAIT AS SELECT 1 AS A",
            f"TABLE X AS {ROWS.format(schema=scoring.schema)}",
            "TABLE NORMAL AS SELECT * FROM X WHERE ID < 30",
            "STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
            "TAG TEAM",
        ):
            self.rows(f"CREATE {made}")
        self.rows(
            "COPY INTO @ST/loads/done/part FROM (SELECT ID, PREDICTED FROM X WHERE ID < 3) "
            "FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
        )
        self.rows(
            f"CREATE COMPUTE POOL IF NOT EXISTS {SLEEPING} MIN_NODES = 1 MAX_NODES = 1 "
            "INSTANCE_FAMILY = CPU_X64_XS AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
        )
        self.rows("PUT 'file:///_SUCCESS' '@ST/loads/done/' AUTO_COMPRESS = FALSE", file_stream=BytesIO(b""))

    def rows(self, sql: str, **options: Any) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, **options)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def value(self, sql: str) -> Any:
        return next(iter(self.rows(sql)[0].values()))

    # -- what is made, and removed again ----------------------------------------------------------------

    def make_model(self, name: str) -> None:
        """V1 is the champion, V2 the challenger."""
        for version in VERSIONS:
            how = "CREATE MODEL {} WITH" if version == "V1" else "ALTER MODEL {} ADD"
            self.rows(f"{how.format(quote(name))} VERSION {version} FROM MODEL {self._source} VERSION V1")
        self.rows(f"ALTER MODEL {quote(name)} VERSION V1 SET ALIAS = CHAMPION")

    def drop_model(self, name: str) -> None:
        self.rows(f"DROP MODEL IF EXISTS {quote(name)}")

    def make_version(self, name: str) -> None:
        self.rows(f"ALTER MODEL M ADD VERSION {quote(name)} FROM MODEL {self._source} VERSION V1")

    def drop_version(self, name: str) -> None:
        """Whatever it was made."""
        aliases = self.versions().get(name)
        if aliases is None:
            return
        self.rows("ALTER MODEL M SET DEFAULT_VERSION = V1")
        for alias in self.aliases(name):
            self.rows(f"ALTER MODEL M VERSION {quote(alias)} UNSET ALIAS")
        self.rows(f"ALTER MODEL M DROP VERSION {quote(name)}")

    def make_table(self, name: str) -> None:
        self.rows(f"CREATE TABLE {quote(name)} AS SELECT * FROM X")

    def drop_table(self, name: str) -> None:
        self.rows(f"DROP TABLE IF EXISTS {quote(name)}")

    def reset_model(self) -> None:
        self.drop_model("M")
        self.make_model("M")

    def reset(self) -> None:
        """The models as they were."""
        self.reset_model()
        self.drop_model("R")
        self.make_model("R")

    # -- what is there ----------------------------------------------------------------------------------

    def versions(self, model: str = "M") -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.rows(f"SHOW VERSIONS IN MODEL {quote(model)}")}

    def aliases(self, version: str, model: str = "M") -> list[str]:
        found = json.loads(self.versions(model)[version]["aliases"])
        return [alias for alias in found if alias not in ("DEFAULT", "FIRST", "LAST")]

    def metrics(self, version: str, model: str = "M") -> dict[str, Any]:
        return dict(json.loads(self.versions(model)[version]["metadata"] or "{}").get("metrics") or {})

    def named(self, what: str) -> set[str]:
        return {row["name"] for row in self.rows(f"SHOW {what} IN SCHEMA {self.schema}")}

    def comment(self, model: str = "M") -> str:
        return next(row["comment"] for row in self.rows("SHOW MODELS") if row["name"] == model)

    def snapshot(self) -> dict[str, Any]:
        """All that is there, but when it was made."""
        found: dict[str, Any] = {
            "schemas": sorted(row["name"] for row in self.rows(f"SHOW SCHEMAS IN DATABASE {self.database}")),
            "files": sorted((row["name"], row["size"]) for row in self.rows("LIST @ST")),
        }
        for what in ("TABLES", "VIEWS", "STAGES", "TAGS", "MODEL MONITORS", "SERVICES", "MODELS"):
            found[what] = sorted(
                (row["name"], row.get("comment"))
                for row in self.rows(f"SHOW {what}")
                if not row["name"].startswith("MODEL_BUILD_")  # an image stays where it was built
            )
        for name, _ in found["TABLES"]:
            found[f"rows of {name}"] = sorted(self.rows(f"SELECT * FROM {quote(name)}"), key=str)
        for name, _ in found["MODELS"]:
            found[f"versions of {name}"] = sorted(
                (row["name"], row["aliases"], row["comment"], row["metadata"])
                for row in self.versions(name).values()
            )
            found[f"tag of {name}"] = self.tag("TEAM", name)
        return found

    def tag(self, tag: str, model: str = "M") -> str | None:
        """The value of a model's tag; None if there is no such tag."""
        tag_name, model_name = (
            "'" + f"{self.schema}.{quote(name)}".replace("\\", "\\\\").replace("'", "''") + "'"
            for name in (tag, model)
        )
        with suppress(ProgrammingError):
            return self.value(f"SELECT SYSTEM$GET_TAG({tag_name}, {model_name}, 'MODULE')")
        return None

    # -- a try ------------------------------------------------------------------------------------------

    def run(self, operator: type[BaseOperator], arguments: dict[str, Any]) -> dict[str, Any]:
        """One try of a task in a run of its own."""
        pushed: dict[str, Any] = {}
        task = operator(task_id="task", **arguments)
        if hasattr(task, "follow_task_ids_if_better"):
            with DAG("fuzz", schedule=None, start_date=pendulum.datetime(2013, 6, 1)):
                task = operator(task_id="task", **arguments)
                task >> [BaseOperator(task_id="promote"), BaseOperator(task_id="keep")]
        if hasattr(task, "get_hook"):
            task.get_hook = lambda: self.hook  # its connection is open
        ti = SimpleNamespace(
            dag_id="fuzz",
            task_id="task",
            run_id="manual__2013-06-01",
            map_index=-1,
            try_number=1,
            max_tries=0,
            start_date=None,
            task=task,
            xcom_push=lambda key, value: pushed.update({key: value}),
        )
        context = {
            "ti": ti,
            "dag_run": SimpleNamespace(clear_number=0, run_type="manual"),
            "partition_key": "2013-06-01",
            "task_state_store": Store(),
        }
        try:
            return task.execute(context) or {}
        except DownstreamTasksSkipped:
            return pushed
