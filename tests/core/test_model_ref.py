from __future__ import annotations

import pytest

from airflow_provider_snowml.core.model_ref import (
    ModelFunction,
    ModelVersionInfo,
    ModelVersionRef,
    check_columns,
    next_version_name,
    resolve_version,
)
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import (
    InputColumnsError,
    InvalidNameError,
    ModelFunctionNotFoundError,
    ModelVersionNotFoundError,
)

MODEL = QualifiedName.parse("db.sc.m")
VERSIONS = [
    ModelVersionInfo("V1", ("FIRST", "DEFAULT")),
    ModelVersionInfo("V2", ("CHAMPION",)),
    ModelVersionInfo("V3", ("LAST",)),
]
PREDICT = ModelFunction("PREDICT", "predict", "FUNCTION", ("F1", "f2"))
EXPLAIN = ModelFunction("EXPLAIN", "explain", "TABLE_FUNCTION")


@pytest.mark.parametrize(
    ("reference", "version"),
    [("V2", "V2"), ("v2", "V2"), ("default", "V1"), ("first", "V1"), ("LAST", "V3"), ("champion", "V2")],
)
def test_reference_is_resolved(reference: str, version: str) -> None:
    assert resolve_version(MODEL, reference, VERSIONS).name == version


def test_unknown_version_lists_what_there_is() -> None:
    with pytest.raises(ModelVersionNotFoundError, match=r"'V9'.*V1 \(FIRST, DEFAULT\), V2 \(CHAMPION\), V3"):
        resolve_version(MODEL, "V9", VERSIONS)
    with pytest.raises(InvalidNameError):
        resolve_version(MODEL, "no version", VERSIONS)


def test_function_by_either_name_or_the_only_one() -> None:
    both = ModelVersionRef(MODEL, "V1", (PREDICT, EXPLAIN))
    assert both.function("predict") is both.function("PREDICT") is PREDICT
    assert ModelVersionRef(MODEL, "V1", (PREDICT,)).function(None) is PREDICT
    with pytest.raises(ModelFunctionNotFoundError, match=r"has 2 functions.*predict, explain"):
        both.function(None)
    with pytest.raises(ModelFunctionNotFoundError, match=r"no function 'score'.*predict, explain"):
        both.function("score")


def test_missing_columns_are_named_with_both_sides() -> None:
    check_columns(PREDICT, ["f1", "F2", "ID"], source="input_table")
    with pytest.raises(InputColumnsError, match=r"wants f2, which input_table lacks\. It has: F1, ID\."):
        check_columns(PREDICT, ["F1", "ID"], source="input_table")


def test_next_version_name_is_the_first_free_one() -> None:
    assert next_version_name("V3", []) == "V3"
    assert next_version_name("V3", ["V3", "V3_2"]) == "V3_3"
