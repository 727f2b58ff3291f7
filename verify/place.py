"""Where the checks run: a schema of their own, which is gone afterwards."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from airflow_provider_snowml.core.batch_job import ENDED
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.batch_statement import BatchStatement
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.exceptions import ObjectNotFoundError, SnowMLError, StatementError
from airflow_provider_snowml.hooks.batch_jobs import end_job
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from verify.checks import Differs, NotTried, Stopped

Found = TypeVar("Found")


class Place:
    """A new schema with a stage and a model, removed with everything in it by :meth:`remove`.

    ``WAITER`` waits as many seconds as F1 says, and fails if that is negative. Its versions V1, which is the
    default, and V2 are the same.

    :param conn_id: the Airflow connection.
    :param pool: the compute pool of the jobs; ``None`` to try none of them.
    :param patience: seconds that one job may take, an image build included.
    """

    def __init__(self, conn_id: str, pool: str | None, patience: float) -> None:
        self.conn_id, self.pool, self.patience = conn_id, pool, patience
        outer = SnowMLHook(conn_id)
        with outer.open_connection() as connection:
            if not connection.database:
                raise NotTried("The connection names no database, in which the schema would be made.")
            database = Identifier.of(connection.database)
        # Made after it is named here, so that an interrupted CREATE is cleaned up, too.
        name = f"SNOWML_VERIFY_{uuid.uuid4().hex[:12].upper()}"
        self.schema = SchemaName(database, Identifier(name))
        self.outer = outer
        self.statements: dict[str, str] = {}
        self.notes: dict[str, Any] = {}  # what a check leaves for the next ones of its lane
        self._hooks = threading.local()
        self._tasks: list[Any] = []
        self._registering = threading.Lock()
        self._has_model = False
        self._stopped = threading.Event()

    @property
    def hook(self) -> SnowMLHook:
        """This thread's hook into the schema."""
        if not hasattr(self._hooks, "hook"):
            database, schema = self.schema.database.sql, self.schema.schema.name
            self._hooks.hook = SnowMLHook(self.conn_id, database=database, schema=schema)
        found: SnowMLHook = self._hooks.hook
        return found

    # -- made and removed -------------------------------------------------------------------------------

    def make(self) -> None:
        """Create the schema and its stage."""
        self.outer.rows(f"CREATE SCHEMA {self.schema.sql}")
        self.hook.rows("CREATE STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")

    def remove(self) -> list[str]:
        """End and drop the jobs, then the schema.

        :return: what is left, and why; nothing if all went well.
        """
        left: list[str] = []
        try:
            jobs = self.hook.list_jobs(self.schema)
        except ObjectNotFoundError:
            jobs = {}
        except Exception as error:
            jobs, left = {}, [f"jobs could not be listed: {error}"]
        for name in {*jobs, *self.statements}:
            job = self.name(name)
            try:
                if jobs.get(name) not in ENDED:
                    end_job(self.hook, job, self.statements.get(name), wait=0)
                self.hook.delete_job(job)
            except SnowMLError as error:
                left.append(f"job {job}: {error}")
        try:
            self.outer.rows(f"DROP SCHEMA IF EXISTS {self.schema.sql} CASCADE")
            like = f"SHOW SCHEMAS LIKE '{self.schema.schema.name}' IN DATABASE {self.schema.database.sql}"
            if self.outer.rows(like):
                left.append(f"schema {self.schema.sql} is still there")
        except Exception as error:
            left.append(f"schema {self.schema.sql}: {error}")
        return left

    # -- interrupted ------------------------------------------------------------------------------------

    @property
    def is_stopped(self) -> bool:
        """Whether the user has interrupted the checks."""
        return self._stopped.is_set()

    def go_on(self) -> None:
        """:raises Stopped: if the user has interrupted the checks."""
        if self.is_stopped:
            raise Stopped

    @contextmanager
    def running(self, task: Any) -> Iterator[None]:
        """While a task runs, an interruption kills it."""
        self._tasks.append(task)
        try:
            self.go_on()
            yield
        finally:
            self._tasks.remove(task)

    def stop(self) -> None:
        """End what is under way; nothing new begins."""
        self._stopped.set()
        for task in list(self._tasks):
            task.on_kill()

    # -- what the checks use ----------------------------------------------------------------------------

    def name(self, name: str) -> QualifiedName:
        """A name in the schema."""
        return QualifiedName(self.schema.database, self.schema.schema, Identifier(name))

    def stage(self, path: str) -> StageLocation:
        """A directory of the stage."""
        return StageLocation.parse(f"@ST/{path}", self.schema)

    def model(self) -> str:
        """The model's name; it is registered when the first check wants it."""
        with self._registering:
            self.go_on()
            if not self._has_model:
                _register(self.hook, self.schema)
                # The same, but it has no image.
                self.hook.rows("ALTER MODEL WAITER ADD VERSION V2 FROM MODEL WAITER VERSION V1")
                self._has_model = True
        return "WAITER"

    def noted(self, name: str) -> Any:
        """What an earlier check has left.

        :raises NotTried: if it did not get so far.
        """
        if name not in self.notes:
            raise NotTried("The check before it did not get so far.")
        return self.notes[name]

    def submit(self, name: str, seconds: float | None = 0, **changes: Any) -> str:
        """Submit a job without waiting for it; its statement's query id.

        :param name: the job's name.
        :param seconds: how long it runs, a negative number to fail; ``None`` for an input without rows.
        :param changes: of the statement's arguments.
        """
        self.model()
        # A second job of a name leaves the first one's input alone.
        location = self.stage(f"in/{name}/{uuid.uuid4().hex}")
        self.hook.copy_into_location(
            location, f"SELECT {seconds or 0}::FLOAT AS F1" + (" WHERE FALSE" if seconds is None else "")
        )
        statement = BatchStatement(
            **{
                "name": self.name(name),
                "compute_pool": Identifier.parse(str(self.pool)),
                "model": self.name("WAITER"),
                "version": "V1",
                "function": "predict",
                "input_location": location,
                "output_location": self.stage("out"),
                **changes,
            }
        )
        self.go_on()
        self.statements[name] = self.hook.submit(statement.sql())
        return self.statements[name]

    def statement_error(self, query_id: str) -> str | None:
        """Wait for a statement's end; what it failed with, ``None`` if it did not."""
        status, error = self.until(
            lambda: self.hook.statement(query_id), lambda it: it[0] is not Statement.RUNNING, "a statement"
        )
        return error if status is Statement.FAILED else None

    def ended(self, name: str) -> str:
        """Wait for a job's end; its status."""
        return str(
            self.until(lambda: self.hook.job_status(self.name(name)), lambda it: it in ENDED, f"job {name}")
        )

    def until(
        self,
        look: Callable[[], Found],
        over: Callable[[Found], bool],
        what: str,
        seconds: float | None = None,
    ) -> Found:
        """Look again and again, for some seconds or as long as a job may take."""
        seconds = self.patience if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while not over(found := look()):
            self.go_on()
            if time.monotonic() > deadline:
                raise Differs(f"{what} is still {found} after {seconds:g} s")
            time.sleep(0.5)
        return found

    def refused(self, sql: str) -> int:
        """Run a statement that must be refused; the error's number."""
        try:
            rows = self.hook.rows(sql)
        except StatementError as error:
            return error.errno or 0
        raise Differs(f"it was not refused, but answered {rows[:1]}")


def _register(hook: SnowMLHook, schema: SchemaName) -> None:
    import pandas as pd
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import infer_signature

    def predict(self: Any, rows: pd.DataFrame) -> pd.DataFrame:
        import time

        seconds = float(rows["F1"].max())
        print(f"waiting {seconds} seconds", flush=True)
        if seconds < 0:
            raise ValueError("the model broke on purpose")
        time.sleep(seconds)
        return rows[["F1"]].rename(columns={"F1": "WAITED"})

    # snowflake-ml reads annotations as they are, and here they would be texts. Made in a function, the class
    # is pickled by value: the job's process cannot import this module.
    predict.__annotations__ = {"rows": pd.DataFrame, "return": pd.DataFrame}
    waiter = type("Waiter", (custom_model.CustomModel,), {"predict": custom_model.inference_api(predict)})
    rows = pd.DataFrame({"F1": [1.0, 2.0]})
    with hook.session() as session:
        hook.registry(session, schema).log_model(
            waiter(),
            model_name="WAITER",
            version_name="V1",
            signatures={"predict": infer_signature(rows, rows.rename(columns={"F1": "WAITED"}))},
            target_platforms=["SNOWPARK_CONTAINER_SERVICES"],
        )
