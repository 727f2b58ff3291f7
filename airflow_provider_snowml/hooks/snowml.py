"""The only code of this provider that talks to Snowflake."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

from airflow_provider_snowml.core.batch_job import DONE, SUCCESS_FILE
from airflow_provider_snowml.core.batch_poller import Observation, Statement
from airflow_provider_snowml.core.model_ref import (
    TABLE_FUNCTION,
    ModelVersionInfo,
    ModelVersionRef,
    model_functions,
    resolve_version,
    supports_gpu,
)
from airflow_provider_snowml.core.names import (
    Identifier,
    QualifiedName,
    SchemaName,
    StageLocation,
    literal,
    refuse_personal_database,
    refuse_single_quotes,
)
from airflow_provider_snowml.core.snowsight import query_page
from airflow_provider_snowml.exceptions import (
    ComputePoolNotFoundError,
    ModelNotFoundError,
    ObjectNotFoundError,
    SnowMLError,
    StageNotFoundError,
    StageNotInternalError,
)
from airflow_provider_snowml.hooks.errors import as_statement_error, mapped_errors
from airflow_provider_snowml.hooks.model_predictions import find_version
from airflow_provider_snowml.hooks.query_tag import merged_tag, task_tag

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection
    from snowflake.ml.model import ModelVersion
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    from airflow_provider_snowml.core.preflight import PreflightReport
    from airflow_provider_snowml.core.preflight_steps import Step

Row = dict[str, Any]

# What snowflake-ml adds to SHOW VERSIONS to see a version's signatures.
_WITH_DETAILS = {"SHOW_MODEL_DETAILS_IN_SHOW_VERSIONS_IN_MODEL": True}


class SnowMLHook(SnowflakeHook):
    """Snowflake ML over an ordinary ``snowflake`` connection, with every way to authenticate that it has.

    One verb, one method. Each opens a connection of its own, unless it is called inside
    ``with hook.open_connection():``, which they then share.

    :param snowflake_conn_id: the Airflow connection.
    :param warehouse: overrides the connection's, like ``database``, ``schema`` and ``role``.
    :param query_tag: what the session's query tag says besides the running task.
    :param connector_options: arguments of the connector that an Airflow connection cannot say, such as
        ``network_timeout``.
    """

    def __init__(
        self,
        *args: Any,
        query_tag: Mapping[str, Any] | None = None,
        connector_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.connector_options = dict(connector_options or {})
        if isinstance(self.database, str):
            refuse_personal_database(self.database)
        self._query_tag = dict(query_tag or {})
        self._connection: SnowflakeConnection | None = None
        self._temporary_file_formats: set[str] = set()
        # The statement that rows sent last.
        self.query_id: str | None = None

    # -- connections ------------------------------------------------------------------------------------

    @contextmanager
    def open_connection(self) -> Iterator[SnowflakeConnection]:
        """A connector connection that is always closed; nested uses share it.

        Statements submitted on it with :meth:`submit` go on running after it is closed.
        """
        if self._connection is not None:
            yield self._connection
            return
        with mapped_errors():
            connection = self.get_conn()
        try:
            self._connection = connection
            self._tag_connection()
            yield connection
        finally:
            self._connection = None
            self._temporary_file_formats.clear()
            connection.close()

    def _get_conn_params(self) -> dict[str, Any]:
        return {**super()._get_conn_params(), **self.connector_options}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction on the open connection: committed, or rolled back if anything is raised."""
        with self.open_connection():
            self.rows("BEGIN")
            try:
                yield
                self.rows("COMMIT")
            except BaseException:
                try:
                    self.rows("ROLLBACK")
                except SnowMLError as error:
                    # With the session gone there is nothing to roll back; what went wrong first is raised.
                    self.log.warning("ROLLBACK failed: %s", error)
                raise

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A Snowpark session that is always closed. Closing it cancels what still runs in it.

        The hook's own verbs, used inside, go through the session's connection: temporary tables are shared.
        """
        session = self.get_snowpark_session()
        outer = self._connection, self._temporary_file_formats
        try:
            self._connection, self._temporary_file_formats = session.connection, set()
            with mapped_errors():
                yield session
        finally:
            self._connection, self._temporary_file_formats = outer
            session.close()

    def get_snowpark_session(self) -> Session:
        """A new Snowpark session with the query tag of the running task; the caller closes it.

        Unlike upstream's, it leaves a plain-text query tag alone instead of failing on it.
        """
        from snowflake.snowpark import Session

        with mapped_errors():
            session = Session.builder.configs(self._get_conn_params()).create()
            try:
                rows = session.sql("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION").collect()
                tag = merged_tag(rows[0]["value"] if rows else None, self._tag())
                if tag is not None:
                    session.query_tag = tag
            except BaseException:
                session.close()
                raise
        return session

    def _tag(self) -> dict[str, Any]:
        return {**task_tag(), **self._query_tag}

    def _tag_connection(self) -> None:
        ours = self._tag()
        if not ours:
            return
        rows = self.rows("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION")
        tag = merged_tag(rows[0]["value"] if rows else None, ours)
        if tag is not None:
            self.rows(f"ALTER SESSION SET QUERY_TAG = {literal(tag)}")

    def rows(
        self,
        sql: str,
        *,
        statement_params: Mapping[str, Any] | None = None,
        file_stream: BytesIO | None = None,
    ) -> list[Row]:
        """Run one statement and return its rows as dictionaries.

        :param sql: the statement, sent as it is.
        :param statement_params: parameters of this statement only.
        :param file_stream: what a PUT uploads.
        :raises StatementError: or a subclass, if Snowflake refuses it.
        """
        options: dict[str, Any] = {}
        if statement_params:
            options["_statement_params"] = dict(statement_params)
        if file_stream is not None:
            options["file_stream"] = file_stream
        with self.open_connection() as connection, mapped_errors():
            cursor = connection.cursor()
            try:
                cursor.execute(sql, **options)
                self.query_id = cursor.sfqid
                names = [column.name for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            finally:
                cursor.close()

    def value(self, sql: str) -> Any:
        """The first column of the first row."""
        return next(iter(self.rows(sql)[0].values()))

    def columns(self, query: str) -> list[str]:
        """The columns that a query would give; it is not run."""
        return [name for name, _ in self.typed_columns(query)]

    def typed_columns(self, query: str) -> list[tuple[str, str]]:
        """The columns that a query would give, and their types as the connector names them; it is not run."""
        from snowflake.connector.constants import FIELD_ID_TO_NAME

        with self.open_connection() as connection, mapped_errors():
            cursor = connection.cursor()
            try:
                described = cursor.describe(query) or ()
                return [(column.name, FIELD_ID_TO_NAME[column.type_code]) for column in described]
            finally:
                cursor.close()

    def default_schema(self) -> SchemaName:
        """Where unqualified names are: the arguments' database and schema, else the connection's.

        :raises InvalidNameError: if either is unknown.
        """
        with self.open_connection() as connection:
            return SchemaName.of(connection.database, connection.schema)

    # -- models -----------------------------------------------------------------------------------------

    def registry(self, session: Session, schema: SchemaName | None = None) -> Registry:
        """snowflake-ml's model registry.

        :param session: an open session.
        :param schema: the schema of its models; where unqualified names are if it is left out.
        """
        from snowflake.ml.registry import Registry

        schema = schema or self.default_schema()
        with mapped_errors():
            return Registry(session=session, database_name=schema.database.sql, schema_name=schema.schema.sql)

    def model_version(self, session: Session, model: QualifiedName, version: str) -> ModelVersion:
        """snowflake-ml's own object of a version.

        :param session: an open session.
        :param model: the model.
        :param version: the version's resolved name.
        :raises InvalidNameError: for names that snowflake-ml can't look for, or finds more of.
        """
        refuse_single_quotes(model.name.name, version)
        with mapped_errors():
            return find_version(self.registry(session, model.parent), model, version)

    def model_versions(self, model: QualifiedName | str) -> list[ModelVersionInfo] | None:
        """The model's versions with their aliases, oldest first; ``None`` if there is no such model.

        :param model: the model; a text is ``[[database.]schema.]name``.
        """
        model = self._model(model)
        try:
            rows = self.rows(f"SHOW VERSIONS IN MODEL {model.sql}")
        except ObjectNotFoundError:
            return None
        return [ModelVersionInfo(row["name"], tuple(json.loads(row["aliases"] or "[]"))) for row in rows]

    def resolve_version(self, model: QualifiedName | str, reference: str = "default") -> ModelVersionRef:
        """Find a version and its functions.

        :param model: the model; a text is ``[[database.]schema.]name``.
        :param reference: a version's name, an alias, ``default``, ``first`` or ``last``.
        :raises ModelNotFoundError: if there is no such model; the message lists the schema's models.
        :raises ModelVersionNotFoundError: if there is no such version; the message lists the model's.
        """
        model = self._model(model)
        versions = self.model_versions(model)
        if versions is None:
            raise self.no_such_model(model)
        version = resolve_version(model, reference, versions).name
        spec = self.model_spec(model, version)
        shown = self.rows(f"SHOW FUNCTIONS IN MODEL {model.sql} VERSION {Identifier.of(version).sql}")
        types = {
            row["name"]: TABLE_FUNCTION if "TABLE" in (row.get("return_type") or "") else "FUNCTION"
            for row in shown
        }
        functions = tuple(model_functions(spec, types))
        return ModelVersionRef(model, version, functions, supports_gpu(spec), spec.get("model_type"))

    def no_such_model(self, model: QualifiedName) -> ModelNotFoundError:
        """The error for a model that isn't there; its message lists the schema's models.

        :param model: the model.
        """
        return ModelNotFoundError(
            f"There is no model {model}, or role {self._current_role()} may not see it. "
            f"{model.parent} has: {self.listing('SHOW MODELS IN SCHEMA ' + model.parent.sql)}."
        )

    def _model(self, model: QualifiedName | str) -> QualifiedName:
        if isinstance(model, QualifiedName):
            return model
        return QualifiedName.parse(model, self.default_schema(), what="model name")

    def model_spec(self, model: QualifiedName, version: str) -> Mapping[str, Any]:
        """snowflake-ml's own description of a version; empty if it may not be seen."""
        import yaml

        details = self.rows(
            f"SHOW VERSIONS LIKE {literal(version)} IN MODEL {model.sql}", statement_params=_WITH_DETAILS
        )
        text = next((row.get("model_spec") for row in details if row["name"] == version), None)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
        return (yaml.load(text, Loader=loader) if text else None) or {}

    # -- stages and compute pools -----------------------------------------------------------------------

    def check_internal_stage(self, stage: QualifiedName) -> None:
        """Check that a stage is there and internal.

        :raises StageNotFoundError: if it isn't there; the message lists the schema's stages.
        :raises StageNotInternalError: if it is an external one.
        """
        show = f"SHOW STAGES LIKE {literal(stage.name.name)} IN SCHEMA {stage.parent.sql}"
        try:
            found = [row for row in self.rows(show) if row["name"] == stage.name.name]
        except ObjectNotFoundError:
            found = []
        if not found:
            raise StageNotFoundError(
                f"There is no stage {stage}, or role {self._current_role()} may not see it. "
                f"{stage.parent} has: {self.listing('SHOW STAGES IN SCHEMA ' + stage.parent.sql)}."
            )
        if "INTERNAL" not in str(found[0]["type"]).upper():
            raise StageNotInternalError(
                f"The stage {stage} is {found[0]['type']}; batch jobs and PUT take internal "
                "stages only: CREATE STAGE ... ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')."
            )

    def check_compute_pool(self, pool: Identifier) -> None:
        """Check that a compute pool is there.

        :raises ComputePoolNotFoundError: if it isn't; the message lists those that are.
        """
        rows = self.rows(f"SHOW COMPUTE POOLS LIKE {literal(pool.name)}")
        if not any(row["name"] == pool.name for row in rows):
            raise ComputePoolNotFoundError(
                f"There is no compute pool {pool}, or role {self._current_role()} may not see it. There are: "
                f"{self.listing('SHOW COMPUTE POOLS')}."
            )

    def files(self, location: StageLocation, prefix: str = "", *, pattern: str | None = None) -> list[str]:
        """The paths, in the stage, of the files in a directory whose names start with a prefix.

        :param pattern: a regular expression that their whole paths match as well.
        :raises ObjectNotFoundError: if there is no such stage.
        """
        matching = f" PATTERN = {literal(pattern)}" if pattern is not None else ""
        rows = self.rows(f"LIST {literal(location.sql + prefix)}{matching}")
        return [str(row["name"]).split("/", 1)[1] for row in rows]

    def read_file(self, location: StageLocation, name: str) -> bytes | None:
        """A small file's content; ``None`` if it isn't there."""
        return self.download(location.sql + name)

    def download(self, location: str) -> bytes | None:
        """The same of a file at any location that GET takes, ``snow://model/...`` among them."""
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory).as_uri() + "/"
            try:
                self.rows(f"GET {literal(location)} {literal(target)}")
            except SnowMLError as error:
                # The connector says 253006 for a GET that finds no file.
                if getattr(error, "errno", None) != 253006:
                    raise
            path = Path(directory) / location.rsplit("/", 1)[-1]
            return path.read_bytes() if path.exists() else None

    def write_file(
        self, location: StageLocation, name: str, content: bytes, *, overwrite: bool = True
    ) -> bool:
        """Write a small file.

        :param overwrite: whether it may replace one of that name.
        :return: whether it was written.
        """
        rows = self.rows(
            f"PUT {literal('file:///' + name)} {literal(location.sql)} "
            f"AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = {str(overwrite).upper()}",
            file_stream=BytesIO(content),
        )
        return str(rows[0]["status"]) != "SKIPPED"

    def upload_file(self, location: StageLocation, file: Path) -> None:
        """Upload a file under its own name, over one that is there.

        :param location: the directory.
        :param file: the file on this machine.
        """
        self.rows(
            f"PUT {literal(file.as_uri())} {literal(location.sql)} "
            "AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE"
        )

    def remove_files(self, location: StageLocation) -> None:
        """Remove everything in a directory."""
        self.rows(f"REMOVE {literal(location.sql)}")

    def remove_file(self, location: StageLocation, name: str) -> None:
        """Remove a file of a directory; it need not be there."""
        self.rows(f"REMOVE {literal(location.sql + name)}")

    def copy_into_location(self, location: StageLocation, query: str) -> int:
        """Write a query's rows to a directory as Parquet, and return how many there were.

        :param location: the directory; files of the same names are overwritten.
        :param query: the query; it is code, and sent as it is.
        """
        rows = self.rows(
            f"COPY INTO {literal(location.sql)} FROM ({query}\n) FILE_FORMAT = (TYPE = PARQUET) "
            "OVERWRITE = TRUE HEADER = TRUE"
        )
        return int(rows[0]["rows_unloaded"])

    def count_parquet_rows(self, location: StageLocation) -> int:
        """Count the rows of the Parquet files in a directory.

        Needs CREATE FILE FORMAT on the schema where unqualified names are.
        """
        file_format = self.parquet_format(self.default_schema())
        return int(
            self.value(
                f"SELECT COUNT(*) FROM {literal(location.sql)} "
                f"(FILE_FORMAT => {literal(file_format.sql)}, PATTERN => '.*[.]parquet')"
            )
        )

    def parquet_format(self, schema: SchemaName) -> QualifiedName:
        """A temporary Parquet file format of this connection, which querying a stage needs a name of."""
        name = QualifiedName(schema.database, schema.schema, Identifier("SNOWML_PARQUET"))
        if name.sql not in self._temporary_file_formats:
            # Without USE_LOGICAL_TYPE the times that pyarrow writes are taken for numbers.
            self.rows(
                f"CREATE TEMPORARY FILE FORMAT IF NOT EXISTS {name.sql} "
                "TYPE = PARQUET USE_LOGICAL_TYPE = TRUE"
            )
            self._temporary_file_formats.add(name.sql)
        return name

    # -- jobs -------------------------------------------------------------------------------------------

    def submit(self, sql: str) -> str:
        """Send a statement without waiting for it, and return its query id.

        It runs on when the connection is closed: the connector then leaves the session open.
        """
        with self.open_connection() as connection, mapped_errors():
            cursor = connection.cursor()
            try:
                cursor.execute_async(sql)
                return str(cursor.sfqid)
            finally:
                cursor.close()

    def statement(self, query_id: str) -> tuple[Statement, str]:
        """How a submitted statement is doing, and Snowflake's message if it failed."""
        with self.open_connection() as connection, mapped_errors():
            status = connection.get_query_status(query_id)
            if connection.is_an_error(status):
                return Statement.FAILED, self._statement_failure(connection, query_id)
            if status.name == "NO_DATA":
                return Statement.UNKNOWN, ""
            return (Statement.RUNNING if connection.is_still_running(status) else Statement.SUCCEEDED), ""

    @staticmethod
    def _statement_failure(connection: SnowflakeConnection, query_id: str) -> str:
        try:
            connection.get_query_status_throw_if_error(query_id)
        except Exception as error:
            ours = as_statement_error(error)
            # Not what a retry of a statement does: what fails here is a job.
            return str(error) if ours is None else str(ours).removesuffix(ours.on_retry).rstrip()
        return "unknown"

    def find_running_statement(self, start: str, part: str, *, since: str | None = None) -> str | None:
        """The query id of a statement of this user that has not ended; ``None`` if there is none.

        :param start: what its text starts with.
        :param part: what its text contains.
        :param since: only if it was not sent before, in ISO format.
        """
        not_before = f" AND START_TIME >= TO_TIMESTAMP_LTZ({literal(since)})" if since else ""
        database = self.default_schema().database.sql
        rows = self.rows(
            f"SELECT QUERY_ID FROM TABLE({database}.INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER("
            "RESULT_LIMIT => 10000)) WHERE EXECUTION_STATUS IN "
            "('RESUMING_WAREHOUSE', 'RUNNING', 'QUEUED', 'BLOCKED') "
            f"AND STARTSWITH(QUERY_TEXT, {literal(start)}) AND CONTAINS(QUERY_TEXT, {literal(part)})"
            f"{not_before} ORDER BY START_TIME DESC"
        )
        return str(rows[0]["QUERY_ID"]) if rows else None

    def cancel_statement(self, query_id: str) -> None:
        """Cancel a running statement; one that has ended is left as it is."""
        self.rows(f"SELECT SYSTEM$CANCEL_QUERY({literal(query_id)})")

    def job_status(self, job: QualifiedName) -> str | None:
        """The job's status; ``None`` if there is no such job."""
        try:
            rows = self.rows(f"DESCRIBE SERVICE {job.sql}")
        except ObjectNotFoundError:
            return None
        return str(rows[0]["status"]) if rows else None

    def list_jobs(self, schema: SchemaName, name_prefix: str = "") -> dict[str, str]:
        """The statuses of a schema's job services, by name.

        :param schema: the schema.
        :param name_prefix: only jobs whose names start with it.
        """
        like = f" LIKE {literal(name_prefix + '%')}" if name_prefix else ""
        rows = self.rows(f"SHOW JOB SERVICES{like} IN SCHEMA {schema.sql}")
        # LIKE ignores case and takes _ for any character.
        return {row["name"]: row["status"] for row in rows if row["name"].startswith(name_prefix)}

    def cancel_job(self, job: QualifiedName) -> None:
        """Cancel a job and keep it, with its logs, for inspection. Needs OPERATE on it.

        :raises ObjectNotFoundError: if there is no such job.
        """
        self.rows(f"CALL {job.sql}!SPCS_CANCEL_JOB()")

    def delete_job(self, job: QualifiedName) -> None:
        """Drop a job, and its logs with it."""
        self.rows(f"DROP SERVICE IF EXISTS {job.sql}")

    def container_logs(self, job: QualifiedName, lines: int) -> dict[tuple[str, str], str]:
        """The last lines of each of a job's containers, by instance and container. Needs MONITOR on it.

        :param job: the job.
        :param lines: lines per container, at most.
        """
        texts = {}
        for row in self.rows(f"SHOW SERVICE CONTAINERS IN SERVICE {job.sql}"):
            instance, container = str(row["instance_id"]), str(row["container_name"])
            log = self.value(
                f"SELECT SYSTEM$GET_SERVICE_LOGS({literal(job.sql)}, {literal(instance)}, "
                f"{literal(container)}, {int(lines)})"
            )
            texts[instance, container] = str(log or "").rstrip()
        return texts

    def job_logs(self, job: QualifiedName, lines: int = 50) -> str:
        """The same as one text."""
        return "\n".join(
            f"--- container {container}, instance {instance}\n{text}"
            for (instance, container), text in self.container_logs(job, lines).items()
        )

    def observe_job(
        self, job: QualifiedName | None, output: StageLocation, query_id: str | None = None
    ) -> Observation:
        """One look at a job: one statement while it runs, two or three when it ends.

        :param job: the job; ``None`` to look at the output alone.
        :param output: its output directory.
        :param query_id: the statement that starts it, if known.
        """
        with self.open_connection():
            status = self.job_status(job) if job is not None else None
            if status is not None and status != DONE:
                return Observation(status)
            statement, error = Statement.UNKNOWN, ""
            if job is not None and status is None and query_id:
                statement, error = self.statement(query_id)
                if statement is not Statement.RUNNING:
                    # The job may have come between the two looks.
                    status = self.job_status(job)
                    if status is not None and status != DONE:
                        return Observation(status, False, statement, error)
            success = f"{output.path}{SUCCESS_FILE}" in self.files(output, SUCCESS_FILE)
            return Observation(status, success, statement, error)

    def query_page(self, query_id: str) -> str | None:
        """The query's page in Snowsight, ``None`` if there is no Snowsight; asks nobody."""
        with self.open_connection() as connection:
            return query_page(
                host=str(connection.host),
                account=str(connection.account),
                region=connection.region,
                query_id=query_id,
            )

    # -- before anything runs ---------------------------------------------------------------------------

    def preflight(self, steps: Sequence[Step]) -> PreflightReport:
        """Look which privileges and objects are missing for what will be done, and what it may cost.

        :param steps: what will be done; see :mod:`.preflight_steps`.
        :return: what was found; as a text, all of it.
        :raises InvalidNameError: for a name that is none.
        """
        from airflow_provider_snowml.hooks.preflight import preflight

        return preflight(self, steps)

    # -- for messages -----------------------------------------------------------------------------------

    def _current_role(self) -> str:
        return str(self.value("SELECT CURRENT_ROLE()"))

    def listing(self, show: str) -> str:
        """The names that a SHOW statement lists, for an error's text."""
        try:
            names: Sequence[str] = [str(row["name"]) for row in self.rows(show)]
        except SnowMLError as error:
            return f"(could not be listed: {error})"
        shown = ", ".join(names[:20]) or "none"
        return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
