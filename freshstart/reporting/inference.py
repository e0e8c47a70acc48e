"""Which differences hold: Student's t over seeds, paired by seed, with one error rate for the whole page.

The unit is a run of training, since runs of one objective differ by several times what sampling error says (on the
quick run five times). The mean over samples of each run carries both sources. Two series are compared by the mean over
seeds of their differences, seed by seed (runs of a seed share their initialisation, their data and the random numbers
of their samples), with Student's interval on n - 1 degrees of freedom and a two-sided p. All p of a page are adjusted
together (Holm 1979), so that at most one page in twenty prints a difference where there is none. Below ``LEAST_SEEDS``
nothing is compared.

A bootstrap over seeds is not used: with three to five seeds its 95% intervals hold the truth in 75 to 84% of cases
(docs/log.md), since a resample of few runs spreads less than the runs do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

LEAST_SEEDS = 3
LEVEL = 0.05
MOST_SEEDS = 100  # more are no advice


@dataclass(frozen=True)
class Difference:
    """The first side less the second, over ``seeds``; bounds and p are None below ``LEAST_SEEDS``.

    ``p`` is that of this comparison alone, ``adjusted`` that of the page. ``needed`` is how many seeds a difference of
    this size and spread takes to hold on a page of as many comparisons; None where it is more than ``MOST_SEEDS``.
    """

    value: float
    seeds: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None
    needed: int | None = None

    @property
    def verdict(self) -> str:
        """``below``, ``above``, ``level`` (not told apart), or ``few seeds``."""
        if self.adjusted is None:
            return "few seeds"
        return "level" if self.adjusted > LEVEL else "below" if self.value < 0 else "above"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95% interval of the mean; what is never below 0 has no bound below 0."""
    from scipy.stats import t

    n, mean = len(values), math.fsum(values) / len(values)
    half = float(t.ppf(1 - LEVEL / 2, n - 1)) * _error(values)
    return (max(mean - half, 0.0) if min(values) >= 0 else mean - half), mean + half


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The mean of the differences of runs of equal seeds."""
    from scipy.stats import t

    values = [a - b for a, b in zip(first, second, strict=True)]
    n, mean = len(values), math.fsum(values) / len(values)
    if n < LEAST_SEEDS:
        return Difference(mean, n)
    error = _error(values)
    half = float(t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Difference(mean, n, mean - half, mean + half, p)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with their p adjusted together (Holm 1979) and the seeds that each would need."""
    compared = sorted((plain.p, index) for index, plain in enumerate(differences) if plain.p is not None)
    adjusted, largest = list(differences), 0.0
    for place, (p, index) in enumerate(compared):
        largest = max(largest, min((len(compared) - place) * p, 1.0))
        adjusted[index] = replace(adjusted[index], adjusted=largest, needed=_needed(adjusted[index], len(compared)))
    return adjusted


def _error(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _needed(difference: Difference, count: int) -> int | None:
    """The least number of seeds at which this difference, with this spread, has a p below the level of ``count``."""
    from scipy.stats import t

    if difference.low is None or not difference.value:
        return None
    spread = (
        (difference.value - difference.low)
        / float(t.ppf(1 - LEVEL / 2, difference.seeds - 1))
        * math.sqrt(difference.seeds)
    )
    n = np.arange(LEAST_SEEDS, MOST_SEEDS + 1)
    enough = 2 * t.sf(abs(difference.value) / spread * np.sqrt(n), n - 1) * count <= LEVEL if spread else n > 0
    return int(n[enough][0]) if enough.any() else None
