"""Where snowflake-ml cannot be imported, all but training and registering goes on."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator
from airflow_provider_snowml.operators.load_predictions import SnowMLLoadPredictionsOperator
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator
from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator, SnowMLDropServiceOperator


@pytest.fixture
def no_snowflake_ml(serving, monkeypatch):
    """An import of snowflake.ml, or of anything in it, fails; the models were made before."""
    for name in [name for name in sys.modules if name.startswith("snowflake.ml")] or ["snowflake.ml"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "snowflake.ml", None)
    with pytest.raises(ImportError):
        import snowflake.ml.registry  # noqa: F401
    return serving


def test_batch_load_service_and_monitor(no_snowflake_ml, task_context) -> None:
    place, hook = no_snowflake_ml, no_snowflake_ml.hook()
    batch = SnowMLBatchInferenceOperator(
        task_id="batch",
        model_name="M",
        function_name="predict",
        input_query="SELECT ID, F1, F2, DAY FROM X WHERE DAY = '2013-06-01'",
        compute_pool=place.pool,
        output_stage_location="@ST/without",
        poll_interval=0.2,
        deferrable=False,
    ).execute(task_context("batch"))
    assert batch["output_rows"] == 30
    loaded = SnowMLLoadPredictionsOperator(
        task_id="load",
        job_output_location=batch["job_output_location"],
        output_table="WITHOUT_SNOWFLAKE_ML",
        replace_column="DAY",
        replace_value="2013-06-01",
    ).execute(task_context("load"))
    assert loaded["rows"] == 30

    service: dict[str, Any] = {"service_name": "WITHOUT_SNOWFLAKE_ML"}
    made = SnowMLCreateServiceOperator(
        task_id="serve",
        model_name="M",
        service_compute_pool=place.pool,
        poll_interval=0.2,
        deferrable=False,
        **service,
    ).execute(task_context("serve"))
    assert made["status"] == "RUNNING"
    assert SnowMLDropServiceOperator(task_id="drop", **service).execute(task_context("drop"))["dropped"]

    hook.rows(
        "CREATE OR REPLACE VIEW WATCHED_WITHOUT AS SELECT ID, DATEADD(HOUR, ID, '2013-06-01'::TIMESTAMP_NTZ) "
        "AS AT, ID / 60 AS P, IFF(MOD(ID, 7) > 3, 1, 0) AS HAPPENED FROM X"
    )
    watched = SnowMLCreateMonitorOperator(
        task_id="watch",
        monitor_name="WITHOUT_SNOWFLAKE_ML",
        model_name="M",
        function_name="predict_proba",
        source="WATCHED_WITHOUT",
        timestamp_column="AT",
        id_columns=["ID"],
        prediction_score_columns=["P"],
        actual_class_columns=["HAPPENED"],
    ).execute(task_context("watch"))
    assert "WITHOUT_SNOWFLAKE_ML" in watched["monitor_name"]
    hook.rows("DROP MODEL MONITOR WITHOUT_SNOWFLAKE_ML")
