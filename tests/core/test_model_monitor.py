from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_snowml.core.model_monitor import (
    BINARY,
    MULTI,
    REGRESSION,
    ModelMonitor,
    interval_seconds,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelTaskError, MonitorColumnsError

MONITOR = ModelMonitor(
    name=QualifiedName.parse("DB.SC.MON"),
    model=QualifiedName.parse("DB.SC.M"),
    version="V1",
    function="predict_proba",
    source=QualifiedName.parse("DB.SC.SCORED"),
    warehouse=Identifier("WH"),
    timestamp_column="TS",
    prediction_score_columns=("P",),
)
FULL = replace(
    MONITOR,
    version="it's",
    baseline=QualifiedName.parse('db.sc."base line"'),
    id_columns=("DAY", "odd id"),
    prediction_class_columns=("C",),
    actual_class_columns=("A",),
    segment_columns=("S",),
    custom_metric_columns=("X",),
    comment="it's \\ here",
)


def test_the_statement() -> None:
    assert MONITOR.create() == (
        "CREATE MODEL MONITOR DB.SC.MON WITH MODEL = DB.SC.M VERSION = 'V1' FUNCTION = 'predict_proba' "
        "SOURCE = DB.SC.SCORED WAREHOUSE = WH REFRESH_INTERVAL = '1 hour' AGGREGATION_WINDOW = '1 day' "
        "TIMESTAMP_COLUMN = TS PREDICTION_SCORE_COLUMNS = ('P')"
    )
    assert FULL.create(replace=True) == (
        "CREATE OR REPLACE MODEL MONITOR DB.SC.MON WITH MODEL = DB.SC.M VERSION = '\"it\\'s\"' "
        "FUNCTION = 'predict_proba' SOURCE = DB.SC.SCORED WAREHOUSE = WH REFRESH_INTERVAL = '1 hour' "
        "AGGREGATION_WINDOW = '1 day' TIMESTAMP_COLUMN = TS BASELINE = DB.SC.\"base line\" "
        "ID_COLUMNS = ('DAY', '\"odd id\"') PREDICTION_SCORE_COLUMNS = ('P') "
        "PREDICTION_CLASS_COLUMNS = ('C') ACTUAL_CLASS_COLUMNS = ('A') SEGMENT_COLUMNS = ('S') "
        "CUSTOM_METRIC_COLUMNS = ('X') COMMENT = 'it\\'s \\\\ here'"
    )


def described(**changes: Any) -> dict[str, Any]:
    """A row of DESCRIBE MODEL MONITOR that is FULL's."""
    place = {"database_name": "DB", "schema_name": "SC"}
    row = {
        "model": {"model_name": "M", "version_name": "it's", "function_name": "PREDICT_PROBA", **place},
        "source": {"name": "SCORED", "status": "ACTIVE", **place},
        "baseline": {"name": "base line", "status": "DELETED", **place},
        "columns": {
            "timestamp_column": "TS",
            "id_columns": ["odd id", "DAY"],
            "prediction_score_columns": ["P"],
            "prediction_class_columns": ["C"],
            "actual_score_columns": [],
            "actual_class_columns": ["A"],
            "segment_columns": ["S"],
            "numerical_columns": ["F"],
        },
        **changes,
    }
    texts = {"warehouse_name": "WH", "refresh_interval": "60 minutes", "aggregation_window": "1 days"}
    return {**texts, **{name: v if isinstance(v, str) else json.dumps(v) for name, v in row.items()}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"baseline": {"status": "NOT_SET"}}, ['its baseline is none, not DB.SC."base line"']),
        ({"source": ""}, ["its source is none, not DB.SC.SCORED"]),
        ({"refresh_interval": "2 hours"}, ["its refresh_interval is 2 hours, not 1 hour"]),
        ({"refresh_interval": "PT1H"}, []),  # a spelling that nobody has told us: not compared
        ({"warehouse_name": "OTHER"}, ["its warehouse is OTHER, not WH"]),
    ],
)
def test_differences(changes: dict[str, Any], expected: list[str]) -> None:
    assert FULL.differences(described(**changes)) == expected


def test_a_name_in_needless_quotes_is_the_same() -> None:
    quoted = replace(FULL, source=QualifiedName.parse('"DB".SC."SCORED"'))
    assert quoted.differences(described()) == []


@pytest.mark.parametrize(
    ("task", "columns", "complaint"),
    [
        (BINARY, {}, None),
        (BINARY, {"actual_class_columns": ("A",)}, None),
        (BINARY, {"actual_score_columns": ("A",)}, "actual_score_columns is A"),
        (REGRESSION, {"actual_score_columns": ("A",)}, None),
        (REGRESSION, {"actual_class_columns": ("A",)}, "prediction_score_columns and actual_score_columns"),
        (MULTI, {}, "it takes prediction_class_columns and actual_class_columns"),
        ("TABULAR_RANKING", {}, "with the task TABULAR_RANKING"),
    ],
)
def test_the_task_says_which_columns(task: str, columns: dict[str, Any], complaint: str | None) -> None:
    monitor = replace(MONITOR, **columns)
    if complaint is None:
        monitor.check(task)
    else:
        with pytest.raises(ModelTaskError, match=complaint):
            monitor.check(task)


def test_a_class_is_a_number_or_a_text_as_the_task_has_it() -> None:
    monitor = replace(MONITOR, prediction_score_columns=(), prediction_class_columns=("C",))
    columns = {"TS": "TIMESTAMP_NTZ", "C": "TEXT"}
    monitor.check_source(MULTI, columns)
    with pytest.raises(
        MonitorColumnsError, match=r"C to be NUMBER; in the source DB.SC.SCORED it is VARCHAR"
    ):
        monitor.check_source(BINARY, columns)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90 seconds", 90), ("1 minute", 60), ("2 Hours", 7200), ("1 day", 86400)]
)
def test_intervals(text: str, seconds: int) -> None:
    assert interval_seconds(text, "refresh_interval") == seconds
    with pytest.raises(
        InvalidArgumentError, match="refresh_interval is '1 week'; write a number and seconds or"
    ):
        interval_seconds("1 week", "refresh_interval")
