"""A worker that a test kills: one try of a deployment whose image is never built, its state in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))
from worker import FileStore

from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator

if __name__ == "__main__":
    SnowMLCreateServiceOperator(
        task_id="serve",
        model_name="M",
        service_name=sys.argv[1],
        service_compute_pool="SERVICE_POOL",
        image_build_compute_pool="SLEEPING_SERVICE_POOL",
        force_rebuild=True,
        min_instances=1,
        poll_interval=0.2,
    ).execute(
        {
            "ti": SimpleNamespace(
                dag_id="bad_day",
                task_id="serve",
                run_id="scheduled__2013-06-01",
                map_index=-1,
                try_number=1,
            ),
            "dag_run": SimpleNamespace(clear_number=0, run_type="scheduled"),
            "task_state_store": FileStore(),
        }
    )
