"""What a scored table holds, in numbers small enough for a metrics file: counts, errors, shares, histograms.

Computed over the parts as a stream, reading the columns of numbers alone, so that memory does not grow with the corpus.
Quantiles are exact: a float32 that is not negative is ordered as its bits are, so one pass counts the upper halves of
all scores, and a second one the lower halves of those among which a quantile lies. Documents without a score are
counted by reason and left out of every other figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from freshstart import files

if TYPE_CHECKING:
    import polars as pl

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BINS = 24
HALF = 1 << 16
EXAMPLES = 5


def report(parts: Sequence[Path]) -> dict[str, Any]:
    """Counts, error reasons with examples, and the spread of segment and document scores over all parts."""
    import polars as pl

    table = pl.scan_parquet(list(parts))
    reason = pl.col("error").str.split(":").list.first()
    totals = _collected(
        table.select(
            documents=pl.len(),
            characters=pl.col("segment_ends").list.last().sum(),
            failed=pl.col("error").is_not_null().sum(),
        )
    ).row(0, named=True)
    errors = _collected(
        table.filter(pl.col("error").is_not_null())
        .group_by(reason.alias("reason"))
        .agg(count=pl.len(), examples=pl.col("doc_id").sort().head(EXAMPLES))
        .sort(["count", "reason"], descending=[True, False])
    )
    kinds = _collected(
        table.select(kind=pl.col("reasons").explode(empty_as_null=True).struct.field("kind"))
        .drop_nulls()
        .group_by("kind")
        .agg(count=pl.len())
        .sort(["count", "kind"], descending=[True, False])
    )
    segments = _spread(lambda: (_flat(column) for column in _columns(parts, "scores")))
    documents = _spread(lambda: (_flat(column) for column in _columns(parts, "avg_score")))
    return {
        "documents": totals["documents"],
        "characters": totals["characters"] or 0,
        "segments": segments["count"],
        "without_score": {
            "share": totals["failed"] / max(totals["documents"], 1),
            "by_reason": dict(zip(errors["reason"], errors["count"], strict=True)),
        },
        "without_score_examples": dict(zip(errors["reason"], errors["examples"].to_list(), strict=True)),
        "share_segments_above_0": 1 - segments["share_zero"] if segments["count"] else 0.0,
        "segment_score": {key: value for key, value in segments.items() if key != "count"},
        "document_score": {key: value for key, value in documents.items() if key != "count"},
        "found": dict(zip(kinds["kind"], kinds["count"], strict=True)),
    }


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def _columns(parts: Sequence[Path], name: str) -> Iterator[pa.ChunkedArray]:
    for path in parts:
        yield files.read_table(path, "score", [name])[name]


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """The numbers of a column of numbers, or of lists of them, without the nulls; float32."""
    import pyarrow.compute as pc

    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return values.drop_null().combine_chunks().to_numpy(zero_copy_only=False).astype(np.float32) + 0.0  # no minus zero


def _spread(stream: Callable[[], Iterator[np.ndarray]]) -> dict[str, Any]:
    """Count, mean, share of zeros, quantiles (linear between neighbours) and histogram of numbers of at least 0."""
    upper = np.zeros(HALF, np.int64)
    total, zeros, top = 0.0, 0, 0.0
    for values in stream():
        if len(values):
            upper += np.bincount(values.view(np.uint32) >> 16, minlength=HALF)
            total += float(values.sum(dtype=np.float64))
            zeros += int((values == 0).sum())
            top = max(top, float(values.max()))
    count = int(upper.sum())
    if not count:
        return {"count": 0, "mean": None, "quantiles": {}, "histogram": {"edges": [], "counts": []}}
    places = np.array(LEVELS) * (count - 1)
    ranks = np.unique(np.concatenate([np.floor(places), np.ceil(places)]).astype(np.int64))
    below = np.cumsum(upper)
    among = np.searchsorted(below, ranks, side="right")  # the upper half of the value at each rank
    lower = {half: np.zeros(HALF, np.int64) for half in np.unique(among).tolist()}
    edges = np.linspace(0.0, top or 1.0, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for values in stream():
        counts += np.histogram(values, bins=BINS, range=(0.0, top or 1.0))[0]
        bits = values.view(np.uint32)
        for half, found in lower.items():
            found += np.bincount(bits[bits >> 16 == half] & (HALF - 1), minlength=HALF)
    at_rank = {}
    for rank, half in zip(ranks.tolist(), among.tolist(), strict=True):
        before = int(below[half - 1]) if half else 0
        low = int(np.searchsorted(np.cumsum(lower[half]), rank - before, side="right"))
        at_rank[rank] = float(np.array([(half << 16) | low], np.uint32).view(np.float32)[0])
    quantiles = {
        str(level): at_rank[int(place)] + (place - int(place)) * (at_rank[int(np.ceil(place))] - at_rank[int(place)])
        for level, place in zip(LEVELS, places.tolist(), strict=True)
    }
    return {
        "count": count,
        "mean": total / count,
        "share_zero": zeros / count,
        "quantiles": quantiles,
        "histogram": {"edges": [round(float(edge), 8) for edge in edges], "counts": counts.tolist()},
    }
