"""What a scored table holds, in numbers small enough for a metrics file: counts, errors, shares, histograms.

Computed over the parts as a stream, reading the columns of numbers alone, so that memory does not grow with the corpus.
Quantiles are exact: a float32 that is not negative is ordered as its bits are, so one pass counts the upper halves of
all scores, and a second one the lower halves of those among which a quantile lies. Documents without a score are
counted by reason and left out of every other figure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshstart import files

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BINS = 24
HALF = 1 << 16
EXAMPLES = 5


def report(parts: Sequence[Path]) -> dict[str, Any]:
    """Counts, error reasons with examples, and the spread of segment and document scores over all parts."""
    documents = characters = 0
    errors, kinds, examples = Counter[str](), Counter[str](), defaultdict[str, list[str]](list)
    for path in parts:
        table = files.read_table(path, "score", ["doc_id", "segment_ends", "reasons", "error"])
        documents += len(table)
        for ends, reasons in zip(table["segment_ends"].chunks, table["reasons"].chunks, strict=True):
            offsets = ends.offsets.to_numpy()
            characters += int(ends.values.to_numpy()[offsets[1:][np.diff(offsets) > 0] - 1].sum(dtype=np.int64))
            kinds.update(
                {row["values"]: row["counts"] for row in reasons.flatten().field("kind").value_counts().to_pylist()}
            )
        for row in table.filter(pc.is_valid(table["error"])).select(["doc_id", "error"]).to_pylist():
            kind = row["error"].split(":")[0]
            errors[kind] += 1
            examples[kind] = sorted([*examples[kind], row["doc_id"]])[:EXAMPLES]
    segments, segment_score = _spread(parts, "scores")
    _, document_score = _spread(parts, "avg_score")
    return {
        "documents": documents,
        "characters": characters,
        "segments": segments,
        "without_score": {
            "share": errors.total() / max(documents, 1),
            "by_reason": _ordered(errors),
        },
        "without_score_examples": {kind: examples[kind] for kind in _ordered(errors)},
        "share_segments_above_0": 1 - segment_score["share_zero"] if segments else 0.0,
        "segment_score": segment_score,
        "document_score": document_score,
        "found": _ordered(kinds),
    }


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, equal ones by their names."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _numbers(parts: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    """The numbers in a column of numbers, or of lists of them, part by part and without the nulls; float32."""
    for path in parts:
        column = files.read_table(path, "score", [name])[name]
        values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        yield values.drop_null().to_numpy().astype(np.float32) + 0.0  # no minus zero


def _spread(parts: Sequence[Path], name: str) -> tuple[int, dict[str, Any]]:
    """The count of a column's numbers, which are at least 0, and their mean, share of zeros, quantiles (linear between
    neighbours) and histogram."""
    upper = np.zeros(HALF, np.int64)
    total, zeros, top = 0.0, 0, 0.0
    for values in _numbers(parts, name):
        if len(values):
            upper += np.bincount(values.view(np.uint32) >> 16, minlength=HALF)
            total += float(values.sum(dtype=np.float64))
            zeros += int((values == 0).sum())
            top = max(top, float(values.max()))
    count = int(upper.sum())
    if not count:
        return 0, {"mean": None, "quantiles": {}, "histogram": {"edges": [], "counts": []}}
    places = np.array(LEVELS) * (count - 1)
    ranks = np.unique(np.concatenate([np.floor(places), np.ceil(places)]).astype(np.int64))
    below = np.cumsum(upper)
    among = np.searchsorted(below, ranks, side="right")  # the upper half of the value at each rank
    lower = {half: np.zeros(HALF, np.int64) for half in np.unique(among).tolist()}
    edges = np.linspace(0.0, top or 1.0, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for values in _numbers(parts, name):
        counts += np.histogram(values, bins=BINS, range=(0.0, top or 1.0))[0]
        bits = values.view(np.uint32)
        for half, tally in lower.items():
            tally += np.bincount(bits[bits >> 16 == half] & (HALF - 1), minlength=HALF)
    bits_at = [
        half << 16 | int(np.searchsorted(np.cumsum(lower[half]), rank - (below[half] - upper[half]), side="right"))
        for rank, half in zip(ranks, among.tolist(), strict=True)
    ]
    quantiles = np.interp(places, ranks, np.array(bits_at, np.uint32).view(np.float32))
    return count, {
        "mean": total / count,
        "share_zero": zeros / count,
        "quantiles": dict(zip(map(str, LEVELS), quantiles.tolist(), strict=True)),
        "histogram": {"edges": [round(float(edge), 8) for edge in edges], "counts": counts.tolist()},
    }
