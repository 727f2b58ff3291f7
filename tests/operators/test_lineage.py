"""What OpenLineage is told, by Airflow's own listener through a real transport, into a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator

PROGRAM = Path(__file__).with_name("lineage_dag.py")
DEFERRED = ("batch",)
pytestmark = pytest.mark.timeout(1800)  # all tasks run in the first test's set-up
# What does the work of a task begins so.
STATEMENTS = {
    "evaluate": "WITH",
    "run_model": "CREATE",
    "batch": "EXECUTE INFERENCE JOB SERVICE",
    "load": "INSERT INTO",
    "monitor": "CREATE MODEL MONITOR",
    "serve": "CALL SYSTEM$DEPLOY_MODEL",
}


class Events:
    """The events of a run, by task; the schema's name in them is ``*``. And what was sent, by query id."""

    def __init__(self, file: Path, schema: str, statements: dict[str, str]) -> None:
        self.statements = statements
        self.text = file.read_text()
        self.all = [json.loads(line) for line in self.text.replace(schema, "*").splitlines()]
        self.namespaces = {one["namespace"] for event in self.all for one in event["outputs"]}

    def of(self, task: str, kind: str = "COMPLETE") -> dict[str, Any]:
        """The task's event of that type; a deferred task begins twice."""
        job = f"lineage.{task}"
        found = [event for event in self.all if (event["job"]["name"], event["eventType"]) == (job, kind)]
        assert len(found) == 1 or (task in DEFERRED and kind == "START")
        return found[0]

    def names(self, task: str, side: str, kind: str = "COMPLETE") -> set[str]:
        """What it reads (``inputs``) or writes (``outputs``)."""
        return {one["name"] for one in self.of(task, kind)[side]}

    def dataset(self, task: str, side: str, name: str) -> dict[str, Any]:
        """One of them."""
        (found,) = [one for one in self.of(task)[side] if one["name"] == name]
        return found

    def from_there(self, name: str, *tasks: str) -> set[str]:
        """What comes of a dataset: each task reads, by namespace and name, what the one before wrote."""
        reached = {pair for pair in self.pairs(tasks[0], "inputs") if pair[1] == name}
        for task in tasks:
            assert reached & self.pairs(task, "inputs"), f"{task} reads none of {reached}"
            reached = self.pairs(task, "outputs")
        return {name for _, name in reached}

    def pairs(self, task: str, side: str) -> set[tuple[str, str]]:
        """What it reads or writes, by namespace and name."""
        return {(one["namespace"], one["name"]) for one in self.of(task)[side]}


@pytest.fixture(scope="module")
def events(scoring_schema, local_snowflake, airflow_db, tmp_path_factory) -> Events:
    """The events of one run of the whole DAG."""
    directory = tmp_path_factory.mktemp("lineage")
    file, log = directory / "events.json", directory / "log"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    connection = local_snowflake.airflow_connection_into(scoring_schema.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", connection)
        patch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
        # For each event; the 10 seconds that it has else are few on a busy machine.
        patch.setenv("AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT", "300")
        hook = scoring_schema.hook()
        hook.rows(
            "CREATE OR REPLACE VIEW WATCHED_LINEAGE AS SELECT ID, DATEADD(HOUR, ID, "
            "'2013-06-01'::TIMESTAMP_NTZ) AS AT, ID / 60 AS P, IFF(ID > 20, 1, 0) AS HAPPENED FROM X"
        )
        with log.open("w") as output:
            done = subprocess.run([sys.executable, str(PROGRAM)], stdout=output, stderr=subprocess.STDOUT)
        assert done.returncode == 0, log.read_text()[-5000:]
        hook.rows("DROP MODEL MONITOR LINEAGE_MONITOR")
        history = "TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000))"
        sent = hook.rows(f"SELECT QUERY_ID, QUERY_TEXT FROM {history}")
    return Events(file, scoring_schema.schema, {row["QUERY_ID"]: row["QUERY_TEXT"] for row in sent})


def test_from_the_training_table_by_the_model_to_the_predictions(events) -> None:
    assert len(events.namespaces) == 1
    assert events.from_there("*.X", "register", "batch", "load") == {"*.LINEAGE_PREDICTIONS"}
    assert events.from_there("*.X", "register", "run_model") == {"*.lineage ran"}
    assert events.from_there("*.X", "register", "elsewhere") == {"model/*.LINEAGE_ELSEWHERE"}
    assert events.from_there("model/*.LINEAGE_ELSEWHERE", "rename") == {"model/*.LINEAGE_RENAMED"}
    assert events.from_there("*.X", "register", "export") == {"@*.ST/lineage_export/v1"}
    assert events.from_there("*.X", "register", "serve") == {"service/*.LINEAGE_SERVICE"}
    assert events.from_there("*.X", "register", "monitor") == {"model_monitor/*.LINEAGE_MONITOR"}
    assert events.names("batch", "outputs") == events.names("load", "inputs") == {"@*.ST/lineage"}


def test_a_table_is_the_same_dataset_to_airflows_own_operators(events) -> None:
    assert events.from_there("*.X", "register", "batch", "load", "upstream") == {"*.LINEAGE_REPORT"}


def test_what_a_user_names_by_an_asset_is_read_as_well(events) -> None:
    weather = events.dataset("register", "inputs", "RAW.PUBLIC.WEATHER")
    assert weather["namespace"] == "snowflake://myorg-other"


def test_a_query_is_told_with_its_tables(events) -> None:
    for task in ("evaluate", "contest", "batch"):
        assert "FROM x" in events.of(task)["job"]["facets"]["sql"]["query"]
        assert events.names(task, "inputs") == {"*.X", "model/*.LINEAGE_MODEL"}


def facets(dataset: dict[str, Any]) -> dict[str, Any]:
    """Their values alone."""
    return {
        name: {key: value for key, value in facet.items() if key[0] != "_" and value is not None}
        for name, facet in dataset["facets"].items()
    }


def test_the_version_and_what_is_known_of_it(events) -> None:
    model = "model/*.LINEAGE_MODEL"
    registered = events.dataset("register", "outputs", model)
    assert facets(registered) == {
        "datasetType": {"datasetType": "MODEL"},
        "version": {"datasetVersion": "V1"},
        "lifecycleStateChange": {"lifecycleStateChange": "CREATE"},
        "snowml_modelVersion": {
            "functions": ["decision_function", "predict", "predict_log_proba", "predict_proba"],
            "metrics": {"rows": 60},
        },
    }
    assert all(facet["_producer"] and facet["_schemaURL"] for facet in registered["facets"].values())

    evaluated = facets(events.dataset("evaluate", "inputs", model))
    assert evaluated["version"] == {"datasetVersion": "V1"}
    assert evaluated["snowml_modelVersion"]["metrics"]["accuracy"] > 0.9
    assert events.names("evaluate", "outputs") == set()

    contest = facets(events.dataset("contest", "inputs", model))
    assert contest["version"] == {"datasetVersion": "V2"}
    assert contest["snowml_modelVersion"]["champion"] == "V1"
    assert contest["snowml_modelVersion"]["outcome"]

    promoted = facets(events.dataset("elsewhere", "outputs", "model/*.LINEAGE_ELSEWHERE"))
    assert promoted["snowml_modelVersion"]["alias"] == "CHAMPION"
    for task in ("run_model", "batch"):  # it was asked for by its alias
        scored = facets(events.dataset(task, "inputs", model))
        assert scored["version"] == {"datasetVersion": "V1"}
        assert scored["snowml_modelVersion"] == {"function": "predict"}
    assert facets(events.dataset("delete", "outputs", model))["lifecycleStateChange"] == {
        "lifecycleStateChange": "ALTER"
    }


def test_how_many_rows_and_by_which_statement(events) -> None:
    def rows(task: str, side: str, name: str) -> int:
        kind = side.removesuffix("s")
        return events.dataset(task, side, name)[f"{kind}Facets"][f"{kind}Statistics"]["rowCount"]

    assert rows("run_model", "outputs", "*.lineage ran") == 60
    assert rows("batch", "outputs", "@*.ST/lineage") == 30  # after a deferral, too
    assert rows("load", "inputs", "@*.ST/lineage") == rows("load", "outputs", "*.LINEAGE_PREDICTIONS") == 30
    (namespace,) = events.namespaces
    for task, start in STATEMENTS.items():
        query = events.of(task)["run"]["facets"]["externalQuery"]
        assert query["source"] == namespace
        assert " ".join(events.statements[query["externalQueryId"]].split()).startswith(start)
    job = facets(events.dataset("batch", "outputs", "@*.ST/lineage"))["version"]
    assert job["datasetVersion"].startswith("SNOWML_")
    assert facets(events.dataset("load", "inputs", "@*.ST/lineage"))["version"] == job


def test_what_has_not_happened_is_not_told(events) -> None:
    for task in ("register", "run_model", "batch", "load", "monitor", "serve", "delete"):
        assert events.names(task, "outputs", "START") == set()
        assert events.names(task, "outputs")
    assert events.names("fail", "inputs", "FAIL") == {"*.X", "model/*.LINEAGE_MODEL"}
    assert events.names("fail", "outputs", "FAIL") == set()


def test_no_event_has_the_password(events, local_snowflake) -> None:
    assert local_snowflake.connection_parameters["password"] not in events.text


def test_without_the_provider_nothing_is_missing(scoring, task_context, monkeypatch) -> None:
    blocked = ("openlineage", "airflow.providers.openlineage")
    for name in {
        *blocked,
        *(name for name in sys.modules if name.startswith(tuple(f"{it}." for it in blocked))),
    }:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        import openlineage.client  # noqa: F401
    scoring.hook().rows("CREATE MODEL UNTOLD WITH VERSION V1 FROM MODEL M VERSION V1")
    task = SnowMLPromoteModelOperator(task_id="untold", model_name="UNTOLD", version_name="V1")
    assert task.get_openlineage_facets_on_start() is None
    assert task.execute(task_context("untold"))["version"] == "V1"
    assert task.get_openlineage_facets_on_complete(None) is None
