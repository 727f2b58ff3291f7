"""The output directories that are complete, of jobs that need not be known."""

from __future__ import annotations

import os.path
from collections.abc import Collection
from email.utils import parsedate_to_datetime

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.core.names import StageLocation, literal
from airflow_provider_snowml.exceptions import ObjectNotFoundError, StatementError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import KeptConnection, in_short, refusal


def find_successes(hook: SnowMLHook, base: StageLocation) -> dict[str, float]:
    """The directories right in another one that have ``_SUCCESS``, and when that was written, an epoch."""
    rows = hook.rows(f"LIST {literal(base.sql)} PATTERN = '.*/{SUCCESS_FILE}'")
    found = {}
    for row in rows:
        name = str(row["name"]).split("/", 1)[1].removeprefix(base.path).removesuffix(f"/{SUCCESS_FILE}")
        if "/" not in name:
            written = parsedate_to_datetime(str(row["last_modified"])).timestamp()
            found[f"{base.sql}{name}/"] = written
    return found


def are_complete(hook: SnowMLHook, outputs: Collection[StageLocation]) -> dict[StageLocation, bool | str]:
    """Whether ``_SUCCESS`` is in each output, by one listing per directory that they lie in.

    The listing is of what starts like all of them: of the same task's jobs, that leaves out other tasks'.

    :return: a text where the listing failed.
    """
    by_base: dict[StageLocation, list[StageLocation]] = {}
    for output in outputs:
        by_base.setdefault(_base_of(output), []).append(output)
    found: dict[StageLocation, bool | str] = {}
    for base, ours in by_base.items():
        wanted = {output: f"{output.path}{SUCCESS_FILE}" for output in ours}
        # By characters, not directories: a listing is of whatever starts so.
        prefix = os.path.commonprefix([path.removeprefix(base.path) for path in wanted.values()])  # noqa: RUF071
        pattern = f".*{SUCCESS_FILE}" if len(wanted) > 1 else None
        try:
            there = set(hook.files(base, prefix, pattern=pattern))
        except StatementError as error:  # no reason for those in other directories to wait
            found |= dict.fromkeys(ours, refusal(error))
        else:
            found |= {output: path in there for output, path in wanted.items()}
    return found


def _base_of(output: StageLocation) -> StageLocation:
    above, slash, _ = output.path.rstrip("/").rpartition("/")
    return StageLocation(output.stage, above + slash)


class SuccessesWatch:
    """Looks for complete outputs again and again, over one connection that it keeps and replaces when it
    breaks.

    :param hook: the hook, used by nobody else meanwhile.
    """

    def __init__(self, hook: SnowMLHook) -> None:
        self._connection = KeptConnection(hook)

    def look(self, waited: Collection[str]) -> dict[str, dict[str, float] | str]:
        """The complete directories in each location, or why the look failed. Nothing is raised."""
        return {location: self._look(location) for location in waited}

    def _look(self, location: str) -> dict[str, float] | str:
        try:
            with self._connection.use() as hook:
                base = StageLocation.parse(location, hook.default_schema(), what="output_stage_location")
                try:
                    return find_successes(hook, base)
                except ObjectNotFoundError as error:  # a stage is gone: no reason for a new connection
                    return in_short(error)
        except Exception as error:  # whatever it is, it may be better by the next look
            return in_short(error)

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()
