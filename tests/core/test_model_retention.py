from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.model_retention import VersionInUse, plan_pruning

V1 = VersionInUse("V1", 1.0, aliases=["FIRST"])
V2 = VersionInUse("V2", 2.0, aliases=["CHAMPION"])
V3 = VersionInUse("V3", 3.0, services=["DB.S.SVC"])
V4 = VersionInUse("V4", 4.0, monitors=["MON"])
V5 = VersionInUse("V5", 5.0)
V6 = VersionInUse("V6", 6.0, aliases=["DEFAULT"], previous_champion="V5")
V7 = VersionInUse("V7", 7.0)
V8 = VersionInUse("V8", 8.0, aliases=["LAST"])
ALL = [V5, V1, V2, V8, V3, V4, V6, V7]


@pytest.mark.parametrize(
    ("keep_last", "older_than", "dropped"),
    [
        (1, None, ("V1", "V7")),
        (2, None, ("V1",)),
        (None, 3.0, ("V1", "V7")),
        (None, 3.5, ("V1",)),
        (1, 9.5, ()),
    ],
)
def test_what_goes(keep_last, older_than, dropped) -> None:
    plan = plan_pruning(ALL, keep_last=keep_last, older_than=older_than, now=10.0)
    assert plan.dropped == dropped
    assert set(plan.dropped) | set(plan.kept) == {version.name for version in ALL}


def test_each_says_why_it_stays() -> None:
    assert plan_pruning(ALL, keep_last=1, older_than=4.0, now=10.0).kept == {
        "V2": "has the alias CHAMPION",
        "V3": "served by DB.S.SVC",
        "V4": "watched by MON",
        "V5": "the champion before the default",
        "V6": "the default",
        "V7": "not old enough",
        "V8": "one of the 1 newest",
    }


names = st.lists(st.sampled_from(["DEFAULT", "FIRST", "LAST", "A"]), max_size=2, unique=True)
version = st.builds(
    VersionInUse,
    name=st.uuids().map(str),
    created_at=st.integers(0, 5).map(float),
    aliases=names,
    services=st.lists(st.just("S"), max_size=1),
    monitors=st.lists(st.just("M"), max_size=1),
)


@given(st.lists(version, max_size=8), st.integers(1, 9), st.one_of(st.none(), st.integers(0, 9)))
def test_what_is_used_stays_and_so_do_the_newest(versions, keep_last, older_than) -> None:
    plan = plan_pruning(versions, keep_last=keep_last, older_than=older_than, now=5.0)
    for each in versions:
        if each.services or each.monitors or set(each.aliases) & {"DEFAULT", "A"}:
            assert each.name in plan.kept
    assert len(plan.kept) >= min(keep_last, len(versions))
    ages = {each.name: 5.0 - each.created_at for each in versions}
    assert all(older_than is None or ages[name] >= older_than for name in plan.dropped)
