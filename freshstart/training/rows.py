"""Batches as a pure function of (data, seed, step).

The stream is cut into rows of ``context`` positions; a row's targets are its tokens shifted by one, so that rows
overlap in one token and every token but the first is a target once an epoch. Each epoch visits the rows in a
permutation drawn from the digest of the data, the seed and the number of the epoch. Rows cross documents. At most
``context`` tokens at the end of the stream are never seen. A batch may straddle two epochs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from freshstart.errors import InputError
from freshstart.tokens.store import Stream


@dataclass(frozen=True)
class Rows:
    """The rows of a stream in the order of a run."""

    stream: Stream
    context: int
    digest: str
    seed: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(
                f"the stream holds {len(self.stream.tokens):,} tokens, fewer than one row of {self.context} and its "
                "last target: enlarge the corpus or shorten train.context"
            )

    @property
    def count(self) -> int:
        return (len(self.stream.tokens) - 1) // self.context

    def chosen(self, step: int, batch_size: int) -> np.ndarray:
        """The rows of one step: int64 (batch_size,)."""
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        rows = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(positions // self.count):
            mine = positions // self.count == epoch
            rows[mine] = _permutation(self.digest, self.seed, int(epoch), self.count)[positions[mine] % self.count]
        return rows

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (rows, context + 1), int64, and the scores of the targets (rows, context), float32."""
        begins = [int(row) * self.context for row in rows]
        tokens = np.stack([self.stream.tokens[begin : begin + self.context + 1] for begin in begins]).astype(np.int64)
        scores = np.stack([self.stream.scores(begin + 1, begin + 1 + self.context) for begin in begins])
        return tokens, scores

    def documents(self, steps: int, batch_size: int) -> int:
        """How many distinct documents have a target in the first ``steps`` steps."""
        drawn = steps * batch_size
        seen = np.zeros(self.count, dtype=bool)
        for epoch in range(min(-(-drawn // self.count), 2)):
            rows = _permutation(self.digest, self.seed, epoch, self.count)
            seen[rows[: drawn - epoch * self.count]] = True
        ends = np.asarray(self.stream.document_ends)
        begins = np.concatenate([[0], ends[:-1]])
        before = np.concatenate([[0], np.cumsum(seen)])
        first = np.maximum(begins - 1, 0) // self.context
        last = np.minimum((ends - 2) // self.context, self.count - 1)
        return int((before[np.maximum(last + 1, 0)] - before[np.minimum(first, self.count)] > 0).sum())


@lru_cache(maxsize=2)
def _permutation(digest: str, seed: int, epoch: int, count: int) -> np.ndarray:
    key = hashlib.blake2b(f"{digest}:{seed}:{epoch}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).permutation(count)
