"""What the metrics of model monitors are, as formulas; every array is without missing values."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 10
SMALLEST_SHARE = 1e-4  # what an empty bin counts as


def count(values: Any) -> float:
    return float(len(values))


def mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None


def difference_of_means(values: Any, baseline: Any) -> float:
    return float(values.mean() - baseline.mean())


def population_stability_index(values: Any, baseline: Any) -> float:
    """Of numbers over the baseline's deciles, of anything else over its values."""
    if np.issubdtype(baseline.dtype, np.number):
        ordered = np.sort(baseline)  # deciles as PERCENTILE_DISC gives them: values, nothing in between
        inner = np.unique(ordered[[-(-len(ordered) * i // BINS) - 1 for i in range(1, BINS)]])
        bins = [np.searchsorted(inner, x, side="right") for x in (values, baseline)]
        size = len(inner) + 1
    else:
        known, both = np.unique(np.concatenate([values, baseline]), return_inverse=True)
        bins = [both[: len(values)], both[len(values) :]]
        size = len(known)
    found, expected = (np.maximum(np.bincount(b, minlength=size) / len(b), SMALLEST_SHARE) for b in bins)
    return float(np.sum((found - expected) * np.log(found / expected)))


def root_mean_squared_error(predicted: Any, actual: Any) -> float:
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))


def mean_absolute_error(predicted: Any, actual: Any) -> float:
    return float(np.mean(np.abs(predicted - actual)))


def accuracy(predicted: Any, actual: Any) -> float:
    return float(np.mean(predicted == actual))


def roc_auc(score: Any, actual: Any) -> float | None:
    """How often a positive has the higher score, ties counting half; None if there is one class only."""
    positive = actual == actual.max()
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not negatives:
        return None
    _, ranks, counts = np.unique(score, return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts - 1) / 2
    above = shared[ranks][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
