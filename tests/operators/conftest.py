"""A task's context without a scheduler, for what only the context decides: runs, clears, retries."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest


class StateStore:
    """What Airflow's ``task_state_store`` does: values by key that outlive a try."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return copy.deepcopy(self.values.get(key, default))

    def set(self, key: str, value: Any) -> None:
        self.values[key] = copy.deepcopy(value)


@pytest.fixture
def task_context():
    """Make the context of a try. The same ``store`` makes it another try of the same task instance."""

    def make(
        task_id: str,
        *,
        run_id: str = "scheduled__2013-06-01",
        clear_number: int = 0,
        partition_key: str | None = "2013-06-01",
        store: StateStore | None = None,
    ) -> dict[str, Any]:
        return {
            "ti": SimpleNamespace(
                dag_id="bad_day", task_id=task_id, run_id=run_id, map_index=-1, try_number=1
            ),
            "dag_run": SimpleNamespace(clear_number=clear_number, run_type="scheduled"),
            "partition_key": partition_key,
            "task_state_store": store if store is not None else StateStore(),
        }

    make.store = StateStore
    return make
