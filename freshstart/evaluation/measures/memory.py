"""Has the model memorised? Runs of tokens that samples share with the training text.

For each length of a ladder: which samples hold a run of that many tokens that also stands in the training stream. A
sample that does not is not looked at for longer runs. The longest shared run of all is then found exactly by
bisection. Runs are compared by a rolling hash, polynomial modulo 2^64, computed for the whole stream at once. Cost:
about 0.2 s a length and million training tokens. The odds of a chance match are about 1e-8 at a thousand samples and
five million tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

BASE = 0x9E3779B97F4A7C15
LADDER = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
REPORTED = (8, 16, 32, 64)
COLUMN = "shared_run"  # of the samples: the longest length of the ladder that one shares with training text
RUNS, TABLE = "memory", "Memory"
METRICS = (
    Metric(f"{RUNS}.longest_match", "longest run also in train", "tokens", "", TABLE, "longest", "longest_match"),
    Metric(f"{RUNS}.share_matching_8", "samples that share 8 tokens with train", "share"),
    Metric(
        f"{RUNS}.share_matching_16", "samples with 16 of train", "share", "", TABLE, "share 16", "share_matching_16"
    ),
    Metric(f"{RUNS}.share_matching_32", "samples that share 32 tokens with train", "share"),
    Metric(f"{RUNS}.share_matching_64", "samples that share 64 tokens with train", "share"),
    Metric(f"{RUNS}.train_tokens_searched", "training tokens that were searched", "tokens"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    """Of all samples, as they were drawn; those of a model with another tokenizer as the task's tokenizer has them."""
    samples = [sample for part in context.samples(subject).values() for sample in part]
    rows: list[Sequence[int]] = [sample.tokens for sample in samples]
    if not subject.tokenizer.same_text(context.tokenizer):
        rows = [ids.tolist() for ids, _ in context.tokenizer.encode([sample.text for sample in samples])]
    metrics, context.columns[COLUMN] = memory(rows, context.train_tokens, context.settings.memory_tokens)
    return {"memory": metrics}


def memory(samples: Sequence[Sequence[int]], stream: np.ndarray, most: int) -> tuple[dict[str, Any], np.ndarray]:
    """Metrics, and for each sample the longest length of the ladder that it shares with ``stream[:most]`` (or 0)."""
    rows = [np.asarray(row, dtype=np.uint64) for row in samples]
    train = np.asarray(stream[:most]).astype(np.uint64)
    reached = np.zeros(len(rows), dtype=np.int64)
    alive = np.arange(len(rows))
    low, high = 0, max((len(row) for row in rows), default=0)
    for length in LADDER:
        sharing = alive[_sharing([rows[i] for i in alive], train, length)]
        if not len(sharing):
            high = min(high, length - 1)
            break
        alive, low = sharing, length
        reached[alive] = length
    while low < high:  # the longest run of all, among the samples that share the most
        middle = (low + high + 1) // 2
        sharing = alive[_sharing([rows[i] for i in alive], train, middle)]
        alive, low, high = (sharing, middle, high) if len(sharing) else (alive, low, middle - 1)
    metrics: dict[str, Any] = {"longest_match": low, "train_tokens_searched": len(train)}
    for length in REPORTED:
        metrics[f"share_matching_{length}"] = float((reached >= length).mean()) if len(rows) else 0.0
    return metrics, reached


def _sharing(rows: Sequence[np.ndarray], train: np.ndarray, length: int) -> np.ndarray:
    """Which rows hold a run of ``length`` tokens of ``train``: a mask."""
    hashes = [_hashes(row, length) for row in rows]
    owner = np.repeat(np.arange(len(rows)), [len(run_hashes) for run_hashes in hashes])
    wanted = np.concatenate([*hashes, np.zeros(0, np.uint64)])
    known = np.sort(_hashes(train, length))
    if not len(known):
        return np.zeros(len(rows), dtype=bool)
    found = known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] == wanted
    return np.bincount(owner[found], minlength=len(rows)) > 0


def _hashes(tokens: np.ndarray, length: int) -> np.ndarray:
    """The hash of each run of ``length`` tokens: sum of (token + 1) BASE^(length - 1 - i), by doubling."""
    if length > len(tokens):
        return np.zeros(0, dtype=np.uint64)
    with np.errstate(over="ignore"):
        power = np.uint64(BASE)
        block, size = tokens + np.uint64(1), 1  # hashes of runs of ``size``
        result, done = None, 0
        while True:
            if length & size:
                if result is None:
                    result, done = block, size
                else:
                    count = len(tokens) - done - size + 1
                    result = result[:count] * power + block[done : done + count]
                    done += size
            if size * 2 > length:
                return result[: len(tokens) - length + 1]
            block = block[:-size] * power + block[size:]
            power *= power
            size *= 2
