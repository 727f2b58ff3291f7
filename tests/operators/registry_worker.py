"""A worker that a test kills while it registers a model; its task's state is in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator


class FileStore:
    """A task state store that outlives the process."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def get(self, key: str, default: Any = None) -> Any:
        return (json.loads(self.path.read_text()) if self.path.exists() else {}).get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.path.write_text(json.dumps({key: value}))


def train(trainings: str) -> ModelArtifact:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    with Path(trainings).open("a") as file:
        file.write("x")
    rows = pd.DataFrame({"A": [1.0, 2.0, 3.0, 4.0]})
    model = LogisticRegression().fit(rows, rows["A"] > 2)
    return ModelArtifact(model, sample_input_data=rows, metrics={"auc": 0.9}, comment="weekly")


def one_try(directory: str) -> dict[str, Any]:
    return SnowMLRegisterModelOperator(
        task_id="register",
        model_name="KILLED",
        version_name="V1",
        python_callable=train,
        op_kwargs={"trainings": f"{directory}/trainings"},
    ).execute(
        {
            "ti": SimpleNamespace(
                dag_id="bad_day", task_id="register", run_id="r", map_index=-1, try_number=1
            ),
            "dag_run": SimpleNamespace(clear_number=0, run_type="scheduled"),
            "partition_key": "2013-06-01",
            "task_state_store": FileStore(f"{directory}/store"),
        }
    )


if __name__ == "__main__":
    one_try(os.environ["SNOWML_TEST_DIRECTORY"])
