"""Each line of a log is shown once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.log_lines import new_lines


@given(st.lists(st.integers(0, 8), max_size=20), st.integers(1, 12))
def test_a_log_of_different_lines_is_shown_whole_and_once(steps: list[int], limit: int) -> None:
    log: list[str] = []
    shown: list[str] = []
    seen: list[str] = []
    for step in steps:
        log += [f"line {len(log) + i}" for i in range(min(step, limit))]
        tail = log[-limit:]
        shown += new_lines(seen, tail)
        seen = tail
    assert shown == log


def test_lines_that_were_missed_cost_no_others() -> None:
    assert new_lines(["1", "2"], ["7", "8"]) == ["7", "8"]


def test_lines_that_are_all_alike_are_shown_too_few_times_rather_than_twice() -> None:
    assert new_lines(["same", "same"], ["same", "same", "same"]) == ["same"]
    assert new_lines(["same", "same"], ["same", "same"]) == []
