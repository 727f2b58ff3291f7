from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.run_schema import RunSchemaMark, run_schema_name
from airflow_provider_snowml.exceptions import InvalidArgumentError


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("2013-01-28T11:00:00+00:00", "RUN_20130128T110000"),
        ("2013-01-28", "RUN_2013_01_28"),
        ("manual__2013-01-28T11:00:00.5+00:00", "RUN_MANUAL_2013_01_28T11_00_00_5_00_00"),
        ("été", "RUN_T"),
        ("…", "RUN_B4935894C8CE"),
    ],
)
def test_the_name_says_when(key: str, name: str) -> None:
    assert run_schema_name("run", key).name == name


@given(st.text(max_size=300))
def test_any_key_makes_a_legal_name_always_the_same(key: str) -> None:
    name = run_schema_name("RUN", key)
    assert re.fullmatch(r"RUN_[A-Z0-9_]{1,170}", name.name)
    assert name.sql == name.name
    assert name == run_schema_name("RUN", key)


@pytest.mark.parametrize("prefix", ["", "1A", "A B", 'A"', "A" * 65, "Ä"])
def test_a_prefix_that_is_no_identifier(prefix: str) -> None:
    with pytest.raises(InvalidArgumentError, match="prefix is"):
        run_schema_name(prefix, "x")


@given(st.text(), st.text())
def test_a_mark_comes_back(dag_id: str, key: str) -> None:
    mark = RunSchemaMark(dag_id, key)
    assert RunSchemaMark.from_comment(mark.to_comment()) == mark


@pytest.mark.parametrize(
    "comment",
    [None, "", "mine", "[]", "{}", '{"airflow_provider_snowml_run_schema": {"dag_id": "x"}}', "1"],
)
def test_no_mark(comment: str | None) -> None:
    assert RunSchemaMark.from_comment(comment) is None
