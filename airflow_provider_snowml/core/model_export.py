"""What lies in a directory that a model version is exported to, and what is to be done about it.

Neither a stage nor an object store can rename a directory. So a file says that an export is whole: it is
written last, removed first, and holds the names and sizes of all others. Another one, written before
anything else, says that there will be an export, so that what a crash leaves is told from somebody's files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.exceptions import ExportExistsError

STARTED_FILE = "_SNOWML_EXPORT"
MARKS = frozenset((SUCCESS_FILE, STARTED_FILE))


@dataclass(frozen=True)
class ExportMark:
    """What was exported, and by whom.

    :param model: the model's full name.
    :param version: the version.
    :param created_on: when that was made, in ISO format: another one can have its name by now.
    :param export_mode: which of its files.
    :param task: the task instance, as DAG, task, run and map index.
    :param files: sizes in bytes by path below the directory.
    """

    model: str
    version: str
    created_on: str
    export_mode: str
    task: str
    files: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As the files hold it."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, content: bytes | None) -> ExportMark | None:
        """Read one; ``None`` if it is none."""
        try:
            found = json.loads(content or b"")
            return cls(**{**found, "files": dict(found["files"])})
        except (ValueError, TypeError, KeyError):
            return None

    def is_of(self, other: ExportMark) -> bool:
        """Whether both are about the same files of the same version."""
        return replace(self, task="", files={}) == replace(other, task="", files={})

    def __str__(self) -> str:
        return f"{self.model} {self.version} ({self.export_mode})"


def plan_export(
    wanted: ExportMark,
    files: Collection[str],
    whole: ExportMark | None,
    started: ExportMark | None,
    if_exists: Literal["fail", "reuse", "replace"],
    where: str,
) -> ExportMark | None:
    """Whether the export is there already.

    :param wanted: what is to be exported.
    :param files: what lies in the directory, by path.
    :param whole: the mark of an export that is whole.
    :param started: the mark of one that was begun.
    :param if_exists: what to do about a whole one.
    :param where: the directory, for errors.
    :return: the mark of the export that is used; ``None`` if one is to be written, over what is there.
    :raises ExportExistsError: if what is there may not be replaced.
    """
    if whole is None:
        if started is not None or not files:
            return None
        some = ", ".join(sorted(files)[:3])
        raise ExportExistsError(
            f"{where} has files that are no export of this operator's ({some}): name an empty directory. "
            "Nothing was changed."
        )
    is_complete = whole.files.keys() <= set(files)
    if whole.is_of(wanted) and is_complete and (whole.task == wanted.task or if_exists == "reuse"):
        return whole
    if if_exists == "replace" or not is_complete:
        return None
    raise ExportExistsError(
        f"{where} has {whole} of {whole.created_on} already, exported by {whole.task}; wanted is {wanted} of "
        f"{wanted.created_on}, and if_exists is {if_exists!r}. Nothing was changed."
    )
