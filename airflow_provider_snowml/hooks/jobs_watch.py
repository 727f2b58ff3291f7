"""Many batch jobs of a schema, looked at together: for a poll that all their triggers share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from airflow_provider_snowml.core.batch_job import DONE, PREFIX
from airflow_provider_snowml.core.batch_poller import Observation, Statement
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.exceptions import StatementError
from airflow_provider_snowml.hooks.batch_jobs import job_identifier
from airflow_provider_snowml.hooks.batch_success import are_complete
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import KeptConnection, in_short, refusal

STATEMENTS_PER_LOOK = 20
_ENDS = (Statement.SUCCEEDED, Statement.FAILED)


@dataclass(frozen=True)
class Waited:
    """A job that is waited for.

    :param job_name: its full name; ``None`` to look at its output alone.
    :param output: its output directory, fully qualified.
    :param query_id: the statement that starts it, if known.
    """

    job_name: str | None
    output: str
    query_id: str | None


class JobsWatch:
    """Looks at many jobs of a schema at once, over one connection that it keeps and replaces when it breaks.

    A look is one listing of the schema's jobs, and one of each directory in which somebody's ``_SUCCESS``
    matters by now. For jobs whose statement still runs (an image is built) there is also a request to the
    query monitor: no statement, and no warehouse, as the query history would need.

    :param hook: the hook, used by nobody else meanwhile.
    :param schema: the schema.
    """

    def __init__(self, hook: SnowMLHook, schema: SchemaName) -> None:
        self.schema = schema
        self._connection = KeptConnection(hook)
        self._statements = _Statements()

    def look(self, waited: Collection[Waited]) -> dict[Waited, Observation | str]:
        """What it saw of each, or why the look failed. Nothing is raised."""
        seen: dict[Waited, Observation | str] = {}
        try:
            with self._connection.use() as hook:
                seen = self._look(hook, waited)
                if seen and all(isinstance(one, str) for one in seen.values()):
                    raise ConnectionError("no look succeeded")  # a new connection is worth a try
                return seen
        except Exception as error:  # whatever it is, each that waits counts it
            return {job: seen.get(job, in_short(error)) for job in waited}

    def close(self) -> None:
        """Close its connection. What it looked at goes on."""
        self._connection.close()

    def _look(self, hook: SnowMLHook, waited: Collection[Waited]) -> dict[Waited, Observation | str]:
        listed = self._list(hook, waited)
        starting = {job.query_id for job in waited if job.query_id and job.job_name not in listed}
        self._statements.look(hook, starting)
        seen: dict[Waited, Observation | str] = {}
        for job in waited:
            if job.job_name in listed:
                seen[job] = Observation(listed[job.job_name])
            elif job.job_name is None:
                seen[job] = Observation()
            else:
                seen[job] = self._look_for(hook, QualifiedName.parse(job.job_name), job.query_id)
        may_be_complete = {
            job: StageLocation.parse(job.output) for job, one in seen.items() if _wants_success(one)
        }
        complete = are_complete(hook, set(may_be_complete.values()))
        for job, output in may_be_complete.items():
            success, one = complete[output], seen[job]
            if isinstance(one, Observation):
                seen[job] = success if isinstance(success, str) else replace(one, success=success)
        return seen

    def _list(self, hook: SnowMLHook, waited: Collection[Waited]) -> dict[str | None, str]:
        """The statuses of the jobs that are listed, by full name."""
        names = [QualifiedName.parse(job.job_name).name.name for job in waited if job.job_name]
        ours = f"{PREFIX}_"
        prefix = ours if all(name.startswith(ours) for name in names) else ""
        statuses = hook.list_jobs(self.schema, prefix) if names else {}
        return {job_identifier(self.schema, name).sql: status for name, status in statuses.items()}

    def _look_for(self, hook: SnowMLHook, job: QualifiedName, query_id: str | None) -> Observation | str:
        """A job that is not listed: not made yet, gone, or one too many for a listing of 10,000.

        One that cannot be looked at is no reason for the others to wait.
        """
        statement = self._statements.last(query_id)
        if statement[0] is Statement.RUNNING:
            return Observation(statement=Statement.RUNNING)
        try:
            return Observation(hook.job_status(job), False, *statement)
        except StatementError as error:
            return refusal(error)


def _wants_success(one: Observation | str) -> bool:
    return (
        isinstance(one, Observation) and one.status in (None, DONE) and one.statement is not Statement.RUNNING
    )


class _Statements:
    """How the statements do that still start their jobs; a look asks after a few of them, in turn.

    One that was not asked after yet runs: whoever deferred has looked.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Statement, str]] = {}  # in the order of their turns

    def look(self, hook: SnowMLHook, query_ids: Collection[str]) -> None:
        """Ask after some of them, and forget all others."""
        known = {one: how for one, how in self._last.items() if one in query_ids}
        new = {one: (Statement.RUNNING, "") for one in query_ids if one not in known}
        self._last = new | known
        open_ = [one for one, (how, _) in self._last.items() if how not in _ENDS]
        for query_id in open_[:STATEMENTS_PER_LOOK]:
            how = hook.statement(query_id)
            del self._last[query_id]  # to the end
            self._last[query_id] = how

    def last(self, query_id: str | None) -> tuple[Statement, str]:
        """What was seen last."""
        return self._last[query_id] if query_id else (Statement.UNKNOWN, "")
