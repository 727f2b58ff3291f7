"""A worker that a test kills: one try of a slow batch task, its state in a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator


class FileStore:
    """A task state store that outlives the process."""

    def __init__(self) -> None:
        self.path = Path(os.environ["SNOWML_TEST_STORE"])

    def get(self, key: str, default: Any = None) -> Any:
        values = json.loads(self.path.read_text()) if self.path.exists() else {}
        return values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        values = json.loads(self.path.read_text()) if self.path.exists() else {}
        part = self.path.with_suffix(".part")  # the test reads meanwhile
        part.write_text(json.dumps({**values, key: value}))
        part.replace(self.path)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    task_id = wanted["task_id"]
    SnowMLBatchInferenceOperator(
        task_id=task_id,
        model_name="SLOW",
        function_name="predict",
        input_query=f"SELECT {wanted['seconds']}::FLOAT AS F1, 1 AS ID",
        compute_pool="TEST_POOL",
        output_stage_location=f"@ST/{task_id}",
        schema=wanted["schema"],
        poll_interval=0.2,
        force_rebuild=wanted.get("force_rebuild", False),
    ).execute(
        {
            "ti": SimpleNamespace(
                dag_id="bad_day",
                task_id=task_id,
                run_id="scheduled__2013-06-01",
                map_index=-1,
                try_number=1,
            ),
            "dag_run": SimpleNamespace(clear_number=0, run_type="scheduled"),
            "partition_key": "2013-06-01",
            "task_state_store": FileStore(),
        }
    )
