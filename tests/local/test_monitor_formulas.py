"""The metrics as formulas, against other people's: scikit-learn's, numpy's, and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error, roc_auc_score

from airflow_provider_snowml.local import monitor_formulas as formulas

scores = st.floats(0, 1).map(lambda x: round(x, 2))  # so that there are ties
pairs = st.lists(st.tuples(scores, st.integers(0, 1)), min_size=1, max_size=60)


@given(pairs)
def test_roc_auc(rows):
    score, actual = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = formulas.roc_auc(score, actual)
    if len(set(actual)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(actual, score), abs=1e-12)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1))
def test_errors_of_a_regression(rows):
    predicted, actual = (np.array(column) for column in zip(*rows, strict=True))
    assert formulas.root_mean_squared_error(predicted, actual) == pytest.approx(
        math.sqrt(mean_squared_error(actual, predicted))
    )
    assert formulas.mean_absolute_error(predicted, actual) == pytest.approx(
        mean_absolute_error(actual, predicted)
    )


def test_accuracy_of_numbers_and_of_texts():
    for predicted, actual in (([1.0, 0, 1], [1.0, 1, 1]), (["a", "b", "c"], ["a", "b", "a"])):
        arrays = np.array(predicted), np.array(actual)
        assert formulas.accuracy(*arrays) == accuracy_score(actual, predicted) == pytest.approx(2 / 3)


def stability_index(values: list, baseline: list, bin_of) -> float:
    """Bin by bin, as textbooks have it."""
    total = 0.0
    for name in {*map(bin_of, values), *map(bin_of, baseline)}:
        found = max(sum(bin_of(v) == name for v in values) / len(values), 1e-4)
        expected = max(sum(bin_of(v) == name for v in baseline) / len(baseline), 1e-4)
        total += (found - expected) * math.log(found / expected)
    return total


numbers = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=80)


@given(numbers, numbers)
def test_stability_of_numbers_over_the_deciles_of_the_baseline(values, baseline):
    deciles = [np.quantile(baseline, i / 10, method="inverted_cdf") for i in range(1, 10)]
    expected = stability_index(values, baseline, lambda v: sum(v >= decile for decile in deciles))
    found = formulas.population_stability_index(np.array(values), np.array(baseline))
    assert found == pytest.approx(expected, abs=1e-9)
    assert formulas.population_stability_index(np.array(values), np.array(values)) == 0


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("bcd"), min_size=1))
def test_stability_of_texts_over_their_values(values, baseline):
    found = formulas.population_stability_index(np.array(values), np.array(baseline))
    assert found == pytest.approx(stability_index(values, baseline, str), abs=1e-9)
