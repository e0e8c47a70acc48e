"""What a scored table holds, in numbers small enough for a metrics file: counts, errors, shares, histograms.

Computed by polars over the parts as a stream, reading the columns of numbers alone; only the scores themselves, four
bytes a segment, are held at once, for their quantiles. Documents without a score are counted by reason and left out of
every other figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BINS = 24
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
    scores = table.filter(pl.col("error").is_null())
    segments = _collected(scores.select(pl.col("scores").explode())).to_series().drop_nulls().to_numpy()
    means = _collected(scores.select("avg_score")).to_series().to_numpy()
    return {
        "documents": totals["documents"],
        "characters": totals["characters"] or 0,
        "segments": len(segments),
        "without_score": {
            "share": totals["failed"] / max(totals["documents"], 1),
            "by_reason": dict(zip(errors["reason"], errors["count"], strict=True)),
        },
        "without_score_examples": dict(zip(errors["reason"], errors["examples"].to_list(), strict=True)),
        "share_segments_above_0": float((segments > 0).mean()) if len(segments) else 0.0,
        "segment_score": _spread(segments),
        "document_score": _spread(means),
        "found": dict(zip(kinds["kind"], kinds["count"], strict=True)),
    }


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def _spread(values: np.ndarray) -> dict[str, Any]:
    if not len(values):
        return {"mean": None, "quantiles": {}, "histogram": {"edges": [], "counts": []}}
    top = float(values.max()) or 1.0
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, top))
    quantiles = np.quantile(values, LEVELS)
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "share_zero": float((values == 0).mean()),
        "quantiles": {str(level): float(value) for level, value in zip(LEVELS, quantiles, strict=True)},
        "histogram": {"edges": [round(float(edge), 8) for edge in edges], "counts": counts.tolist()},
    }
