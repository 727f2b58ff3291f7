"""A million rows through the local Snowflake, beside the SDK's own handler in this process.

Both sides score the same rows with the same registered model, taking turns. What takes as long for one row as
for a million (the worker's start, the statements) is measured with one row and taken off: what is compared
is rows per second.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation, literal
from airflow_provider_snowml.core.partition_load import PartitionLoad
from airflow_provider_snowml.hooks.loading import count_rows, parquet_to_temporary_table, replace_slice
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.local.handlers import Package
from benchmarks.report import Table, median

ROWS, FEATURES, ROUNDS = 1_000_000, 14, 3
SCHEMA = SchemaName.of("SNOWML", "SCORING")
POOL = "SCORING_POOL"
HANDLER, JOB, RUN, LOAD, DUCKDB, READ = (
    "The SDK's handler in this process: read the Parquet, call it once",
    "Batch job: `EXECUTE INFERENCE JOB SERVICE`",
    "`ModelVersion.run`, into a table",
    "Load: `COPY` into a temporary table, count, `DELETE` and `INSERT`",
    "DuckDB alone, the same on a file: temporary table, count, `DELETE` and `INSERT`",
    "DuckDB alone, less: the Parquet into one table in memory",
)
AGAINST = {HANDLER: HANDLER, JOB: HANDLER, RUN: HANDLER, DUCKDB: DUCKDB, LOAD: DUCKDB, READ: DUCKDB}
_NOTE = (
    "Seconds of the median round, without those that one row takes. The last column is rows per second over "
    "those of the handler, or of DuckDB for the load. The jobs also write their rows as Parquet, and the run "
    "its table, which the handler alone does not. The load writes its rows twice, as on an account, and "
    "takes as many out before. So does DuckDB; the last line is what reading them once would take. The local "
    "Snowflake writes its tables uncompressed, DuckDB alone as it does by itself."
)


def measure(rows: int = ROWS, rounds: int = ROUNDS) -> list[Table]:
    """Rows per second of a batch job, of ``mv.run`` and of the load.

    ``snowflake_default`` leads to a local Snowflake.

    :param rows: how many are scored.
    :param rounds: how often; the medians are reported.
    """
    with Scoring(rows) as scoring:
        sides: dict[str, Callable[[], float]] = {
            HANDLER: scoring.handler,
            JOB: lambda: scoring.job("MANY") - scoring.job("ONE"),
            RUN: lambda: scoring.run("MANY") - scoring.run("ONE"),
            READ: scoring.duckdb_in_memory,
            DUCKDB: scoring.duckdb,
            LOAD: lambda: scoring.load("MANY") - scoring.load("ONE"),
        }
        taken: dict[str, list[float]] = {side: [] for side in sides}
        # The first job builds the image, the first run starts the model, a first load has nothing to delete.
        scoring.job("ONE"), scoring.run("ONE"), scoring.load("MANY"), scoring.duckdb()
        for _ in range(rounds):
            for side, once in sides.items():
                taken[side].append(once())
    seconds = {side: max(median(values), 1e-3) for side, values in taken.items()}
    lines = [
        (side, f"{took:.2f}", f"{rows / took:,.0f}", f"{seconds[against] / took:.2f}")
        for side, against in AGAINST.items()
        for took in (seconds[side],)
    ]
    title = f"{rows:,} rows of {FEATURES} columns, HistGradientBoosting, {rounds} rounds"
    return [Table(title, ("", "seconds", "rows per second", "ratio"), lines, _NOTE)]


class Scoring:
    """Random rows as tables and staged Parquet, all and one of them, and a model that scores them.

    :param rows: how many.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.hook = SnowMLHook(schema=SCHEMA.schema.sql)
        self._stack = ExitStack()
        self._made = 0

    def __enter__(self) -> Scoring:
        import numpy as np
        import pandas as pd
        from sklearn.ensemble import HistGradientBoostingClassifier
        from snowflake.ml.model._client.model.model_version_impl import ExportMode

        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        names = [f"F{i}" for i in range(FEATURES)]
        frame = pd.DataFrame(np.random.default_rng(0).normal(size=(self.rows, FEATURES)), columns=names)
        sample = frame.head(20_000)
        model = HistGradientBoostingClassifier(random_state=0).fit(sample, sample.F0 + sample.F1 > 0)
        self.parquet = directory / "rows.parquet"
        frame.to_parquet(self.parquet, index=False)

        SnowMLHook().rows(f"CREATE OR REPLACE SCHEMA {SCHEMA.sql}")
        session = self._stack.enter_context(self.hook.session())
        for sql in (
            "CREATE STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
            f"CREATE COMPUTE POOL IF NOT EXISTS {POOL} MIN_NODES = 1 MAX_NODES = 1 "
            "INSTANCE_FAMILY = CPU_X64_XS",
            f"PUT {literal(self.parquet.as_uri())} @ST/MANY AUTO_COMPRESS = FALSE",
        ):
            self.hook.rows(sql)
        loaded = parquet_to_temporary_table(self.hook, self._stage("MANY"), SCHEMA)
        self.hook.rows(f"CREATE TABLE MANY AS SELECT * FROM {loaded.sql if loaded else ''}")
        self.hook.rows("CREATE TABLE ONE AS SELECT * FROM MANY LIMIT 1")
        self.hook.copy_into_location(self._stage("ONE"), "SELECT * FROM ONE")
        self.version: Any = self.hook.registry(session, SCHEMA).log_model(
            model,
            model_name="M",
            version_name="V1",
            sample_input_data=sample.head(),
            options={"target_methods": ["predict"]},
        )
        self.session = session
        package = directory / "package"
        package.mkdir()
        self.version.export(str(package), export_mode=ExportMode.FULL)
        self._handler = Package(package).load("functions.predict.infer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def handler(self) -> float:
        """The handler that the SDK generated, on all rows at once."""
        import pandas as pd

        started = time.perf_counter()
        answer = self._handler(pd.read_parquet(self.parquet))
        assert len(answer) == self.rows
        return time.perf_counter() - started

    def job(self, size: str) -> float:
        """A batch job, from its statement to its end."""
        self._made += 1
        specification = f"output:\n  stage_location: '@ST/out{self._made}/'\n"
        started = time.perf_counter()
        self.hook.rows(
            f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL {POOL} WITH SPECIFICATION "
            f"{literal(specification)} FROM @ST/{size}/ MODEL = M VERSION = V1 FUNCTION = 'predict' "
            f"NAME = J{self._made} ASYNC = FALSE"
        )
        return time.perf_counter() - started

    def run(self, size: str) -> float:
        """``mv.run`` of a table into another."""
        started = time.perf_counter()
        answer = self.version.run(self.session.table(size), function_name="predict")
        answer.write.save_as_table("SCORED", mode="overwrite")
        return time.perf_counter() - started

    def load(self, size: str) -> float:
        """What the load operator does with a job's output: the slice is replaced by itself each time."""
        started = time.perf_counter()
        source = parquet_to_temporary_table(self.hook, self._stage(size), SCHEMA)
        assert source is not None
        count_rows(self.hook, source)
        target = QualifiedName(SCHEMA.database, SCHEMA.schema, Identifier(f"LOADED_{size}"))
        columns = tuple(self.hook.columns(f"SELECT * FROM {source.sql}"))
        replace_slice(self.hook, PartitionLoad(target, source, columns, Identifier("DAY"), "2013-06-01"))
        return time.perf_counter() - started

    def duckdb(self) -> float:
        """What the load does, of the same file, in a database of its own: on disk, as the server's is."""
        import duckdb

        started = time.perf_counter()
        with duckdb.connect(str(self.parquet.with_name("alone.db"))) as connection:
            for sql in (
                f"CREATE TEMPORARY TABLE t AS SELECT * FROM read_parquet({literal(str(self.parquet))})",
                "SELECT COUNT(*) FROM t",
                "CREATE TABLE IF NOT EXISTS loaded AS SELECT *, '2013-06-01' AS DAY FROM t WHERE FALSE",
                "BEGIN",
                "DELETE FROM loaded WHERE DAY = '2013-06-01'",
                "INSERT INTO loaded SELECT *, '2013-06-01' FROM t",
                "COMMIT",
            ):
                connection.execute(sql)
        return time.perf_counter() - started

    def duckdb_in_memory(self) -> float:
        """The same file into a table of a database in memory."""
        import duckdb

        started = time.perf_counter()
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT * FROM read_parquet(?)", [str(self.parquet)])
        return time.perf_counter() - started

    def _stage(self, size: str) -> StageLocation:
        return StageLocation.parse(f"@ST/{size}", SCHEMA)
