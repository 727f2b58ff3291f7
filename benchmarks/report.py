"""Tables of Markdown, and the machine that the numbers are of."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Table", "machine", "median"]

SHOWN = (
    "apache-airflow", "apache-airflow-providers-snowflake", "snowflake-ml-python",
    "snowflake-snowpark-python", "snowflake-connector-python", "duckdb", "pyarrow", "pandas", "scikit-learn",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of results.

    :param title: what it is about.
    :param header: the columns' names.
    :param lines: the rows.
    :param note: how to read it.
    """

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[Any]]
    note: str = ""

    def markdown(self) -> str:
        """The table under its title."""
        rows = [self.header, ["---"] * len(self.header), *self.lines]
        body = "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)
        return "\n\n".join(part for part in (f"### {self.title}", self.note, body) if part) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def machine() -> Table:
    """What was measured, when, and on what."""
    lines = [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("commit", _commit()),
        ("CPU", f"{_cpu()}, {os.cpu_count()} cores"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in SHOWN),
    ]
    return Table("The machine", ("", ""), lines)


def _commit() -> str:
    """What is checked out, and whether files differ from it; but not the page of the last results."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parents[1]
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", ":!docs/snippets")
        return git("rev-parse", "--short=10", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git repository"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
