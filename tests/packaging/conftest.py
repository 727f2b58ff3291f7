"""The wheel, built from this tree and installed where no editable install can lend it a file."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOCAL_ONLY = ("duckdb", "fakesnow", "starlette", "uvicorn")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *[sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"],
            *["--wheel-dir", str(directory), str(REPOSITORY)],
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it, and the dependencies on its path.

    The dependencies are those of the environment that runs the tests, reached by a path file: a nested path
    file is not read, so the editable install over there stays out of sight.
    """
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [
            *[sys.executable, "-m", "pip", f"--python={python}", "install"],
            *["--quiet", "--no-deps", "--no-index", str(wheel)],
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in an empty directory, with nothing of the tests' environment but where programs are."""

    def run(*command: str | Path, without_extra_local: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "COLUMNS": "400",
        }
        if without_extra_local:
            # Python imports `sitecustomize` before anything else.
            hidden = tmp_path / "hidden"
            hidden.mkdir()
            (hidden / "sitecustomize.py").write_text(_HIDE)
            environment["PYTHONPATH"] = str(hidden)
        return subprocess.run(
            list(map(str, command)),
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )

    return run


# Airflow itself brings starlette and uvicorn, so leaving packages out is not enough: they are hidden.
_HIDE = f"""
from functools import partial
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def find_unless_hidden(name, path=None, target=None):
    return None if name.partition(".")[0] in {LOCAL_ONLY!r} else find_spec(name, path, target)

PathFinder.find_spec = partial(find_unless_hidden)  # not a method of whatever holds it
"""
