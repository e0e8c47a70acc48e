"""How varied samples are, among themselves and within.

Words are runs of letters, digits and underscores, and single other signs. ``distinct_n``: distinct n-grams over all
n-grams within a sample, mean over samples. ``unigram_entropy``: bits of the pooled distribution of words.
``self_bleu_5``: BLEU-5 of each sample against all others (Zhu et al. 2018), smoothing method 1, mean; exact, in time
linear in the words, since the clip count of an n-gram among all others is the largest count, or the second largest for
the sample that holds the largest. ``repetition``: share of a sample's 4-grams that stood in it before.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

VARIED, TABLE = "diversity", "Diversity"
PAPER = (
    "words between white space; entropy in nats; Self-BLEU of characters (the code passes strings) against "
    "the first 200 samples; no repetition"
)
METRICS = (
    Metric(f"{VARIED}.distinct_1", "distinct words, by sample", "", "higher", TABLE, "distinct-1", "distinct_1", 2),
    Metric(f"{VARIED}.distinct_2", "distinct pairs of words", "", "higher", TABLE, "distinct-2", "distinct_2", 2),
    Metric(
        f"{VARIED}.unigram_entropy", "entropy of pooled words", "bits", "higher", TABLE, "entropy", "unigram_entropy", 2
    ),
    Metric(f"{VARIED}.self_bleu_5", "a sample against others", "", "lower", TABLE, "self-BLEU-5", "self_bleu_5", 2),
    Metric(f"{VARIED}.repetition", "4-grams a sample repeats", "", "lower", TABLE, "repetition", "repetition", 2),
)
WORD = re.compile(r"\w+|[^\w\s]")
SMOOTHING = 0.1  # nltk's SmoothingFunction().method1
Grams = Counter[tuple[str, ...]]


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    """Of the samples under the model's own control."""
    return {"diversity": diversity([sample.text for sample in context.own_samples(subject)])}


def diversity(texts: Sequence[str]) -> dict[str, float]:
    words = [WORD.findall(text) for text in texts]
    pooled = Counter(word for sample in words for word in sample)
    shares = np.array(list(pooled.values()), dtype=np.float64) / max(sum(pooled.values()), 1)
    return {
        "distinct_1": _mean(_distinct(sample, 1) for sample in words),
        "distinct_2": _mean(_distinct(sample, 2) for sample in words),
        "unigram_entropy": float(-(shares * np.log2(shares)).sum()) + 0.0,
        "self_bleu_5": self_bleu(words, 5),
        "repetition": _mean(1 - share if (share := _distinct(sample, 4)) is not None else None for sample in words),
    }


def self_bleu(samples: Sequence[Sequence[str]], order: int) -> float:
    """Mean BLEU of each sample against all others; 0 where there are fewer than two."""
    if len(samples) < 2:
        return 0.0
    counts = [[_grams(sample, n) for sample in samples] for n in range(1, order + 1)]
    most = [_two_largest(level) for level in counts]
    lengths = sorted(len(sample) for sample in samples)
    return _mean(
        _bleu([level[i] for level in counts], most, i, len(sample), _closest(lengths, len(sample)))
        for i, sample in enumerate(samples)
    )


def _bleu(own: list[Grams], most: list[dict], index: int, length: int, reference: int) -> float:
    if not length:
        return 0.0
    logs = []
    for grams, largest in zip(own, most, strict=True):
        total = max(sum(grams.values()), 1)
        matched = 0
        for gram, count in grams.items():
            owner, first, second = largest[gram]
            matched += min(count, second if owner == index else first)
        if matched == 0 and not logs:
            return 0.0  # no word in common
        logs.append(math.log((matched or SMOOTHING) / total))
    brevity = 1.0 if length > reference else math.exp(1 - reference / length)
    return brevity * math.exp(sum(logs) / len(logs))


def _two_largest(level: list[Grams]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """For each n-gram: who holds it most often, how often, and the most among all others."""
    largest: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for index, grams in enumerate(level):
        for gram, count in grams.items():
            owner, first, second = largest.get(gram, (-1, 0, 0))
            largest[gram] = (index, count, first) if count > first else (owner, first, max(second, count))
    return largest


def _closest(lengths: list[int], own: int) -> int:
    """The length of another sample that is closest to ``own``, the shorter one of two."""
    place = bisect_left(lengths, own)
    others = lengths[:place] + lengths[place + 1 :]
    return min(others[max(place - 1, 0) : place + 1], key=lambda other: (abs(other - own), other))


def _grams(words: Sequence[str], n: int) -> Grams:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _distinct(words: Sequence[str], n: int) -> float | None:
    total = len(words) - n + 1
    return len(_grams(words, n)) / total if total > 0 else None


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
