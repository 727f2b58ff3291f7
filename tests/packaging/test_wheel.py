"""The installed wheel: Airflow keeps working beside it, and it works without its extras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import jsonschema
import pytest

from airflow_provider_snowml import __version__
from airflow_provider_snowml.get_provider_info import get_provider_info


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "airflow_provider_snowml",
        f"airflow_provider_snowml-{__version__}.dist-info",
    }
    assert "airflow_provider_snowml/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_what_is_imported_comes_from_the_wheel(installed, run):
    found = run(installed, "-c", "import airflow_provider_snowml as package; print(package.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(installed.parents[1]), found.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["version"], "3."),
        (["providers", "list"], "airflow-provider-snowml"),
        (["providers", "get", "airflow-provider-snowml"], "airflow-provider-snowml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_airflow_works_beside_it(installed, run, arguments, expected):
    done = run(installed, "-m", "airflow", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout


def test_provider_info_fits_the_schema_of_the_installed_airflow():
    import airflow

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    assert get_provider_info()["package-name"] == "airflow-provider-snowml"


def test_without_the_extra_local_everything_else_imports(installed, run):
    done = run(installed, "-c", _IMPORT_ALL_BUT_LOCAL, without_extra_local=True)
    assert done.returncode == 0, done.stderr
    assert "airflow_provider_snowml.hooks.snowml" in done.stdout.split()


def test_without_the_extra_local_the_command_says_what_to_install(installed, run):
    done = run(installed.parent / "snowml-local", "serve", "--port", "0", without_extra_local=True)
    assert done.returncode != 0
    assert "pip install 'airflow-provider-snowml[local]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_local_the_fixture_says_what_to_install(installed, run, tmp_path):
    (tmp_path / "test_dag.py").write_text("def test_a_dag(snowml_local): pass\n")
    done = run(installed, "-m", "pytest", without_extra_local=True)
    assert done.returncode == 1, done.stderr
    assert "pip install 'airflow-provider-snowml[local]'" in done.stdout
    assert "fakesnow" in done.stdout
    assert "Traceback" not in done.stdout


_IMPORT_ALL_BUT_LOCAL = """
import importlib, pkgutil
import airflow_provider_snowml as package

def walk(path, prefix):
    for module in pkgutil.iter_modules(path, prefix):
        if module.name == "airflow_provider_snowml.local":
            continue
        print(module.name)
        found = importlib.import_module(module.name)
        if module.ispkg:
            walk(found.__path__, module.name + ".")

walk(package.__path__, package.__name__ + ".")
"""
