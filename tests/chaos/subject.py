"""What every subject of the matrix has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lives import Control
from world import RUN_ID, SCHEMA


@dataclass
class Subject:
    """One task instance that is killed.

    :param name: of the case; upper case, and the name of everything that is its own.
    :param control: to look with.
    :param slot: which model is its own.
    :param directory: where files of its own can be.
    """

    name: str
    control: Control
    slot: int = 0
    directory: Path = Path()
    points_of: ClassVar[str] = ""  # whose requests are its crash points, if not its own
    bad_day: ClassVar[bool] = False  # something goes wrong that is no crash: one case
    failure: ClassVar[str] = ""  # how it must end, if not well
    cleared: ClassVar[bool] = False
    hangs: ClassVar[bool] = False  # the process does not die, and goes on later
    spared: ClassVar[str] = "^$"  # at which requests it does not hang
    let_go: ClassVar[str] = ""  # see Life, as of killed
    watched: ClassVar[str] = ""
    killed: ClassVar[Literal["", "before", "after"]] = ""
    deferrable: ClassVar[bool] = False
    retries: ClassVar[int] = 0
    operator: ClassVar[str] = ""
    run_id: ClassVar[str] = RUN_ID

    @property
    def model(self) -> str:
        return f"{SCHEMA}.M{self.slot}"

    def arguments(self) -> dict[str, Any]:
        """The operator's."""
        raise NotImplementedError

    def before(self) -> None:
        """What is there when the task starts."""

    def after_crash(self) -> None:
        """What happens between the crash and the next try. A violation is noted."""

    def after_kill(self) -> None:
        """What is there when a user's kill has come to its end. A violation is noted."""

    def watch(self) -> None:
        """A look before each statement that is ``watched``, and at the end. A violation is noted."""

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        """What is not as it must be, when the task has ended well."""
        raise NotImplementedError

    def violations_of_failure(self) -> list[str]:
        """What is not as it must be, when the task has ended as its ``failure`` says."""
        return []

    def files(self, directory: str) -> list[str]:
        """Below a directory of the stage."""
        rows = self.control.rows(f"LIST '@{SCHEMA}.ST/{directory}/'")
        return [row["name"].removeprefix(f"st/{directory}/") for row in rows]

    def jobs(self) -> dict[str, str]:
        """The statuses of its jobs, by name."""
        rows = self.control.rows(f"SHOW JOB SERVICES LIKE '%{self.name}%' IN SCHEMA {SCHEMA}")
        return {row["name"]: row["status"] for row in rows}
