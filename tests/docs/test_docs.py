"""The documentation is built as ``make docs`` does it, and says something about everything there is."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_snowml import exceptions
from airflow_provider_snowml.get_provider_info import get_provider_info
from airflow_provider_snowml.hooks.snowml import SnowMLHook

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("docs") / "html"
    done = subprocess.run(
        [
            *[sys.executable, "-m", "sphinx", "--fresh-env", "--fail-on-warning", "--keep-going", "--quiet"],
            *["-d", str(output.parent / "doctrees"), str(DOCS), str(output)],
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def documented(built) -> set[str]:
    """Every Python name that the pages define."""
    from sphinx.util.inventory import InventoryFile

    with (built / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}


def test_every_operator_and_sensor_is_documented(documented):
    for kind in ("operators", "sensors"):
        modules = [name for entry in get_provider_info()[kind] for name in entry["python-modules"]]
        classes = {
            value
            for module in modules
            for value in vars(importlib.import_module(module)).values()
            if isinstance(value, type) and re.fullmatch(r"SnowML\w+(Operator|Sensor)", value.__name__)
        }
        assert classes
        missing = {f"{value.__module__}.{value.__name__}" for value in classes} - documented
        assert not missing


def test_every_verb_of_the_hook_is_documented(documented):
    verbs = {name for name, value in vars(SnowMLHook).items() if callable(value) and name[0] != "_"}
    assert len(verbs) > 20
    assert {f"{SnowMLHook.__module__}.SnowMLHook.{verb}" for verb in verbs} <= documented


def test_every_error_is_documented(documented):
    errors = {
        f"{exceptions.__name__}.{name}"
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.SnowMLError)
    }
    assert errors <= documented


def test_the_statements_are_those_that_the_local_snowflake_registers(built):
    from airflow_provider_snowml.local import account  # noqa: F401  registers everything
    from airflow_provider_snowml.local.functions import SYSTEM, TABLE
    from airflow_provider_snowml.local.statements import _HANDLERS, _compile

    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        from_the_code = importlib.import_module("from_the_code")
    finally:
        sys.path.pop(0)
    patterns = from_the_code.registered("statement")
    assert sorted(_compile(pattern).pattern for pattern in patterns) == sorted(
        pattern.pattern for pattern, *_ in _HANDLERS
    )
    functions = {*from_the_code.registered("system_function"), *from_the_code.registered("table_function")}
    assert functions == {*SYSTEM, *TABLE}
    page = re.sub(r"<[^>]+>", "", (built / "local-snowflake.html").read_text())
    shown = {name for name in functions if not name.startswith(("SNOWML_", "VIEW.", "SYSTEM$SNOWML_LOCAL_"))}
    for name in [*shown, *(pattern.partition(" ")[2] for pattern in patterns)]:
        assert name in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_the_files_that_a_page_names_are_there(page):
    text = page.read_text()
    named = set(re.findall(r"`((?:tests|scripts|example_dags)/[\w/]+\.py)", text))
    assert {name for name in named if not (DOCS.parent / name).exists()} == set()
    links = {link.partition("#")[0] for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)}
    assert {link for link in links if not (page.parent / link).exists()} == set()


def test_every_row_of_the_table_of_bad_days_names_a_test_that_is_there():
    text = (DOCS / "operators" / "inference.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 4]
    named = {row: re.findall(r"`(test_\w+[.]py)::(test_\w+)`", row) for row in rows if "| | |" not in row}
    assert len(named) > 25
    for row, tests in list(named.items())[1:]:  # the head apart
        assert tests, row
        for file, test in tests:
            assert f"def {test}(" in (DOCS.parent / "tests" / "operators" / file).read_text(), row


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_what_a_page_imports_is_there(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        tree = ast.parse(code)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_the_local_snowflake_from_python(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "local-snowflake.md").read_text(), re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.startswith("('")


def test_the_numbers_of_a_monitor(scoring):
    """The page's Python and SQL, with recent rows for the monitor that they name."""
    hook = scoring.hook()
    hook.run(
        "CREATE TABLE WATCHED_CUSTOMERS AS SELECT ID, F1 AS VISITS, IFF(ID > 20, 1, 0) AS LEFT_US, "
        "ID / 60 AS P, DATEADD(DAY, -1, CURRENT_TIMESTAMP())::TIMESTAMP_NTZ AS AT FROM X"
    )
    hook.run(
        "CREATE MODEL MONITOR CHURN_MONITOR WITH MODEL = M VERSION = 'V1' FUNCTION = 'predict_proba' "
        "SOURCE = WATCHED_CUSTOMERS BASELINE = WATCHED_CUSTOMERS TIMESTAMP_COLUMN = AT ID_COLUMNS = ('ID') "
        "PREDICTION_SCORE_COLUMNS = ('P') ACTUAL_CLASS_COLUMNS = ('LEFT_US') WAREHOUSE = SNOWML_WH "
        "REFRESH_INTERVAL = '1 hour' AGGREGATION_WINDOW = '1 day'"
    )
    text = (DOCS / "operators" / "monitors.md").read_text()
    try:
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict = {}
        exec(code, names)
        assert len(names["drift"]) == 1
        assert names["worst"] == pytest.approx(0)  # from itself
        (sql,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        (day,) = hook.rows(sql)
        assert day["METRIC_VALUE"] == pytest.approx(1)  # P tells who left
    finally:
        hook.run("DROP MODEL MONITOR IF EXISTS CHURN_MONITOR")
        hook.run("DROP TABLE WATCHED_CUSTOMERS")
