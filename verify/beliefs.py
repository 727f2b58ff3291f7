"""What the batch contract rests on, one belief at a time. The names stand in the table of the docs, too."""

from __future__ import annotations

from airflow_provider_snowml.core.batch_job import DONE, ENDED, SUCCESS_FILE
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import literal
from airflow_provider_snowml.hooks.batch_jobs import log_tail
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from verify.checks import check, must
from verify.place import Place

WAITERS = 20  # for one table's lock


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
    with hook.open_connection():
        query_id = hook.submit(
            "CREATE TABLE SLOW AS SELECT SEQ8() AS A FROM TABLE(GENERATOR(TIMELIMIT => 5))"
        )
        found = place.until(
            lambda: (
                hook.find_running_statement("CREATE TABLE SLOW", "TIMELIMIT") or hook.statement(query_id)[0]
            ),
            lambda it: it is not Statement.RUNNING,
            "the history",
        )
        must(found == query_id, f"it ended ({found}) and was not seen")


@check(
    "statement-outlives-connection",
    "Closing a connector connection leaves its asynchronous statements running",
)
def statement_outlives_connection(place: Place) -> None:
    query_id = place.hook.submit(
        "CREATE TABLE OUTLIVES AS SELECT SEQ8() AS A FROM TABLE(GENERATOR(TIMELIMIT => 3))"
    )
    error = place.statement_error(query_id)
    must(error is None, error)
    place.hook.rows("SELECT COUNT(*) FROM OUTLIVES")


@check("name-before", "DESCRIBE SERVICE of a job that is not there says 002003", wants_pool=True)
def name_before(place: Place) -> None:
    errno = place.refused(f"DESCRIBE SERVICE {place.name('NOBODY').sql}")
    must(errno == 2003, f"error {errno:06d}")


@check("job-service-exists", "ASYNC = TRUE returns when the job service exists", wants_pool=True)
def job_service_exists(place: Place) -> str:
    error = place.statement_error(place.submit("SNOWML_FIRST", 3))
    must(error is None, error)
    status = place.hook.job_status(place.name("SNOWML_FIRST"))
    must(status is not None, "DESCRIBE SERVICE does not know it")
    return f"it is {status}"


@check("name-taken-live", "A live job's name is taken: submitting it again says 002002", wants_pool=True)
def name_taken_live(place: Place) -> None:
    place.statement_error(place.submit("SNOWML_LIVE", 20))
    _must_be_taken(place, "SNOWML_LIVE")
    end = place.hook.job_status(place.name("SNOWML_LIVE"))
    must(end not in ENDED, f"the first job is {end}")


@check(
    "listing-live", "SHOW JOB SERVICES LIKE ... IN SCHEMA lists a live job, with its status", wants_pool=True
)
def listing_live(place: Place) -> str:
    jobs = place.hook.list_jobs(place.schema, "SNOWML_")
    must(jobs.get("SNOWML_LIVE") in ("PENDING", "RUNNING"), f"it lists {jobs}")
    return f"it is {jobs['SNOWML_LIVE']}"


@check("cancel-keeps", "SPCS_CANCEL_JOB ends a job as CANCELLED and keeps it, with its logs", wants_pool=True)
def cancel_keeps(place: Place) -> None:
    job = place.name("SNOWML_LIVE")
    place.until(lambda: place.hook.job_status(job), lambda it: it != "PENDING", "SNOWML_LIVE")
    place.hook.cancel_job(job)
    status = place.ended("SNOWML_LIVE")
    must(status == "CANCELLED", f"it is {status}")
    logs = log_tail(place.hook, job)
    must("could not be read" not in logs, logs)


@check("done-and-success", "_SUCCESS is in <output>/<job name>/ when the job is DONE", wants_pool=True)
def done_and_success(place: Place) -> str:
    """Both orders are handled: what is seen is which one it is."""
    job, output = place.name("SNOWML_FIRST"), place.stage("out") / "SNOWML_FIRST"
    path = f"{output.path}{SUCCESS_FILE}"

    def look() -> tuple[bool, str | None]:
        # In this order: a file that comes between the two looks would else pass for one that was late.
        status = place.hook.job_status(job)
        return path in place.hook.files(output), status

    early, status = place.until(look, lambda it: it[0] or it[1] in ENDED, "SNOWML_FIRST")
    place.ended("SNOWML_FIRST")
    must(status == DONE or early, f"the job is {status}")
    late = place.until(lambda: path in place.hook.files(output), bool, "_SUCCESS")
    must(early and late, "_SUCCESS came after DONE")
    return f"the job was {status} when _SUCCESS was first seen"


@check("name-taken-ended", "An ended job's name stays taken until DROP SERVICE", wants_pool=True)
def name_taken_ended(place: Place) -> None:
    _must_be_taken(place, "SNOWML_FIRST")


@check("listing-ended", "SHOW JOB SERVICES lists ended jobs too", wants_pool=True)
def listing_ended(place: Place) -> None:
    jobs = place.hook.list_jobs(place.schema, "SNOWML_")
    must(jobs.get("SNOWML_FIRST") == DONE, f"it lists {jobs}")


@check("save-mode-error", "SaveMode ERROR refuses a job's own directory that has files", wants_pool=True)
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
    wants_pool=True,
)
def name_after_drop(place: Place) -> None:
    place.hook.write_file(place.stage("out"), "neighbour", b"1")
    place.hook.delete_job(place.name("SNOWML_FIRST"))
    error = place.statement_error(place.submit("SNOWML_FIRST", save_mode="overwrite"))
    must(error is None, error)
    status = place.ended("SNOWML_FIRST")
    must(status == DONE, f"the job is {status}")
    must("out/neighbour" in place.hook.files(place.stage("out")), "a file beside it is gone")


@check("input-in-output", "The input may not lie inside the output location", wants_pool=True)
def input_in_output(place: Place) -> str:
    place.hook.copy_into_location(place.stage("out/inside"), "SELECT 0::FLOAT AS F1")
    error = place.statement_error(place.submit("SNOWML_INSIDE", input_location=place.stage("out/inside")))
    must(error is not None, "it was submitted")
    return str(error).splitlines()[0][:120]


@check("no-input-rows", "A job without input rows fails", wants_pool=True)
def no_input_rows(place: Place) -> str:
    error = place.statement_error(place.submit("SNOWML_EMPTY", None))
    if error is not None:
        return error.splitlines()[0][:120]
    status = place.ended("SNOWML_EMPTY")
    must(status == "FAILED", f"it is {status}")
    return f"it is {status}"


@check("failed-status", "A job whose model raises is FAILED, and its logs say why", wants_pool=True)
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
