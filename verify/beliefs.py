"""What the batch contract rests on, one belief at a time. The names stand in the table of the docs, too."""

from __future__ import annotations

import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from airflow_provider_snowml.core.batch_job import DONE, ENDED, SUCCESS_FILE
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import literal
from airflow_provider_snowml.hooks.batch_jobs import build_job, log_tail
from airflow_provider_snowml.hooks.services import snowflake_time
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.batch_inference import GRACE
from verify.checks import FILES, FIRST, check, must
from verify.place import Place

WAITERS = 20  # for one table's lock
INFERRED = 1000  # files that INFER_SCHEMA is told
LIVE, AFTERWARDS, ODD = "a live job", "an ended job", "odd jobs"


@check("stage-prefix", "A stage path is a prefix of file names")
def stage_prefix(place: Place) -> None:
    for name in ("p/a", "p/ab"):
        place.hook.write_file(place.stage(name), "f", b"1")
    found = place.hook.files(place.stage("p"), "a")
    must(len(found) == 2, f"LIST of .../p/a finds {found}")


@check("unload-of-nothing", "COPY INTO @location of no rows writes no file and says 0 rows")
def unload_of_nothing(place: Place) -> None:
    rows = place.hook.copy_into_location(place.stage("none"), "SELECT 1 AS A WHERE FALSE")
    found = place.hook.files(place.stage("none"))
    must((rows, found) == (0, []), f"{rows} rows, files {found}")


@check("unload-overwrites", "COPY INTO @location with OVERWRITE replaces files of the same name only")
def unload_overwrites(place: Place) -> None:
    place.hook.write_file(place.stage("over"), "other.parquet", b"other")
    for _ in range(2):
        place.hook.copy_into_location(place.stage("over"), "SELECT 1 AS A")
    found = place.hook.files(place.stage("over"))
    must(len(found) == 2, f"files {found}")


@check("zoned-times", "COPY INTO @location refuses TIMESTAMP_TZ and TIMESTAMP_LTZ in Parquet with 100171")
def zoned_times(place: Place) -> None:
    for kind in ("TIMESTAMP_TZ", "TIMESTAMP_LTZ"):
        errno = place.refused(
            f"COPY INTO {literal(place.stage('zoned').sql)} FROM (SELECT CURRENT_TIMESTAMP()::{kind} AS T) "
            "FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
        )
        must(errno == 100171, f"error {errno:06d} for {kind}")


@check("load-skips", "COPY INTO a table skips files that were loaded into it")
def load_skips(place: Place) -> None:
    place.hook.copy_into_location(place.stage("once"), "SELECT 1 AS A")
    place.hook.rows("CREATE TABLE ONCE (A INT)")
    for _ in range(2):
        place.hook.rows(
            f"COPY INTO ONCE FROM {literal(place.stage('once').sql)} FILE_FORMAT = (TYPE = PARQUET) "
            "MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
        )
    rows = place.hook.value("SELECT COUNT(*) FROM ONCE")
    must(rows == 1, f"{rows} rows after loading one twice")


@check("listed-times", "LIST tells times as RFC 1123 has them, in GMT, whatever the session's TIMEZONE")
def listed_times(place: Place) -> str:
    place.hook.rows("ALTER SESSION SET TIMEZONE = 'Asia/Kolkata'")
    place.hook.write_file(place.stage("times"), "f", b"1")
    (row,) = place.hook.rows(f"LIST {literal(place.stage('times').sql)}")
    text = str(row["last_modified"])
    age = (snowflake_time(place.hook) - parsedate_to_datetime(text)).total_seconds()
    # It has whole seconds, and the clocks are two.
    must(text.endswith(" GMT") and -60 < age < 300, f"a file that was just written is of {text}")
    return text


@check("add-column-again", "ALTER TABLE ADD COLUMN IF NOT EXISTS takes a column that is there")
def add_column_again(place: Place) -> None:
    place.hook.rows("CREATE TABLE WIDER (A INT)")
    for _ in range(2):
        place.hook.rows("ALTER TABLE WIDER ADD COLUMN IF NOT EXISTS B VARCHAR(16777216)")
    found = place.hook.columns("SELECT * FROM WIDER")
    must(found == ["A", "B"], f"its columns are {found}")


@check("inferred-files", f"INFER_SCHEMA takes the names of {INFERRED} files", FILES)
def inferred_files(place: Place) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"{number}.parquet" for number in range(INFERRED)]
    with tempfile.TemporaryDirectory() as directory:
        pq.write_table(pa.table({"A": [1]}), Path(directory, names[0]))
        for name in names[1:]:
            Path(directory, name).hardlink_to(Path(directory, names[0]))
        source = Path(directory, "*.parquet").as_posix()
        place.hook.rows(
            f"PUT {literal(f'file://{source}')} {literal(place.stage('many').sql)} "
            "AUTO_COMPRESS = FALSE PARALLEL = 16"
        )
    found = place.hook.rows(
        f"SELECT COLUMN_NAME FROM TABLE(INFER_SCHEMA(LOCATION => {literal(place.stage('many').sql)}, "
        f"FILE_FORMAT => {literal(place.hook.parquet_format(place.schema).sql)}, "
        f"FILES => ({', '.join(map(literal, names))}), IGNORE_CASE => TRUE))"
    )
    must([row["COLUMN_NAME"] for row in found] == ["A"], f"it finds {found}")


@check("failure-in-transaction", "A failed statement does not end a transaction; DDL commits it")
def failure_in_transaction(place: Place) -> None:
    hook = place.hook
    with hook.open_connection():
        for table, between in (("T1", "SELECT * FROM NOT_THERE"), ("T2", "CREATE TABLE T3 (A INT)")):
            hook.rows(f"CREATE TABLE {table} (A INT)")
            hook.rows("BEGIN")
            hook.rows(f"INSERT INTO {table} VALUES (1)")
            if table == "T1":
                place.refused(between)
            else:
                hook.rows(between)
            hook.rows(f"INSERT INTO {table} VALUES (2)")
            hook.rows("ROLLBACK")
        # Both of T1 are gone; of T2 both stay: the first is committed by the DDL, the second by itself.
        rows = [int(hook.value(f"SELECT COUNT(*) FROM {table}")) for table in ("T1", "T2")]
    must(rows == [0, 2], f"after ROLLBACK there are {rows} rows of two and two")


@check(
    "current-transaction", "CURRENT_TRANSACTION() is the one that is open, in a DML statement too, else NULL"
)
def current_transaction(place: Place) -> None:
    hook = place.hook
    with hook.open_connection():
        hook.rows("CREATE TABLE IN_TRANSACTION (A INT)")
        hook.rows("BEGIN")
        transaction = hook.value("SELECT CURRENT_TRANSACTION()")
        must(transaction is not None, "CURRENT_TRANSACTION() is NULL after BEGIN")
        insert = f"INSERT INTO IN_TRANSACTION SELECT 1 WHERE CURRENT_TRANSACTION() = '{transaction}'"
        hook.rows(insert)
        hook.rows("ROLLBACK")
        hook.rows(insert)  # in no transaction, or one of its own
        rows = int(hook.value("SELECT COUNT(*) FROM IN_TRANSACTION"))
        after = hook.value("SELECT CURRENT_TRANSACTION()")
    must(rows == 0, f"{rows} rows were inserted after the transaction had ended")
    must(after is None, f"CURRENT_TRANSACTION() is {after!r} without a transaction")


@check("lock-timeout", "A statement that waits longer than LOCK_TIMEOUT fails with 000610")
def lock_timeout(place: Place) -> None:
    hook = place.hook
    hook.rows("CREATE TABLE LOCKED AS SELECT 1 AS A")
    holder = SnowMLHook(place.conn_id, database=hook.database, schema=hook.schema)
    with holder.open_connection(), hook.open_connection():
        holder.rows("BEGIN")
        holder.rows("DELETE FROM LOCKED")
        hook.rows("ALTER SESSION SET LOCK_TIMEOUT = 2")
        errno = place.refused("DELETE FROM LOCKED")
        holder.rows("ROLLBACK")
    must(errno == 610, f"error {errno:06d}")


@check("lock-waiters", "The 21st that waits for a table's lock gets 000625")
def lock_waiters(place: Place) -> str:
    hook = place.hook
    hook.rows("CREATE TABLE CROWDED AS SELECT 1 AS A")
    with hook.open_connection():
        hook.rows("BEGIN")
        hook.rows("DELETE FROM CROWDED")
        waiting: list[SnowMLHook] = []
        ids = []
        try:
            for _ in range(WAITERS + 1):
                waiter = SnowMLHook(place.conn_id, database=hook.database, schema=hook.schema)
                ids.append(waiter.submit("DELETE FROM CROWDED"))
                waiting.append(waiter)
            errors = place.until(
                lambda: [error for status, error in map(hook.statement, ids) if status is Statement.FAILED],
                bool,
                "the last that waits",
                120,  # they may take all that the warehouse runs at once
            )
        finally:
            hook.rows("ROLLBACK")
            for query_id in ids:
                hook.cancel_statement(query_id)
    must(len(errors) == 1 and "625" in errors[0], f"errors {errors}")
    return errors[0].splitlines()[0][:120]


@check("history-while-running", "QUERY_HISTORY_BY_USER shows a statement while it runs")
def history_while_running(place: Place) -> None:
    hook = place.hook
    query_id = hook.submit("CALL SYSTEM$WAIT(60)")
    found = place.until(
        lambda: hook.find_running_statement("CALL SYSTEM$WAIT", "60") or hook.statement(query_id)[0],
        lambda it: it is not Statement.RUNNING,
        "the history",
    )
    hook.cancel_statement(query_id)
    must(found == query_id, f"it ended ({found}) and was not seen")


@check(
    "statement-outlives-connection",
    "Closing a connector connection leaves its asynchronous statements running",
)
def statement_outlives_connection(place: Place) -> None:
    other = SnowMLHook(place.conn_id, database=place.hook.database, schema=place.hook.schema)
    query_id = other.submit("CALL SYSTEM$WAIT(3)")  # on a connection of its own, which is closed by now
    error = place.statement_error(query_id)
    must(error is None, error)


@check("name-before", "DESCRIBE SERVICE of a job that is not there says 002003", FIRST)
def name_before(place: Place) -> None:
    errno = place.refused(f"DESCRIBE SERVICE {place.name('NOBODY').sql}")
    must(errno == 2003, f"error {errno:06d}")


@check("job-service-exists", "ASYNC = TRUE returns when the job service exists", FIRST)
def job_service_exists(place: Place) -> str:
    place.notes["SNOWML_FIRST"] = query_id = place.submit("SNOWML_FIRST", 3)
    error = place.statement_error(query_id)
    must(error is None, error)
    status = place.hook.job_status(place.name("SNOWML_FIRST"))
    must(status is not None, "DESCRIBE SERVICE does not know it")
    return f"it is {status}"


@check("image-build", "The first job of a version has its image built by MODEL_BUILD_<hash>", FIRST)
def image_build(place: Place) -> str:
    job = build_job(place.name("SNOWML_FIRST"), place.noted("SNOWML_FIRST"))
    status = place.hook.job_status(job)
    must(status is not None, f"there is no {job.name}, but {place.hook.list_jobs(place.schema)}")
    return f"it is {status}"


@check("name-taken-live", "A live job's name is taken: submitting it again says 002002", LIVE)
def name_taken_live(place: Place) -> None:
    place.statement_error(place.submit("SNOWML_LIVE", 300))
    _must_be_taken(place, "SNOWML_LIVE")
    end = place.hook.job_status(place.name("SNOWML_LIVE"))
    must(end not in ENDED, f"the first job is {end}")


@check("listing-live", "SHOW JOB SERVICES LIKE ... IN SCHEMA lists a live job, with its status", LIVE)
def listing_live(place: Place) -> str:
    jobs = place.hook.list_jobs(place.schema, "SNOWML_")
    must(jobs.get("SNOWML_LIVE") in ("PENDING", "RUNNING"), f"it lists {jobs}")
    return f"it is {jobs['SNOWML_LIVE']}"


@check("cancel-keeps", "SPCS_CANCEL_JOB ends a job as CANCELLED and keeps it, with its logs", LIVE)
def cancel_keeps(place: Place) -> None:
    job = place.name("SNOWML_LIVE")
    place.until(lambda: place.hook.job_status(job), lambda it: it != "PENDING", "SNOWML_LIVE")
    place.hook.cancel_job(job)
    status = place.ended("SNOWML_LIVE")
    must(status == "CANCELLED", f"it is {status}")
    logs = log_tail(place.hook, job)
    must("could not be read" not in logs, logs)


@check("done-and-success", "A job that is DONE has _SUCCESS in <output>/<job name>/, or soon has", AFTERWARDS)
def done_and_success(place: Place) -> str:
    """Both orders are handled: which one is seen is told."""
    job, output = place.name("SNOWML_FIRST"), place.stage("out") / "SNOWML_FIRST"
    path = f"{output.path}{SUCCESS_FILE}"

    def look() -> tuple[bool, str | None]:
        # In this order: a file that comes between the two looks would else pass for one that was late.
        status = place.hook.job_status(job)
        return path in place.hook.files(output), status

    early, status = place.until(look, lambda it: it[0] or it[1] in ENDED, "SNOWML_FIRST")
    ended = place.ended("SNOWML_FIRST")
    must(ended == DONE, f"the job is {ended}")
    if early:
        return f"the job was {status} when _SUCCESS was first seen"
    since = time.monotonic()
    place.until(
        lambda: path in place.hook.files(output) or time.monotonic() > since + GRACE, bool, "_SUCCESS"
    )
    must(path in place.hook.files(output), f"{GRACE:g} s after DONE there is no _SUCCESS")
    return f"_SUCCESS came {time.monotonic() - since:.1f} s after DONE"


@check("name-taken-ended", "An ended job's name stays taken until DROP SERVICE", AFTERWARDS)
def name_taken_ended(place: Place) -> None:
    _must_be_taken(place, "SNOWML_FIRST")


@check("listing-ended", "SHOW JOB SERVICES lists ended jobs too", AFTERWARDS)
def listing_ended(place: Place) -> None:
    jobs = place.hook.list_jobs(place.schema, "SNOWML_")
    must(jobs.get("SNOWML_FIRST") == DONE, f"it lists {jobs}")


@check("save-mode-error", "SaveMode ERROR refuses a job's own directory that has files", AFTERWARDS)
def save_mode_error(place: Place) -> str:
    place.hook.delete_job(place.name("SNOWML_FIRST"))
    error = place.statement_error(place.submit("SNOWML_FIRST"))
    if error is None:
        status = place.ended("SNOWML_FIRST")
        must(status != DONE, "it ran")
        place.hook.delete_job(place.name("SNOWML_FIRST"))
        return f"not when it is submitted: the job is {status}"
    return error.splitlines()[0][:120]


@check(
    "name-after-drop",
    "After DROP SERVICE the name is free; OVERWRITE clears that directory only",
    AFTERWARDS,
)
def name_after_drop(place: Place) -> None:
    place.hook.write_file(place.stage("out"), "neighbour", b"1")
    place.hook.delete_job(place.name("SNOWML_FIRST"))
    error = place.statement_error(place.submit("SNOWML_FIRST", save_mode="overwrite"))
    must(error is None, error)
    status = place.ended("SNOWML_FIRST")
    must(status == DONE, f"the job is {status}")
    must("out/neighbour" in place.hook.files(place.stage("out")), "a file beside it is gone")


@check("input-in-output", "The input may not lie inside the output location", ODD)
def input_in_output(place: Place) -> str:
    place.hook.copy_into_location(place.stage("out/inside"), "SELECT 0::FLOAT AS F1")
    error = place.statement_error(place.submit("SNOWML_INSIDE", input_location=place.stage("out/inside")))
    must(error is not None, "it was submitted")
    return str(error).splitlines()[0][:120]


@check("no-input-rows", "A job without input rows fails", ODD)
def no_input_rows(place: Place) -> str:
    error = place.statement_error(place.submit("SNOWML_EMPTY", None))
    if error is not None:
        return error.splitlines()[0][:120]
    status = place.ended("SNOWML_EMPTY")
    must(status == "FAILED", f"it is {status}")
    return f"it is {status}"


@check("failed-status", "A job whose model raises is FAILED, and its logs say why", ODD)
def failed_status(place: Place) -> None:
    error = place.statement_error(place.submit("SNOWML_BROKEN", -1))
    must(error is None, error)
    status = place.ended("SNOWML_BROKEN")
    logs = log_tail(place.hook, place.name("SNOWML_BROKEN"))
    must(status == "FAILED" and "broke on purpose" in logs, f"it is {status}, and its logs end {logs[-300:]}")


def _must_be_taken(place: Place, name: str) -> None:
    """A second job of the name is refused, with 002002."""
    before = place.statements[name]
    query_id = place.submit(name, 20, save_mode="overwrite")
    place.statements[name] = before
    error = place.statement_error(query_id)
    must(error is not None and "002002" in error, error or "it was submitted")
