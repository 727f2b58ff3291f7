"""What parsing a DAG costs: no module that a DAG file imports loads a client or a data library."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_snowml.get_provider_info import get_provider_info

PACKAGE = "airflow_provider_snowml"
ROOT = Path(next(iter(importlib.util.find_spec(PACKAGE).submodule_search_locations)))
HEAVY = ("snowflake.ml", "snowflake.snowpark", "snowflake.connector", "pandas", "numpy", "pyarrow", "sklearn")
SEEN_BY_AIRFLOW = ("exceptions", "core", "hooks", "operators", "sensors", "triggers")


def loaded_after(*modules: str) -> set[str]:
    """Names of all modules in a fresh interpreter that imported ``modules``."""
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules_of(*parts: str) -> list[str]:
    files = (
        path
        for part in parts
        for path in sorted(ROOT.glob(f"{part}.py")) + sorted(ROOT.glob(f"{part}/**/*.py"))
    )
    return [
        ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        for path in files
    ]


def heavy(loaded: set[str]) -> set[str]:
    return {name for name in loaded if any(name == it or name.startswith(it + ".") for it in HEAVY)}


def test_the_package_and_its_entry_point_load_no_airflow():
    loaded = loaded_after(PACKAGE, f"{PACKAGE}.get_provider_info")
    assert not {name for name in loaded if name.partition(".")[0] == "airflow"}
    assert not heavy(loaded)


def test_nothing_that_a_dag_imports_loads_a_heavy_library():
    modules = modules_of(*SEEN_BY_AIRFLOW)
    assert {f"{PACKAGE}.operators.inference", f"{PACKAGE}.sensors.inference"} <= set(modules)
    found = heavy(loaded_after(*modules))
    if found:  # say which module it is
        guilty = {module: sorted(heavy(loaded_after(module)))[:3] for module in modules}
        pytest.fail(f"heavy imports: { {module: names for module, names in guilty.items() if names} }")


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_provider_info_names_where_every_class_is_found(kind):
    base = {"SnowMLOperator"}
    suffix = kind.removesuffix("s").capitalize()
    modules = map(importlib.import_module, modules_of(kind))
    public = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and name.startswith("SnowML")
        and name.endswith(suffix)
        and value.__module__ == module.__name__
    }
    listed = [name for entry in get_provider_info()[kind] for name in entry["python-modules"]]
    found = {name for module in listed for name in vars(importlib.import_module(module))}
    assert public
    assert public - base <= found
