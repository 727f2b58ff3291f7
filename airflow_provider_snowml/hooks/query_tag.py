"""The query tag that says which task sent a statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def task_tag() -> dict[str, Any]:
    """The running task, ``{}`` outside of one."""
    from airflow.sdk import get_current_context

    try:
        ti = get_current_context()["ti"]
    except Exception:  # outside a task, in whichever way Airflow says so
        return {}
    return tag_of(ti)


def tag_of(ti: Any) -> dict[str, Any]:
    """A task instance, as the tag names it."""
    return {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": ti.map_index if ti.map_index is not None else -1,
        "try_number": ti.try_number,
    }


def merged_tag(present: str | None, ours: Mapping[str, Any]) -> str | None:
    """The tag to set, ``None`` to leave the present one alone.

    :param present: the session's tag; a plain text is somebody's own and stays as it is.
    :param ours: what is added to a JSON object or to nothing.
    """
    if not ours:
        return None
    base: Any = {}
    if present:
        try:
            base = json.loads(present)
        except ValueError:
            return None
        if not isinstance(base, dict):
            return None
    return json.dumps({**base, **ours})
