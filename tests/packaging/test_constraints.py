"""The constraints files: plain pins, and one for everything that the project asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "constraints-3.11.txt").read_text().splitlines()
# What `make test SNOWML=1.54` puts in the place of the others.
DIFFERENT = (ROOT / "constraints-snowml-1.54.txt").read_text().splitlines()


def test_each_line_is_a_name_and_a_version():
    lines = [*LINES, *DIFFERENT]
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]


@pytest.mark.parametrize("different", [[], DIFFERENT], ids=["newest", "1.54"])
def test_each_requirement_is_pinned_to_a_version_that_it_allows(different):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [
        Requirement(it) for it in [*project["dependencies"], *(line for extra in extras for line in extra)]
    ]
    pins = {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in [*LINES, *different])
    }
    for requirement in wanted:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
