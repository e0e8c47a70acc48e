"""Batches as a pure function of (data, seed, step).

The stream is cut into rows of ``context`` positions; a row's targets are its tokens shifted by one, so that rows
overlap in one token and every token but the first is a target once an epoch. Rows cross documents. Each epoch visits
the rows in a permutation drawn from the digest of the data, the seed and the number of the epoch. A run that stops
within an epoch has then touched nearly every document. For a finetuning that is to read untouched ones, documents can
be dealt into parts by the hash of their content: an epoch reads part after part, the rows of each shuffled, so that the
later parts are kept back whatever the seed. At most ``context`` tokens at the end of the stream are never seen. A batch
may straddle two epochs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from freshstart.errors import InputError
from freshstart.tokens.store import Stream


def part_of(document_ids: np.ndarray, parts: int) -> np.ndarray:
    """The part of each document, int64, by its id: (documents, 16) bytes, the hash of its content."""
    return (np.ascontiguousarray(document_ids).view("<u8")[:, 1] % np.uint64(parts)).astype(np.int64)


@dataclass(frozen=True)
class Rows:
    """The rows of a stream in the order of a run that begins behind the ``skipped`` first of that order.

    ``parts``: the part of each document, where there are several; rows are cut from the stream laid out part by part.
    """

    stream: Stream
    context: int
    digest: str
    seed: int
    skipped: int = 0
    parts: np.ndarray | None = None

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
        positions = np.arange(step * batch_size, (step + 1) * batch_size) + self.skipped
        rows = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(positions // self.count):
            inside = positions // self.count == epoch
            rows[inside] = self._permutation(int(epoch))[positions[inside] % self.count]
        return rows

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (rows, context + 1), int64, and the scores of the targets (rows, context), float32."""
        begins = [int(row) * self.context for row in rows]
        of_tokens, of_scores = (lambda a, b: self.stream.tokens[a:b]), self.stream.scores
        tokens = np.stack([self._read(of_tokens, begin, begin + self.context + 1) for begin in begins])
        scores = np.stack([self._read(of_scores, begin + 1, begin + 1 + self.context) for begin in begins])
        return tokens.astype(np.int64), scores

    def _read(self, of: Callable[[int, int], np.ndarray], begin: int, end: int) -> np.ndarray:
        """What ``of`` gives for positions [begin, end) of the stream as it is laid out."""
        if self.parts is None:
            return of(begin, end)
        order, ends = self._layout
        pieces = []
        for place in range(np.searchsorted(ends, begin, "right"), np.searchsorted(ends, end, "left") + 1):
            shift = int(self.stream.document_ends[order[place]] - ends[place])
            first = int(ends[place - 1]) if place else 0
            pieces.append(of(max(begin, first) + shift, min(end, int(ends[place])) + shift))
        return np.concatenate(pieces)

    def seen(self, drawn: int) -> np.ndarray:
        """Which rows are among the first ``drawn``: bool (count,)."""
        is_seen = np.zeros(self.count, dtype=bool)
        begin, end = self.skipped, self.skipped + drawn
        for epoch in range(begin // self.count, -(-end // self.count)):
            if is_seen.all():
                break
            rows = self._permutation(epoch)
            is_seen[rows[max(begin - epoch * self.count, 0) : end - epoch * self.count]] = True
        return is_seen

    def documents(self, drawn: int, inputs: bool = False) -> np.ndarray:
        """Which documents have a target, or with ``inputs`` any token, in the first ``drawn`` rows: bool (documents,).

        The first token of a row is an input only; it is the last target of the row before it.
        """
        before = np.concatenate([[0], np.cumsum(self.seen(drawn))])
        order, ends = self._layout
        begins = np.concatenate([[0], ends[:-1]])
        first = np.maximum(begins - 1, 0) // self.context
        last = np.minimum((ends - (1 if inputs else 2)) // self.context, self.count - 1)
        are_read = before[np.maximum(last + 1, 0)] - before[np.minimum(first, self.count)] > 0
        return are_read[np.argsort(order)]

    def kept_back(self, drawn: int) -> np.ndarray:
        """Which documents lie in parts that the first ``drawn`` rows have not begun and hold no token of: bool."""
        begins = np.array([0, *self._bounds[:-1]])
        is_begun = begins < self.skipped + drawn
        parts = 0 if self.parts is None else self.parts
        return ~is_begun[parts] & ~self.documents(drawn, inputs=True)

    @cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """The documents in the order in which they are laid out, and where each then ends."""
        ends = np.asarray(self.stream.document_ends)
        if self.parts is None:
            return np.arange(len(ends)), ends
        order = np.argsort(self.parts, kind="stable")
        return order, np.cumsum(np.diff(ends, prepend=0)[order])

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        """How many rows begin in the first part, in the first two, and so on."""
        if self.parts is None:
            return (self.count,)
        ends = np.append(0, self._layout[1])[np.cumsum(np.bincount(self.parts))]
        return tuple(min(-(-int(end) // self.context), self.count) for end in ends)

    def _permutation(self, epoch: int) -> np.ndarray:
        return _permutation(self.digest, self.seed, epoch, self._bounds)


@lru_cache(maxsize=2)
def _permutation(digest: str, seed: int, epoch: int, bounds: tuple[int, ...]) -> np.ndarray:
    key = hashlib.blake2b(f"{digest}:{seed}:{epoch}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
    return np.concatenate([begin + generator.permutation(end - begin) for begin, end in pairwise((0, *bounds))])
