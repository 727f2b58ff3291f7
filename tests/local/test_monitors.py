"""Model monitors: the statements, as SQL and as snowflake-ml sends them."""

from __future__ import annotations

import json

import pytest
from snowflake.connector import DictCursor

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
    (shown,) = execute("SHOW MODEL MONITORS LIKE 'mo%'")
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
