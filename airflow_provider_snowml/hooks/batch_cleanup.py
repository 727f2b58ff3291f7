"""What a batch job leaves behind, found and removed, in an order that a crash may come between.

Each step leaves something that the batch task knows what to do about, should it be run again: a job that is
gone and whose result is there is attached to; a directory without a manifest is left, and the next attempt
taken. An input is never removed while a manifest says that it is complete.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from airflow_provider_snowml.core.batch_job import ENDED, MANIFEST_FILE, SUCCESS_FILE, JobManifest
from airflow_provider_snowml.core.names import QualifiedName, StageLocation, literal
from airflow_provider_snowml.hooks.batch_jobs import (
    INPUT_SUFFIX,
    REMOVED_FILE,
    find_statement,
    input_directory,
    is_starting,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)


@dataclass
class Remains:
    """The files of an attempt, by directory.

    :param name: the job's name.
    :param input: those beside the output base, with the times they were written, by path in the stage.
    :param output: those in the job's output directory, likewise.
    """

    name: str
    input: dict[str, float] = field(default_factory=dict)
    output: dict[str, float] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name without the attempt's number."""
        return self.name.rpartition("_A")[0]

    @property
    def attempt(self) -> int:
        """The attempt's number."""
        return int(self.name.rpartition("_A")[2])

    @property
    def written_at(self) -> float:
        """When the last of the files was written, an epoch by Snowflake's clock."""
        return max((*self.input.values(), *self.output.values()), default=0.0)

    def has(self, file: str) -> bool:
        """Whether a file of that name is in the input's or in the output's directory itself."""
        return any(path.endswith(f"/{self.name}/{file}") for path in (*self.input, *self.output))


def stem_of(job_name: str) -> str | None:
    """The part of a job's name that its attempts share; ``None`` for a name that is none of ours."""
    match = re.fullmatch(r"(SNOWML_[A-Z0-9_]+)_A[1-9][0-9]{0,3}", job_name)
    return match.group(1) if match else None


def find_remains(hook: SnowMLHook, output_base: StageLocation, prefix: str) -> list[Remains]:
    """What attempts have left below an output base, the attempts of a stem in their order.

    :param hook: the hook.
    :param output_base: the output base, ``output_stage_location``.
    :param prefix: what the job's names start with.
    """
    found: dict[str, Remains] = {}
    bases = (output_base.beside(INPUT_SUFFIX), output_base)
    for base, which in zip(bases, ("input", "output"), strict=True):
        for path, written in _listing(hook, base, prefix).items():
            name, _, file = path.removeprefix(base.path).partition("/")
            if file and stem_of(name):
                getattr(found.setdefault(name, Remains(name)), which)[path] = written
    return sorted(found.values(), key=lambda remains: (remains.stem, remains.attempt))


def _listing(hook: SnowMLHook, location: StageLocation, prefix: str) -> Mapping[str, float]:
    rows = hook.rows(f"LIST {literal(location.sql + prefix)}")
    return {
        str(row["name"]).split("/", 1)[1]: parsedate_to_datetime(str(row["last_modified"])).timestamp()
        for row in rows
    }


def manifest_of_remains(hook: SnowMLHook, output_base: StageLocation, remains: Remains) -> JobManifest | None:
    """Whose it was, also after its removal has begun; ``None`` if nothing of ours says so."""
    for file in (MANIFEST_FILE, REMOVED_FILE):
        if not remains.has(file):
            continue
        content = hook.read_file(input_directory(output_base, remains.name), file)
        manifest = JobManifest.from_json(content) if content is not None else None
        if manifest is None:
            return None
        # A manifest that was copied from elsewhere says nothing about what lies here.
        here = (output_base / remains.name).sql
        is_of_here = QualifiedName.parse(manifest.job_name).name.name == remains.name
        return manifest if is_of_here and manifest.output_location == here else None
    return None


def live_status(hook: SnowMLHook, manifest: JobManifest, remains: Remains) -> tuple[str | None, bool]:
    """The job's status, ``None`` if there is no such job, and whether it lives or is about to."""
    job = QualifiedName.parse(manifest.job_name)
    status = hook.job_status(job)
    if status is not None:
        return status, status not in ENDED
    if remains.has(SUCCESS_FILE) or not remains.has(MANIFEST_FILE):
        return None, False
    # The image may be under way, by a statement whose id may not have been noted.
    query_id = manifest.query_id or find_statement(hook, job)
    return None, query_id is not None and is_starting(hook.statement(query_id)[0], manifest.submitted_at)


def remove_attempt(
    hook: SnowMLHook, output_base: StageLocation, remains: Remains, manifest: JobManifest, *, drop_job: bool
) -> None:
    """Remove an attempt that has ended. Doing it again finishes what was begun.

    :param hook: the hook.
    :param output_base: the output base.
    :param remains: its files.
    :param manifest: its manifest.
    :param drop_job: whether there is a job.
    """
    beside, output = input_directory(output_base, remains.name), output_base / remains.name
    if drop_job:
        hook.delete_job(QualifiedName.parse(manifest.job_name))
    if not remains.has(REMOVED_FILE):
        hook.write_file(beside, REMOVED_FILE, manifest.to_json().encode())
    if remains.has(MANIFEST_FILE):
        hook.remove_file(beside, MANIFEST_FILE)
    if remains.has(SUCCESS_FILE):
        # First, and alone: what is left of the output meanwhile must not pass for all of it.
        hook.remove_file(output, SUCCESS_FILE)
    inner = {path.removeprefix(beside.path).rpartition("/")[0] for path in remains.input}
    for data in sorted(inner - {""}):
        hook.remove_files(beside / data)
    if remains.output:
        hook.remove_files(output)
    hook.remove_file(beside, REMOVED_FILE)
    log.info("Removed %s: its job, its input and its output.", manifest.job_name)


def removal_has_begun(hook: SnowMLHook, job_output_location: StageLocation) -> bool:
    """Whether a job's output is being removed, or is gone with everything beside it."""
    parent, _, name = job_output_location.path.rstrip("/").rpartition("/")
    if not parent:
        return False
    beside = input_directory(StageLocation(job_output_location.stage, parent + "/"), name)
    names = {path.removeprefix(beside.path) for path in hook.files(beside)}
    return REMOVED_FILE in names or (not names and not hook.files(job_output_location))


def count_files(remains: Collection[Remains]) -> int:
    """How many files they are."""
    return sum(len(one.input) + len(one.output) for one in remains)
