"""The pytest plugin, in projects of its users: pytest itself is run, as they run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "testing"


@pytest.fixture
def project(pytester, monkeypatch):
    """An empty directory, and nothing of our own tests' environment that says where Airflow is."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        monkeypatch.delenv(name)
    return pytester


def test_loading_it_loads_neither_airflow_nor_the_local_snowflake(tmp_path):
    (tmp_path / "test_dag.py").write_text("def test_a_dag(snowml_local_schema): pass\n")
    code = "import pytest, sys; pytest.main(['--collect-only', '-q']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    output, _, modules = done.stdout.strip().rpartition("\n")
    assert "test_dag.py::test_a_dag" in output, done.stdout + done.stderr
    loaded = set(modules.split())
    assert "airflow_provider_snowml.pytest_plugin" in loaded
    heavy = (
        "airflow",
        "fakesnow",
        "duckdb",
        "snowflake.connector",
        "pandas",
        "pyarrow",
        "starlette",
        "uvicorn",
    )
    assert loaded.isdisjoint(heavy)
    assert not any(name.startswith("airflow_provider_snowml.local") for name in loaded)


def test_the_project_in_the_docs_passes_its_tests(project):
    shutil.copytree(SNIPPETS, project.path, dirs_exist_ok=True)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=2)
    assert "Traceback" not in result.stderr.str()


def test_each_test_has_a_schema_of_its_own_and_leaves_nothing_behind(project):
    project.makepyfile(_TWO_TESTS)
    result = project.runpytest_subprocess("--snowml-local-dir=kept")
    result.assert_outcomes(passed=2)
    assert (project.path / "kept" / "server.log").exists()
    assert not (project.path / "kept" / "server.json").exists(), "the server still runs"


_TWO_TESTS = """
import os

import pytest
from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook


@pytest.mark.parametrize("test", ["first", "second"])
def test_schema(test, snowml_local, snowml_local_schema):
    hook = SnowflakeHook("snowflake_default")
    where = hook.get_first("SELECT CURRENT_DATABASE() || '.' || CURRENT_SCHEMA()")
    assert where == (snowml_local_schema,)
    schemas = [row[1] for row in hook.get_records("SHOW SCHEMAS LIKE 'TEST%'")]
    assert schemas == [snowml_local_schema.split(".")[1]]
    hook.run("CREATE TABLE LEFT_BEHIND (A INT)")


@pytest.fixture(scope="session", autouse=True)
def the_environment_is_as_it_was(snowml_local):
    yield
    assert "AIRFLOW_CONN_SNOWFLAKE_DEFAULT" not in os.environ
"""
