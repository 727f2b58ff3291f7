"""Inference: in the warehouse, in a batch job, and what becomes of a batch job's output."""

from __future__ import annotations

from airflow_provider_snowml.operators.batch_cleanup import SnowMLCleanUpBatchOperator
from airflow_provider_snowml.operators.batch_inference import SnowMLBatchInferenceOperator
from airflow_provider_snowml.operators.load_predictions import SnowMLLoadPredictionsOperator
from airflow_provider_snowml.operators.run_model import SnowMLRunModelOperator

__all__ = [
    "SnowMLBatchInferenceOperator",
    "SnowMLCleanUpBatchOperator",
    "SnowMLLoadPredictionsOperator",
    "SnowMLRunModelOperator",
]
