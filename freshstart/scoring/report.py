"""What a scored table holds, in numbers small enough for a metrics file: counts, errors, shares, histograms.

Read part by part; of a part only the columns of numbers. Segments and documents without a score are counted by reason
and left out of every other figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from freshstart import files

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BINS = 24
EXAMPLES = 5


def report(parts: Iterable[Path]) -> dict[str, Any]:
    """Counts, error reasons, quantiles and a histogram of the segments' scores over all parts."""
    errors: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    scores, averages = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    documents = characters = 0
    for path in parts:
        table = files.read_table(path, "score", ["doc_id", "scores", "avg_score", "reasons", "error", "segment_ends"])
        documents += len(table)
        characters += sum(ends[-1].as_py() for ends in table["segment_ends"] if len(ends))
        for doc_id, error in zip(table["doc_id"].to_pylist(), table["error"].to_pylist(), strict=True):
            if error is not None:
                errors[reason := error.split(":")[0]] += 1
                if len(examples.setdefault(reason, [])) < EXAMPLES:
                    examples[reason].append(doc_id)
        averages.append(table["avg_score"].drop_null().to_numpy())
        scores.append(table["scores"].drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False))
        kinds.update(table["reasons"].combine_chunks().flatten().field("kind").to_pylist())
    segments, means = np.concatenate(scores), np.concatenate(averages)
    return {
        "documents": documents,
        "characters": characters,
        "segments": len(segments),
        "without_score": {"share": sum(errors.values()) / max(documents, 1), "by_reason": dict(errors.most_common())},
        "without_score_examples": examples,
        "share_segments_above_0": float((segments > 0).mean()) if len(segments) else 0.0,
        "segment_score": _spread(segments),
        "document_score": _spread(means),
        "found": dict(kinds.most_common()),
    }


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
