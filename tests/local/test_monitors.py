"""Model monitors: the statements, as SQL and as snowflake-ml sends them, and what they compute."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from snowflake.connector import DictCursor
from snowflake.connector.errors import ProgrammingError

from airflow_provider_snowml.local import monitors
from airflow_provider_snowml.local.monitor_metrics import DRIFT, PERFORMANCE, STAT

SOURCE = """
    SELECT SEQ4() AS ID, DATEADD(HOUR, 12 * SEQ4(), '2024-01-01'::TIMESTAMP_NTZ) AS TS,
        SEQ4()::FLOAT / 40 AS SCORE, IFF(SEQ4() > 20, 1, 0) AS PREDICTED, MOD(SEQ4(), 2) AS ACTUAL,
        SEQ4()::FLOAT AS F1, MOD(SEQ4(), 7)::FLOAT AS F2, IFF(SEQ4() > 9, 'B', 'A') AS PART,
        SEQ4() > 3 AS FLAG, 1.5 * SEQ4() AS EXTRA, '2024-01-01'::DATE AS DAY
    FROM TABLE(GENERATOR(ROWCOUNT => 40))
"""
CLAUSES = {
    "MODEL": "FLIGHTS",
    "VERSION": "'V1'",
    "FUNCTION": "'predict'",
    "SOURCE": "SCORED",
    "WAREHOUSE": "SNOWML_WH",
    "REFRESH_INTERVAL": "'1 hour'",
    "AGGREGATION_WINDOW": "'1 day'",
    "TIMESTAMP_COLUMN": "TS",
    "ID_COLUMNS": "('id')",
    "PREDICTION_SCORE_COLUMNS": "('SCORE')",
    "PREDICTION_CLASS_COLUMNS": "('PREDICTED')",
    "ACTUAL_CLASS_COLUMNS": "('ACTUAL')",
}


def create(name: str = "MON", verb: str = "CREATE MODEL MONITOR", **changes: str | None) -> str:
    clauses = {key: value for key, value in {**CLAUSES, **changes}.items() if value is not None}
    return f"{verb} {name} WITH " + " ".join(f"{key} = {value}" for key, value in clauses.items())


@pytest.fixture
def execute(connection):
    def run(sql: str) -> list[dict]:
        return connection.cursor(DictCursor).execute(sql).fetchall()

    return run


@pytest.fixture
def scored(execute, model) -> str:
    """The model FLIGHTS, of a binary classification, and a table of what it said and what happened."""
    execute(f"CREATE TABLE SCORED AS {SOURCE}")
    return model


def test_create_show_describe_drop(execute, scored, schema):
    database, name = schema.split(".")
    execute(
        create(
            BASELINE="SCORED", SEGMENT_COLUMNS="('PART')", CUSTOM_METRIC_COLUMNS="('EXTRA')", COMMENT="'c'"
        )
    )
    (shown,) = execute(f"SHOW MODEL MONITORS LIKE 'mo%' IN SCHEMA {schema}")
    created = shown.pop("created_on")
    assert created.tzinfo is not None
    table = {"name": "SCORED", "database_name": database, "schema_name": name, "status": "ACTIVE"}
    assert json.loads(shown.pop("source")) == json.loads(shown.pop("baseline")) == table
    assert json.loads(shown.pop("model")) == {
        "model_name": "FLIGHTS",
        "version_name": "V1",
        "function_name": "predict",
        "database_name": database,
        "schema_name": name,
        "model_status": "ACTIVE",
        "version_status": "ACTIVE",
    }
    assert shown == {
        "name": "MON",
        "database_name": database,
        "schema_name": name,
        "warehouse_name": "SNOWML_WH",
        "refresh_interval": "1 hour",
        "aggregation_window": "1 day",
        "model_task": "TABULAR_BINARY_CLASSIFICATION",
        "type": "MODEL_VERSION_MONITOR",
        "gateway": "",
        "ground_truth": "",
        "monitor_state": "ACTIVE",
        "comment": "c",
    }
    (described,) = execute("DESC MODEL MONITOR MON")
    assert described.keys() - shown.keys() >= {"aggregation_last_error", "monitor_start_time"}
    parts = ("SOURCE_AGGREGATED", "ACCURACY_AGGREGATED", "SOURCE_AGGREGATED_PART", "ACCURACY_AGGREGATED_PART")
    assert json.loads(described["aggregation_status"]) == dict.fromkeys(parts, "ACTIVE")
    assert (
        json.loads(described["aggregation_last_data_timestamp"])["SOURCE_AGGREGATED"] == "2024-01-20 12:00:00"
    )
    assert json.loads(described["columns"]) == {
        "timestamp_column": "TS",
        "id_columns": ["ID"],
        "prediction_class_columns": ["PREDICTED"],
        "prediction_score_columns": ["SCORE"],
        "actual_class_columns": ["ACTUAL"],
        "actual_score_columns": [],
        "numerical_columns": ["F1", "F2"],
        "string_columns": [],
        "boolean_columns": ["FLAG"],
        "segment_columns": ["PART"],
    }
    execute("DROP MODEL MONITOR MON")
    execute("DROP MODEL MONITOR IF EXISTS MON")
    assert execute("SHOW MODEL MONITORS IN SCHEMA") == []


def test_create_again(execute, scored):
    execute(create())
    with pytest.raises(ProgrammingError, match="already exists") as e:
        execute(create())
    assert e.value.errno == 2002
    execute(create(verb="CREATE MODEL MONITOR IF NOT EXISTS", SOURCE="NOWHERE"))
    with pytest.raises(ProgrammingError, match="incompatible"):
        execute(create(verb="CREATE OR REPLACE MODEL MONITOR IF NOT EXISTS"))
    with pytest.raises(ProgrammingError, match=r"V1 already exists: .*MON") as e:
        execute(create("OTHER", FUNCTION="'predict_proba'"))
    assert e.value.errno == 2002
    execute(create("OTHER", VERSION="v2"))
    execute(create(verb="CREATE OR REPLACE MODEL MONITOR", REFRESH_INTERVAL="'90 minutes'"))
    shown = {row["name"]: row for row in execute("SHOW MODEL MONITORS IN SCHEMA")}
    assert {name: row["refresh_interval"] for name, row in shown.items()} == {
        "MON": "90 minutes",
        "OTHER": "1 hour",
    }


REFUSED = {
    "model": ({"MODEL": "NOPE"}, 2003, "NOPE"),
    "version": ({"VERSION": "'V9'"}, 2003, "V9"),
    "an alias": ({"VERSION": "'DEFAULT'"}, 2003, "DEFAULT"),
    "function": ({"FUNCTION": "'guess'"}, 1003, "guess.*PREDICT"),
    "task": ({"MODEL": "SNOWML.SHARED_MODELS.CUSTOM"}, 1003, "same schema"),
    "warehouse": ({"WAREHOUSE": "NOPE"}, 2003, "NOPE"),
    "source": ({"SOURCE": "NOPE"}, 2003, "NOPE"),
    "baseline": ({"BASELINE": "NOPE"}, 2003, "NOPE"),
    "column": ({"PREDICTION_SCORE_COLUMNS": "('NOPE')"}, 1003, "NOPE.*PREDICTION_SCORE.*ID, TS"),
    "column of the baseline": ({"BASELINE": "OTHER"}, 1003, "'PREDICTED'.*OTHER has"),
    "type of the time stamp": ({"TIMESTAMP_COLUMN": "DAY"}, 1008, "TIMESTAMP_NTZ.*DATE"),
    "type of a score": ({"PREDICTION_SCORE_COLUMNS": "('PART')"}, 1008, "NUMBER.*STRING"),
    "type of a class": ({"ACTUAL_CLASS_COLUMNS": "('FLAG')"}, 1008, "NUMBER.*BOOLEAN"),
    "type of a segment": ({"SEGMENT_COLUMNS": "('F1')"}, 1008, "STRING"),
    "type of a custom metric": ({"CUSTOM_METRIC_COLUMNS": "('PART')"}, 1008, "NUMBER"),
    "no prediction": (
        {"PREDICTION_SCORE_COLUMNS": None, "PREDICTION_CLASS_COLUMNS": "()"},
        1003,
        "At least one of PREDICTION_CLASS",
    ),
    "two predictions": ({"PREDICTION_SCORE_COLUMNS": "('SCORE', 'F1')"}, 1003, "2 columns"),
    "score of a class": ({"ACTUAL_SCORE_COLUMNS": "('EXTRA')"}, 1003, "ACTUAL_SCORE.*BINARY"),
    "a column twice": ({"ID_COLUMNS": "('ID', 'SCORE')"}, 1003, "'SCORE' is specified more than once"),
    "six segments": ({"SEGMENT_COLUMNS": "('A', 'B', 'C', 'D', 'E', 'F')"}, 1003, "at most 5"),
    "short window": ({"AGGREGATION_WINDOW": "'12 hours'"}, 1008, "12 hours"),
    "no window": ({"AGGREGATION_WINDOW": "'0 days'"}, 1008, "at least '1 day'"),
    "short interval": ({"REFRESH_INTERVAL": "'59 seconds'"}, 1008, "at least '60 seconds'"),
    "odd interval": ({"REFRESH_INTERVAL": "'1 week'"}, 1008, "1 week"),
    "missing": ({"SOURCE": None}, 1003, "Missing option.*SOURCE"),
    "gateway": ({"GATEWAY": "G"}, 2, "GATEWAY of a model monitor"),
    "custom table": ({"TIMESTAMP_CUSTOM_METRIC_TABLE": "T"}, 2, "TIMESTAMP_CUSTOM_METRIC_TABLE"),
    "unknown": ({"COLOUR": "'red'"}, 1003, "COLOUR"),
}


def test_what_create_refuses(execute, scored):
    execute("CREATE TABLE OTHER AS SELECT ID, SCORE FROM SCORED")
    for name, (changes, errno, message) in REFUSED.items():
        with pytest.raises(ProgrammingError, match=f"(?s){message}") as e:
            execute(create(**changes))
        assert e.value.errno == errno, name
    assert execute("SHOW MODEL MONITORS IN SCHEMA") == []


def test_a_model_without_a_task_is_refused(execute, session, schema):
    session.sql(
        f"CREATE MODEL {schema}.UNTOLD WITH VERSION V1 FROM MODEL SNOWML.SHARED_MODELS.CUSTOM"
    ).collect()
    execute(f"CREATE TABLE SCORED AS {SOURCE}")
    with pytest.raises(ProgrammingError, match=r"task UNKNOWN of .*UNTOLD"):
        execute(create(MODEL="UNTOLD"))


def test_where_it_is_shown(execute, scored, schema):
    database = schema.split(".")[0]
    execute(f"CREATE SCHEMA {schema}_2")  # and it is the current one
    try:
        assert execute("SHOW MODEL MONITORS IN SCHEMA") == []
        execute(create(f"{schema}.MON", MODEL=scored, SOURCE=f"{schema}.SCORED"))
        for scope in (f"IN {schema}", f"IN SCHEMA {schema}", f"IN DATABASE {database}", "IN ACCOUNT", ""):
            assert "MON" in [row["name"] for row in execute(f"SHOW MODEL MONITORS LIKE 'm_n' {scope}")], scope
    finally:
        execute(f"DROP SCHEMA {schema}_2")
    execute(f"DROP SCHEMA {schema}")
    with pytest.raises(ProgrammingError):
        execute(f"DESCRIBE MODEL MONITOR {schema}.MON")


def test_alter(execute, scored):
    def described(column: str) -> Any:
        return execute("DESCRIBE MODEL MONITOR MON")[0][column]

    execute(create())
    assert json.loads(described("baseline")) == {"status": "NOT_SET"}
    execute("ALTER MODEL MONITOR MON SET BASELINE = 'SCORED'")
    assert json.loads(described("baseline"))["name"] == "SCORED"
    execute("ALTER MODEL MONITOR MON SET REFRESH_INTERVAL = '2 days' WAREHOUSE = snowml_wh COMMENT = 'slow'")
    assert (described("refresh_interval"), described("comment")) == ("2 days", "slow")
    execute("ALTER MODEL MONITOR MON UNSET COMMENT")
    execute("ALTER MODEL MONITOR MON UNSET BASELINE")
    assert (described("comment"), json.loads(described("baseline"))) == ("", {"status": "NOT_SET"})
    execute("ALTER MODEL MONITOR MON ADD SEGMENT_COLUMN = 'PART'")
    assert json.loads(described("columns"))["segment_columns"] == ["PART"]
    execute("ALTER MODEL MONITOR IF EXISTS MON DROP SEGMENT_COLUMN = PART")
    assert json.loads(described("columns"))["string_columns"] == ["PART"]
    execute("ALTER MODEL MONITOR IF EXISTS NOPE SUSPEND")
    for statement, errno in {
        "NOPE SUSPEND": 2003,
        "MON ADD SEGMENT_COLUMN = 'F1'": 1008,
        "MON ADD SEGMENT_COLUMN = 'ID'": 1003,
        "MON DROP SEGMENT_COLUMN = 'PART'": 1008,
        "MON SET WAREHOUSE = NOPE": 2003,
        "MON SET REFRESH_INTERVAL = '1 second'": 1008,
        "MON SET BASELINE = 'NOPE'": 2003,
        "MON SET SOURCE = SCORED": 1003,
        "MON SET": 1003,
        "MON RENAME TO OTHER": 1003,
        "MON SUSPEND NOW": 1003,
    }.items():
        with pytest.raises(ProgrammingError) as e:
            execute(f"ALTER MODEL MONITOR {statement}")
        assert e.value.errno == errno, statement
    assert json.loads(described("columns"))["segment_columns"] == []


def test_what_was_dropped_is_told(execute, scored):
    execute("CREATE VIEW WATCHED AS SELECT * FROM SCORED")
    execute(create(SOURCE="WATCHED", BASELINE="SCORED"))
    execute("DROP VIEW WATCHED")
    execute(f"DROP MODEL {scored}")
    (shown,) = execute("SHOW MODEL MONITORS IN SCHEMA")
    assert json.loads(shown["source"])["status"] == "DELETED"
    assert json.loads(shown["baseline"])["status"] == "ACTIVE"
    model = json.loads(shown["model"])
    assert (model["model_status"], model["version_status"]) == ("DELETED", "DELETED")
    assert execute("DESCRIBE MODEL MONITOR MON")[0]["name"] == "MON"
    execute("DROP MODEL MONITOR MON")


# -- snowflake-ml -----------------------------------------------------------------------------------------


def test_registry(execute, registry, scored, schema):
    from snowflake.ml.monitoring.entities.model_monitor_config import (
        ModelMonitorConfig,
        ModelMonitorSourceConfig,
    )

    source = ModelMonitorSourceConfig(
        source="SCORED",
        timestamp_column="TS",
        id_columns=["ID"],
        prediction_score_columns=["SCORE"],
        prediction_class_columns=["PREDICTED"],
        actual_class_columns=["ACTUAL"],
        baseline="SCORED",
        segment_columns=["PART"],
        custom_metric_columns=["EXTRA"],
    )
    version = registry.get_model("FLIGHTS").version("V1")
    config = ModelMonitorConfig(version, "predict_proba", "SNOWML_WH", aggregation_window="2 days")
    assert str(registry.add_monitor("MON", source, config).name) == "MON"
    (row,) = registry.show_model_monitors()
    assert (row["name"], row["aggregation_window"]) == ("MON", "2 days")

    monitor = registry.get_monitor(model_version=version)
    monitor.suspend()
    assert registry.show_model_monitors()[0]["monitor_state"] == "SUSPENDED"
    registry.get_monitor(name=f"{schema}.MON").resume()
    assert registry.show_model_monitors()[0]["monitor_state"] == "ACTIVE"
    monitor.drop_segment_column("PART")
    monitor.add_segment_column("PART")
    monitor.drop_custom_metric_column("EXTRA")
    monitor.add_custom_metric_column("EXTRA")
    (described,) = execute("DESCRIBE MODEL MONITOR MON")
    assert json.loads(described["columns"])["segment_columns"] == ["PART"]
    with pytest.raises(Exception, match="already exists"):
        registry.add_monitor("OTHER", source, config)

    registry.delete_monitor("MON")
    with pytest.raises(ValueError, match="Unable to find model monitor"):
        registry.get_monitor(name="MON")


# -- metrics ----------------------------------------------------------------------------------------------

START = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def sample() -> Any:
    """300 rows over six weeks, with what is missing in real life."""
    import pandas as pd

    random = np.random.default_rng(13)
    score = random.uniform(size=300).round(2)
    frame = pd.DataFrame(
        {
            "ID": range(300),
            "TS": [START + timedelta(hours=float(h)) for h in random.uniform(0, 6 * 7 * 24, 300)],
            "SCORE": score,
            "PREDICTED": (score > 0.5).astype(int),
            "ACTUAL": (score + random.normal(0, 0.4, 300) > 0.5).astype(float),
            "F1": random.normal(size=300),
            "PART": random.choice(["A", "B"], 300),
            "KIND": random.choice(["x", "y", "z"], 300),
        }
    )
    frame.loc[random.choice(300, 40, replace=False), "ACTUAL"] = None
    frame.loc[random.choice(300, 20, replace=False), "F1"] = None
    return frame


@pytest.fixture
def metric(execute, session, model, sample):
    """Ask a monitor on the sample's rows; the baseline is the first week."""
    session.write_pandas(sample, "SCORED", auto_create_table=True, use_logical_type=True)
    execute(f"CREATE TABLE FIRST_WEEK AS SELECT * FROM SCORED WHERE TS < '{START + timedelta(days=7)}'")
    execute(create(BASELINE="FIRST_WEEK", SEGMENT_COLUMNS="('PART')"))

    def ask(function: str, *arguments: Any, period: str | None = None) -> list[dict]:
        given = ["NULL" if a is None else f"'{a}'" for a in ("MON", *arguments)]
        given.append(period or f"'{START}'::TIMESTAMP_NTZ, '2024-03-01'::DATE")
        return execute(f"SELECT * FROM TABLE(MODEL_MONITOR_{function}_METRIC({', '.join(given)}))")

    return ask


def weeks(sample) -> list[tuple[datetime, Any]]:
    """The rows of each week, which starts on a Monday as 2024 did."""
    week = (sample.TS - START).dt.days // 7
    return [(START + timedelta(weeks=int(i)), rows) for i, rows in sample.groupby(week)]


def test_performance(metric, sample):
    from sklearn.metrics import accuracy_score, roc_auc_score

    for name, column, score in (
        ("ROC_AUC", "SCORE", roc_auc_score),
        ("CLASSIFICATION_ACCURACY", "PREDICTED", accuracy_score),
    ):
        found = metric("PERFORMANCE", name, "1 WEEK")
        assert len(found) == 6
        for row, (start, rows) in zip(found, weeks(sample), strict=True):
            known = rows.dropna(subset="ACTUAL")
            assert row.pop("METRIC_VALUE") == pytest.approx(score(known.ACTUAL, known[column]), abs=1e-9)
            assert row == {
                "EVENT_TIMESTAMP": start,
                "COUNT_USED": len(known),
                "COUNT_UNUSED": len(rows) - len(known),
                "METRIC_NAME": name,
                "SEGMENT_COLUMN": None,
                "SEGMENT_VALUE": None,
            }


def test_through_snowpark(metric, session, sample):
    from snowflake.snowpark.functions import lit

    arguments = ("MON", "COUNT", "SCORE", "ALL", START, datetime(2024, 3, 1))
    found = session.table_function("MODEL_MONITOR_STAT_METRIC", *map(lit, arguments))
    assert found.select("METRIC_VALUE").collect()[0][0] == len(sample)


def test_drift(metric, sample):
    first = weeks(sample)[0][1]
    found = metric("DRIFT", "DIFFERENCE_OF_MEANS", "f1", "1 WEEK")
    for row, (start, rows) in zip(found, weeks(sample), strict=True):
        expected = rows.F1.mean() - first.F1.mean()
        assert row.pop("METRIC_VALUE") == pytest.approx(expected, abs=1e-9)
        assert row == {
            "EVENT_TIMESTAMP": start,
            "COL_COUNT_USED": rows.F1.count(),
            "COL_COUNT_UNUSED": rows.F1.isna().sum(),
            "BASELINE_COL_COUNT_USED": first.F1.count(),
            "BASELINE_COL_COUNT_UNUSED": first.F1.isna().sum(),
            "METRIC_NAME": "DIFFERENCE_OF_MEANS",
            "COLUMN_NAME": "F1",
            "SEGMENT_COLUMN": None,
            "SEGMENT_VALUE": None,
        }

    stability = metric("DRIFT", "POPULATION_STABILITY_INDEX", "KIND", "1 WEEK")
    for row, (_, rows) in zip(stability, weeks(sample), strict=True):
        now, then = (frame.KIND.value_counts(normalize=True) for frame in (rows, first))
        expected = sum((now[kind] - then[kind]) * math.log(now[kind] / then[kind]) for kind in "xyz")
        assert row["METRIC_VALUE"] == pytest.approx(expected, abs=1e-9)
    assert stability[0]["METRIC_VALUE"] == 0


def test_statistics_by_range(metric, sample):
    for granularity, frequency in (("1 DAY", "D"), ("1 MONTH", "MS"), (None, "D")):
        counts = sample.set_index("TS").SCORE.resample(frequency).count()
        found = metric("STAT", "COUNT", "SCORE", granularity)
        assert {row["EVENT_TIMESTAMP"]: row["METRIC_VALUE"] for row in found} == dict(
            counts[counts > 0].items()
        )
    (row,) = metric("STAT", "AVG", "F1", "ALL")
    assert row.pop("METRIC_VALUE") == pytest.approx(sample.F1.mean(), abs=1e-9)
    assert row == {
        "EVENT_TIMESTAMP": START,
        "METRIC_NAME": "AVG",
        "COLUMN_NAME": "F1",
        "SEGMENT_COLUMN": None,
        "SEGMENT_VALUE": None,
    }
    assert metric("STAT", "COUNT", "SCORE", period="'ALL'") == []  # the last sixty days
    two_days = "'ALL', TO_TIMESTAMP_TZ('2024-01-03'), TO_TIMESTAMP_TZ('2024-01-05')"
    inside = sample[(sample.TS >= "2024-01-03") & (sample.TS < "2024-01-05")]
    assert metric("STAT", "COUNT", "F1", period=two_days)[0]["METRIC_VALUE"] == inside.F1.count()


def test_a_segment(metric, sample):
    part = sample[sample.PART == "B"]
    extra = json.dumps({"SEGMENTS": [{"column": "part", "value": "B"}]})
    everything = f"'ALL', '{START}'::TIMESTAMP_NTZ, NULL, '{extra}'"
    (row,) = metric("STAT", "AVG", "SCORE", period=everything)
    assert row["METRIC_VALUE"] == pytest.approx(part.SCORE.mean(), abs=1e-9)
    assert (row["SEGMENT_COLUMN"], row["SEGMENT_VALUE"]) == ("PART", "B")
    (row,) = metric("DRIFT", "DIFFERENCE_OF_MEANS", "SCORE", period=everything)
    normal = part[(part.TS - START).dt.days < 7].SCORE.mean()
    assert row["METRIC_VALUE"] == pytest.approx(part.SCORE.mean() - normal, abs=1e-9)
    for wrong in (
        {"SEGMENTS": [{"column": "KIND", "value": "x"}]},
        {"SEGMENTS": [{"column": "PART", "value": "A"}, {"column": "PART", "value": "B"}]},
        {"SEGMENTS": []},
        {"PARTS": [{"column": "PART", "value": "A"}]},
        [1],
    ):
        with pytest.raises(ProgrammingError, match="segment"):
            metric("STAT", "AVG", "SCORE", period=f"'ALL', NULL, NULL, '{json.dumps(wrong)}'")


def test_an_aggregation_window_is_what_can_be_told_apart(execute, metric, sample):
    execute(create(verb="CREATE OR REPLACE MODEL MONITOR", AGGREGATION_WINDOW="'3 days'"))
    day = (sample.TS - datetime(1970, 1, 1)).dt.days // 3 * 3
    counts = sample.groupby(day).ID.count()
    found = metric("STAT", "COUNT", "SCORE", "1 DAY", period=None)
    expected = {datetime(1970, 1, 1) + timedelta(days=int(d)): n for d, n in counts.items()}
    expected = {start: n for start, n in expected.items() if start >= START}
    assert {row["EVENT_TIMESTAMP"]: row["METRIC_VALUE"] for row in found} == expected


def test_a_suspended_monitor_sees_nothing_new_and_a_baseline_is_a_snapshot(execute, metric, sample):
    def count() -> float:
        return metric("STAT", "COUNT", "SCORE", "ALL")[0]["METRIC_VALUE"]

    before = metric("DRIFT", "DIFFERENCE_OF_MEANS", "SCORE", "ALL")
    execute("DROP TABLE FIRST_WEEK")
    assert metric("DRIFT", "DIFFERENCE_OF_MEANS", "SCORE", "ALL") == before
    assert count() == 300
    execute("ALTER MODEL MONITOR MON SUSPEND")
    execute("DELETE FROM SCORED WHERE ID < 100")
    assert count() == 300
    assert execute("SHOW MODEL MONITORS IN SCHEMA")[0]["monitor_state"] == "SUSPENDED"
    execute("ALTER MODEL MONITOR MON RESUME")
    assert count() == 200


@pytest.mark.parametrize(("value", "why"), [("1.5", "outside of 0 to 1"), ("'NaN'::FLOAT", "NaN")])
def test_invalid_values_suspend_it(execute, metric, value, why):
    execute(f"UPDATE SCORED SET SCORE = {value} WHERE ID = 7")
    assert metric("STAT", "COUNT", "SCORE", "ALL") == []
    (described,) = execute("DESC MODEL MONITOR MON")
    assert described["monitor_state"] == "SUSPENDED"
    assert set(json.loads(described["aggregation_status"]).values()) == {"SUSPENDED"}
    assert why in json.loads(described["aggregation_last_error"])["SOURCE_AGGREGATED"]
    execute("UPDATE SCORED SET SCORE = 0 WHERE ID = 7")
    execute("ALTER MODEL MONITOR MON RESUME")
    assert metric("STAT", "COUNT", "SCORE", "ALL")[0]["METRIC_VALUE"] == 300


def test_metrics_that_lack_a_column_are_null(execute, metric):
    execute(create(verb="CREATE OR REPLACE MODEL MONITOR", PREDICTION_CLASS_COLUMNS=None))
    (row,) = metric("PERFORMANCE", "CLASSIFICATION_ACCURACY", "ALL")
    assert (row["METRIC_VALUE"], row["COUNT_USED"], row["COUNT_UNUSED"]) == (None, 0, 300)
    assert metric("PERFORMANCE", "ROC_AUC", "ALL")[0]["METRIC_VALUE"] > 0.5
    with pytest.raises(ProgrammingError, match="no baseline"):
        metric("DRIFT", "DIFFERENCE_OF_MEANS", "SCORE", "ALL")


METRICS_REFUSED = {
    "monitor": ("STAT('NOPE', 'COUNT', 'SCORE')", 2003, "NOPE"),
    "drift": ("DRIFT('MON', 'PSI', 'SCORE')", 1008, "PSI"),
    "performance": ("PERFORMANCE('MON', 'ACCURACY')", 1008, "ACCURACY"),
    "other task": ("PERFORMANCE('MON', 'RMSE')", 1008, "BINARY_CLASSIFICATION: ROC_AUC"),
    "column": ("STAT('MON', 'COUNT', 'NOPE')", 1003, "NOPE"),
    "id": ("STAT('MON', 'COUNT', 'ID')", 1003, "'ID' is not monitored"),
    "text": ("DRIFT('MON', 'DIFFERENCE_OF_MEANS', 'KIND')", 1003, "numeric"),
    "average of text": ("STAT('MON', 'AVG', 'KIND')", 1003, "numeric"),
    "case": ("STAT('MON', 'COUNT', '\"score\"')", 1003, "score"),
    "granularity": ("STAT('MON', 'COUNT', 'SCORE', '1 HOUR')", 1008, "1 HOUR"),
    "no number": ("STAT('MON', 'COUNT', 'SCORE', 'DAY')", 1008, "DAY"),
    "time": ("STAT('MON', 'COUNT', 'SCORE', 'ALL', 'soon')", 1008, "start_time 'soon'"),
    "too few": ("STAT('MON', 'COUNT')", 939, "COLUMN_NAME"),
    "too many": ("PERFORMANCE('MON', 'ROC_AUC', 'ALL', NULL, NULL, NULL, 1)", 939, "UNEXPECTED"),
    "unknown name": ("PERFORMANCE('MON', 'ROC_AUC', SPEED => 1)", 939, "SPEED"),
    "gateway": ("PERFORMANCE('MON', 'ROC_AUC', SERVICE => S)", 2, "gateway"),
}


def not_there_yet(task: str) -> list[str]:
    """The performance metrics that Snowflake has for a task and we have not."""
    return [name for name, metric in PERFORMANCE.items() if task in metric.tasks and metric.compute is None]


NOT_THERE_YET = [
    *(("DRIFT", name, ", 'SCORE'") for name, compute in DRIFT.items() if compute is None),
    *(("STAT", name, ", 'SCORE'") for name, compute in STAT.items() if compute is None),
    *(("PERFORMANCE", name, "") for name in not_there_yet(monitors.BINARY)),
]


@pytest.mark.parametrize(("function", "name", "column"), NOT_THERE_YET)
def test_metrics_that_are_not_there_yet_are_refused_by_name(execute, scored, function, name, column):
    execute(create(BASELINE="SCORED"))
    with pytest.raises(ProgrammingError, match=f"metric {name} of MODEL_MONITOR_{function}") as e:
        execute(f"SELECT * FROM TABLE(MODEL_MONITOR_{function}_METRIC('MON', '{name}'{column}))")
    assert e.value.errno == 2


def test_what_metrics_refuse(execute, metric):
    for name, (call, errno, message) in METRICS_REFUSED.items():
        function, arguments = call.split("(", 1)
        with pytest.raises(ProgrammingError, match=message) as e:
            execute(f"SELECT * FROM TABLE(MODEL_MONITOR_{function}_METRIC({arguments})")
        assert e.value.errno == errno, name
    named = "END_TIME => '2024-02-01'::DATE, START_TIME => '2024-01-01', GRANULARITY => 'ALL'"
    call = f"MODEL_MONITOR_PERFORMANCE_METRIC('MON', 'ROC_AUC', {named})"
    assert len(execute(f"SELECT METRIC_VALUE FROM TABLE({call}) AS M")) == 1


def test_other_tasks(execute, registry, sample, session):
    """A regression's errors, and the accuracy of three classes."""
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    rows = sample.dropna().assign(KNOWN=lambda f: f.F1 * 3, GUESS=lambda f: f.F1 * 3 + f.SCORE)
    rows["SAID"] = rows.KIND.where(rows.SCORE > 0.4, "x")
    inputs = rows[["SCORE", "F1"]]
    options = {"enable_explainability": False}
    for name, fitted in (
        ("REGRESSION", LinearRegression().fit(inputs, rows.KNOWN)),
        ("KINDS", LogisticRegression().fit(inputs, rows.KIND)),
    ):
        registry.log_model(
            fitted, model_name=name, version_name="V1", sample_input_data=inputs.head(), options=options
        )
    session.write_pandas(rows.reset_index(drop=True), "SCORED", auto_create_table=True, use_logical_type=True)
    nothing = dict.fromkeys(("PREDICTION_SCORE_COLUMNS", "PREDICTION_CLASS_COLUMNS", "ACTUAL_CLASS_COLUMNS"))
    scores = {"PREDICTION_SCORE_COLUMNS": "('GUESS')", "ACTUAL_SCORE_COLUMNS": "('KNOWN')"}
    classes = {"PREDICTION_CLASS_COLUMNS": "('SAID')", "ACTUAL_CLASS_COLUMNS": "('KIND')"}
    with pytest.raises(ProgrammingError, match="PREDICTION_CLASS_COLUMNS cannot"):
        execute(create("R", MODEL="REGRESSION", **{**nothing, **classes}))
    with pytest.raises(ProgrammingError, match="PREDICTION_SCORE_COLUMNS cannot"):
        execute(create("K", MODEL="KINDS", **{**nothing, **scores}))
    execute(create("R", MODEL="REGRESSION", **{**nothing, **scores}))
    execute(create("K", MODEL="KINDS", BASELINE="SCORED", **{**nothing, **classes}))

    def value(monitor: str, metric: str) -> float:
        (row,) = execute(
            f"SELECT METRIC_VALUE FROM TABLE(MODEL_MONITOR_PERFORMANCE_METRIC("
            f"'{monitor}', '{metric}', 'ALL', '{START}'::TIMESTAMP_NTZ))"
        )
        return row["METRIC_VALUE"]

    rmse = math.sqrt(mean_squared_error(rows.KNOWN, rows.GUESS))
    assert value("R", "RMSE") == pytest.approx(rmse, abs=1e-9)
    assert value("R", "MAE") == pytest.approx(mean_absolute_error(rows.KNOWN, rows.GUESS), abs=1e-9)
    assert value("K", "CLASSIFICATION_ACCURACY") == pytest.approx((rows.SAID == rows.KIND).mean(), abs=1e-9)
    with pytest.raises(ProgrammingError, match="needs a numeric column; 'SAID' is none"):
        execute("SELECT * FROM TABLE(MODEL_MONITOR_DRIFT_METRIC('K', 'DIFFERENCE_OF_MEANS', 'SAID'))")
    for monitor, task in (("R", monitors.REGRESSION), ("K", monitors.MULTI)):
        for name in not_there_yet(task):
            with pytest.raises(ProgrammingError, match=f"metric {name} of MODEL_MONITOR_PERFORMANCE"):
                value(monitor, name)
