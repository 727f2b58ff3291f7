"""The rule of a contest, and how it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.champion_challenger import ContestRule, Outcome, Score, judge, report

BETTER, NOT_BETTER, NO_CHAMPION = Outcome.BETTER, Outcome.NOT_BETTER, Outcome.NO_CHAMPION

AUC = ContestRule("auc")
ERROR = ContestRule("mae", less_is_better=True)
SLICED = ContestRule("auc", max_slice_loss={"JFK": 0.02})


def score(version: str, value: float | None, rows: int = 100, jfk: float | None = None) -> Score:
    return Score(version, rows, {"auc": value, "mae": value}, {"JFK": jfk})


@pytest.mark.parametrize(
    ("rule", "own", "other", "outcome", "reason"),
    [
        (AUC, 0.7, 0.6, BETTER, "0.7 against the champion's 0.6, 0.1 better; more than 0"),
        (AUC, 0.6, 0.6, NOT_BETTER, "0 better; more than 0 is wanted"),
        (AUC, 0.6, 0.7, NOT_BETTER, "-0.1 better"),
        (AUC, None, 0.7, NOT_BETTER, "challenger's auc is unknown"),
        (AUC, 0.7, None, NOT_BETTER, "champion's auc is unknown"),
        (ERROR, 2.0, 3.0, BETTER, "1 better"),
        (ERROR, 3.0, 2.0, NOT_BETTER, "-1 better"),
        (replace(AUC, min_margin=0.25), 0.75, 0.5, BETTER, "at least 0.25 is wanted"),
        (replace(AUC, min_margin=0.25), 0.625, 0.5, NOT_BETTER, "0.125 better; at least 0.25"),
        (replace(AUC, floor=0.7), 0.7, 0.6, BETTER, "at least 0.7 is wanted"),
        (replace(AUC, floor=0.75), 0.7, 0.6, NOT_BETTER, "auc is 0.7; at least 0.75 is wanted"),
        (replace(ERROR, floor=1.0), 2.0, 3.0, NOT_BETTER, "mae is 2; at most 1 is wanted"),
        (replace(AUC, min_rows=101), 0.7, 0.6, NOT_BETTER, "100 rows have a label; 101 are wanted"),
    ],
)
def test_the_rule(rule, own, other, outcome, reason) -> None:
    verdict = judge(rule, score("V2", own), score("V1", other))
    assert verdict.outcome is outcome
    assert reason in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("rule", "own", "outcome"),
    [
        (AUC, 0.1, NO_CHAMPION),
        (AUC, None, NOT_BETTER),
        (replace(AUC, floor=0.7), 0.6, NOT_BETTER),
        (replace(AUC, min_rows=101), 0.9, NOT_BETTER),
        (replace(AUC, min_margin=0.5), 0.2, NO_CHAMPION),
    ],
)
def test_without_a_champion_only_the_champion_is_not_looked_at(rule, own, outcome) -> None:
    assert judge(rule, score("V1", own), None).outcome is outcome


@pytest.mark.parametrize(
    ("own", "other", "outcome"),
    [(0.5, 0.51, BETTER), (0.5, 0.6, NOT_BETTER), (None, 0.6, NOT_BETTER), (0.6, None, NOT_BETTER)],
)
def test_a_slice_may_lose_a_little(own, other, outcome) -> None:
    verdict = judge(SLICED, score("V2", 0.8, jfk=own), score("V1", 0.7, jfk=other))
    assert verdict.outcome is outcome
    assert (outcome is BETTER) or all("On JFK" in reason for reason in verdict.reasons)


def test_the_champion_itself_wins_whatever_its_numbers_are() -> None:
    strict = replace(AUC, floor=1.0, min_rows=1000)
    assert judge(strict, score("V1", None), score("V1", None)).outcome is BETTER


numbers = st.one_of(st.none(), st.floats(-10, 10))


@given(
    own=numbers, other=numbers, jfk=numbers, their_jfk=numbers, less=st.booleans(), rows=st.integers(0, 200)
)
def test_never_both_at_once_and_never_by_what_is_unknown(own, other, jfk, their_jfk, less, rows) -> None:
    rule = replace(SLICED, less_is_better=less, min_rows=100)
    first, second = score("V1", own, rows, jfk), score("V2", other, rows, their_jfk)
    won = judge(rule, first, second).outcome, judge(rule, second, first).outcome
    assert won != (BETTER, BETTER)
    if rows < 100 or None in (own, other, jfk, their_jfk):
        assert won == (NOT_BETTER, NOT_BETTER)


def test_the_report_is_a_table_that_no_name_breaks() -> None:
    rule = ContestRule("auc", max_slice_loss={"a | b\nc": 0.0})
    challenger = Score("V2", 7, {"auc": 0.7, "f1": None}, {"a | b\nc": 0.5})
    champion = Score("V1", 7, {"auc": 0.6, "f1": 0.25}, {"a | b\nc": 0.5})
    text = report("DB.S.M", rule, challenger, champion, judge(rule, challenger, champion))
    assert text.startswith("### DB.S.M: V2 is to be the champion\n\n- The auc is 0.7 against")
    assert (
        "| | challenger V2 | champion V1 |\n|---|---:|---:|\n| **auc** | 0.7 | 0.6 |\n| f1 |  | 0.25 |\n"
        in text
    )
    assert "| auc on a \\| b c | 0.5 | 0.5 |" in text
    alone = report("M", rule, challenger, None, judge(rule, challenger, None))
    assert "V2 is to be the first champion" in alone
    assert "| **auc** | 0.7 |  |" in alone
