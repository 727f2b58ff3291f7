"""The constraints file: plain pins, and one for everything that the project asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "constraints-3.11.txt").read_text().splitlines()


def test_each_line_is_a_name_and_a_version():
    assert not [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]


def test_each_requirement_is_pinned_to_a_version_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [
        Requirement(it) for it in [*project["dependencies"], *(line for extra in extras for line in extra)]
    ]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}
    for requirement in wanted:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
