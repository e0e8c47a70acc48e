"""Means with their intervals, expected maxima, pooled rates, rank agreement: what is said of a set of scored texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from freshstart.scorers import Finding

LEVELS = (0.025, 0.975)
DRAW_BYTES = 1 << 26
AGREEMENT_TEXTS = 2048  # at most so many texts are ranked, the first ones
AGREEMENT_DRAWS = 500

Estimate = dict[str, Any]  # mean, ci_low, ci_high, n: a mean with its 95% interval, null where there is too little
UNKNOWN = dict.fromkeys(("mean", "ci_low", "ci_high"))


def interval(values: np.ndarray, draws: int, seed: int, sizes: np.ndarray | None = None) -> tuple[float, float]:
    """95% interval of the sum of the values over that of the sizes (default: their mean), over texts of one model.

    The percentile bootstrap (Efron 1979). Where every value is 0 it would be [0, 0]: the upper bound is then that of a
    Poisson rate of which none was seen (Garwood 1936), -ln 0.025 over the sum of the sizes.
    """
    sizes = np.ones(len(values)) if sizes is None else sizes
    if len(values) < 2 or not sizes.sum():
        return (float("nan"), float("nan"))
    if not values.any():
        return 0.0, float(-np.log(LEVELS[0]) / sizes.sum())
    rng = np.random.Generator(np.random.Philox(key=seed))
    at_once = max(DRAW_BYTES // (8 * len(values)), 1)
    means = []
    for begin in range(0, draws, at_once):
        chosen = rng.integers(0, len(values), (min(at_once, draws - begin), len(values)))
        means.append(values[chosen].sum(1) / np.maximum(sizes[chosen].sum(1), 1))
    low, high = np.quantile(np.concatenate(means), LEVELS)
    return float(low), float(high)


def estimate(values: Iterable[float | None], draws: int, seed: int) -> Estimate:
    """The mean of the values that are known, with its interval."""
    return rate([value for value in values if value is not None], None, draws, seed)


def rate(values: Sequence[float], sizes: Sequence[float] | None, draws: int, seed: int) -> Estimate:
    """The sum of the values over the sum of the sizes (of 1 each by default), with its interval."""
    numbers = np.array(values, dtype=np.float64)
    whole = np.ones(len(numbers)) if sizes is None else np.array(sizes, dtype=np.float64)
    low, high = (None if np.isnan(bound) else bound for bound in interval(numbers, draws, seed, whole))
    mean = float(numbers.sum() / whole.sum()) if whole.sum() else None
    return {"mean": mean, "ci_low": low, "ci_high": high, "n": len(numbers)}


def share(hits: int, n: int) -> Estimate:
    """``hits`` of ``n`` with Wilson's 95% interval (1927)."""
    from scipy.stats import binomtest

    if not n:
        return {**UNKNOWN, "n": 0}
    bounds = binomtest(hits, n).proportion_ci(method="wilson")
    return {"mean": hits / n, "ci_low": float(bounds.low), "ci_high": float(bounds.high), "n": n}


def agreement(x: Sequence[float], y: Sequence[float], draws: int, seed: int) -> Estimate:
    """Kendall's tau-b (1945) of two scores of the same texts; all null where one of them never varies.

    The interval is the bootstrap's, of AGREEMENT_DRAWS at most; draws in which one side happens not to vary are left
    out of it.
    """
    from scipy.stats import kendalltau

    first, second = (np.asarray(values, dtype=np.float64)[:AGREEMENT_TEXTS] for values in (x, y))
    n = len(first)
    if n < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return {**UNKNOWN, "n": n}
    rng = np.random.Generator(np.random.Philox(key=seed))
    chosen = [rng.integers(0, n, n) for _ in range(min(draws, AGREEMENT_DRAWS))]
    taus = [float(kendalltau(first[draw], second[draw]).statistic) for draw in chosen]
    low, high = np.nanquantile(taus, LEVELS)
    mean = float(kendalltau(first, second).statistic)
    return {"mean": mean, "ci_low": float(low), "ci_high": float(high), "n": n}


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


def summary(
    scores: Sequence[float],
    lengths: Sequence[int],
    findings: Sequence[Sequence[Finding]],
    over: float,
) -> dict[str, Any]:
    """Scores of a set of texts: their mean (``scored``), the pooled rate, tails, and by kind.

    ``lengths`` are characters. ``pooled`` weighs each text by its length: findings a character for scorers that count.
    ``by_kind`` gives findings a character of all texts together. Without a text there is nothing but nulls.
    """
    values, sizes = np.array(scores, dtype=np.float64), np.array(lengths, dtype=np.float64)
    kinds = Counter(finding.kind for group in findings for finding in group)
    some = len(values) > 0
    return {
        "scored": float(values.mean()) if some else None,
        "pooled": float(np.average(values, weights=sizes)) if some else None,
        "expected_max_25": expected_maximum(values, 25) if some else None,
        "share_over": float((values > over).mean()) if some else None,
        "by_kind": {kind: count / float(sizes.sum()) for kind, count in sorted(kinds.items())},
    }
