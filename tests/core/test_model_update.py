from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.model_update import (
    ModelUpdate,
    changes,
    check_update,
    parse_metrics,
    parse_rename,
    parse_tags,
    update_steps,
)
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.core.promotion import CatalogModel, CatalogVersion
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, ModelLimitError

M = QualifiedName.parse("DB.S.M")
RECORD = {"promotion": {"marks": {"alias": "CHAMPION"}}}
V1 = CatalogVersion(
    "V1", aliases=("DEFAULT", "FIRST", "CHAMPION"), metadata={"metrics": {"auc": 0.5, **RECORD}}
)
V2 = CatalogVersion("V2", aliases=("LAST", "CANDIDATE"), comment="weekly")
MODEL = CatalogModel(M, (V1, V2), comment="old")


def test_only_what_differs_is_sent_and_the_name_last() -> None:
    update = ModelUpdate(
        comment="new",
        tags={"DB.S.T": "a", "DB.S.SAME": "b", "DB.S.GONE": None},
        version="V2",
        version_comment="weekly",
        metrics={"auc": 0.7, "gone": None},
        rename_to=QualifiedName.parse("DB.S.N"),
    )
    tags = {"DB.S.T": None, "DB.S.SAME": "b", "DB.S.GONE": "x"}
    sent = [step.sql for step in update_steps(MODEL, tags, update)]
    metadata = '{"snowpark_ml_schema_version": "2024-01-01", "metrics": {"auc": 0.7}}'
    assert sent == [
        f"ALTER MODEL DB.S.M MODIFY VERSION V2 SET METADATA = '{metadata}'",
        "ALTER MODEL DB.S.M SET TAG DB.S.T = 'a'",
        "ALTER MODEL DB.S.M UNSET TAG DB.S.GONE",
        "ALTER MODEL DB.S.M SET COMMENT = 'new'",
        "ALTER MODEL DB.S.M RENAME TO DB.S.N",
    ]
    assert changes(update.before(MODEL, tags), update.after()) == {
        "metric auc": {"from": None, "to": 0.7},
        "tag DB.S.T": {"from": None, "to": "a"},
        "tag DB.S.GONE": {"from": "x", "to": None},
        "comment": {"from": "old", "to": "new"},
        "name": {"from": "DB.S.M", "to": "DB.S.N"},
    }


def test_the_record_of_a_promotion_stays() -> None:
    (step,) = update_steps(MODEL, {}, ModelUpdate(version="V1", metrics={"auc": None, "f1": 1}))
    metadata = json.loads(step.sql.partition(" = ")[2].strip("'"))
    assert metadata["metrics"] == {"f1": 1, **RECORD}
    with pytest.raises(InvalidArgumentError, match="record of a promotion"):
        parse_metrics(RECORD)


def test_an_alias_moves_and_takes_the_place_of_another() -> None:
    model = CatalogModel(M, (V1, V2, CatalogVersion("V3", aliases=("SHADOW",))))
    update = ModelUpdate(version="V3", alias="CANDIDATE")
    sent = [step.sql.removeprefix("ALTER MODEL DB.S.M VERSION ") for step in update_steps(model, {}, update)]
    assert sent == ["SHADOW UNSET ALIAS", "CANDIDATE UNSET ALIAS", "V3 SET ALIAS = CANDIDATE"]
    assert changes(update.before(model, {}), update.after()) == {
        "alias SHADOW": {"from": "V3", "to": None},
        "alias CANDIDATE": {"from": "V2", "to": "V3"},
    }


@pytest.mark.parametrize(("version", "alias"), [("V2", "CHAMPION"), ("V1", "SHADOW")])
def test_the_champions_alias_is_the_promotions(version, alias) -> None:
    with pytest.raises(InvalidArgumentError, match=r"CHAMPION marks the champion of DB\.S\.M, V1"):
        check_update(MODEL, ModelUpdate(version=version, alias=alias))


def test_the_metadata_as_a_whole_has_a_limit() -> None:
    full = CatalogVersion("V1", metadata={"metrics": {"a": "x" * 60_000}})
    update = ModelUpdate(version="V1", metrics={"b": "x" * 60_000})
    with pytest.raises(ModelLimitError, match="Snowflake's limit is 102400"):
        check_update(CatalogModel(M, (full,)), update)
    check_update(CatalogModel(M, (full,)), ModelUpdate(version="V1", metrics={"a": "x" * 60_000}))


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"T": 5}, InvalidArgumentError, "tag DB.S.T is 5; it must be a text"),
        ({"T": "x" * 257}, ModelLimitError, "tag DB.S.T has 257 characters"),
        ({"T": "a", "db.s.t": "b"}, InvalidArgumentError, "name DB.S.T twice"),
        ({"a b": "x"}, InvalidNameError, "a b"),
        (["T"], InvalidArgumentError, r"tags is \['T'\]; it must be a dictionary"),
    ],
)
def test_what_is_no_tag(given, error, says) -> None:
    with pytest.raises(error, match=says):
        parse_tags(given, M)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object(), {"a": [float("nan")]}, "a$$b"]
)
def test_what_is_no_metric(value) -> None:
    with pytest.raises(InvalidArgumentError, match="metric auc"):
        parse_metrics({"auc": value})


def test_a_model_is_renamed_in_its_schema() -> None:
    assert parse_rename('"n"', M).sql == 'DB.S."n"'
    with pytest.raises(InvalidArgumentError, match="in another schema"):
        parse_rename("OTHER.N", M)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
metrics = st.dictionaries(st.text(min_size=1), values, max_size=4)


@given(before=metrics, wanted=metrics)
def test_from_whatever_there_is_all_metrics_become_what_is_wanted(before: Any, wanted: Any) -> None:
    try:
        parsed = parse_metrics(wanted)
        kept = parse_metrics(before)
    except InvalidArgumentError:
        return
    start = {name: value for name, value in kept.items() if value is not None}
    model = CatalogModel(M, (CatalogVersion("V1", metadata={"metrics": start}),))
    steps = update_steps(model, {}, ModelUpdate(version="V1", metrics=parsed))
    end = {**start, **parsed}
    end = {name: value for name, value in end.items() if value is not None}
    assert (not steps) == (start == end)
