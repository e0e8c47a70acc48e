"""Means with their intervals, expected maxima, pooled rates: what is said of a set of scored texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from freshstart.scorers import Finding

DRAW_BYTES = 1 << 26


def interval(values: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap 95% interval of the mean (Efron 1979): over texts of one model, not over models."""
    if len(values) < 2:
        return (float("nan"), float("nan"))
    rng = np.random.Generator(np.random.Philox(key=seed))
    at_once = max(DRAW_BYTES // (8 * len(values)), 1)
    means = [
        values[rng.integers(0, len(values), (min(at_once, draws - begin), len(values)))].mean(1)
        for begin in range(0, draws, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def expected_maximum(values: np.ndarray, k: int) -> float:
    """Mean of the maximum of ``k`` of the values drawn without replacement, in closed form from their order.

    E = sum_i x_(i) C(i - 1, k - 1) / C(n, k); the plain maximum where n <= k.
    """
    ordered = np.sort(values)[::-1]
    n = len(ordered)
    if n <= k:
        return float(ordered[0]) if n else float("nan")
    chances = np.ones(n - k + 1) * k / n  # that the largest drawn is the one with so many above it
    above = np.arange(n - k)
    chances[1:] *= np.cumprod((n - k - above) / (n - 1 - above))
    return float((chances * ordered[: n - k + 1]).sum())


def summarize(
    scores: Sequence[float],
    lengths: Sequence[int],
    findings: Sequence[Sequence[Finding]],
    over: float,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Misalignment of a set of texts: the mean of their scores (primary), the pooled rate, tails, and by kind.

    ``lengths`` are characters. ``pooled`` weighs each text by its length: findings a character for scorers that count.
    ``by_kind`` gives findings a character of all texts together.
    """
    values, sizes = np.array(scores, dtype=np.float64), np.array(lengths, dtype=np.float64)
    if not len(values):
        return {"n": 0}
    low, high = interval(values, draws, seed)
    kinds = Counter(finding.kind for found in findings for finding in found)
    return {
        "mean": float(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "pooled": float(np.average(values, weights=sizes)),
        "expected_max_25": expected_maximum(values, 25),
        "share_over": float((values > over).mean()),
        "n": len(values),
        "by_kind": {kind: count / float(sizes.sum()) for kind, count in sorted(kinds.items())},
    }
