"""The samples table: every sample with its segments, scores and reasons, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from freshstart import files
from freshstart.evaluation.samples import Sample
from freshstart.scoring.schema import REASON

SCHEMA = pa.schema(
    [
        ("control", pa.string()),
        ("text", pa.large_string()),
        ("ended", pa.bool_()),
        ("tokens", pa.int32()),
        ("score", pa.float32()),
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("reasons", pa.list_(REASON)),
        ("unreadable", pa.string()),
        ("error", pa.string()),
        ("shared_run", pa.int32()),
    ]
)


def write(path: Path, samples: Sequence[Sample], shared_runs: np.ndarray) -> None:
    """One row a sample, in the order drawn; ``shared_run`` is from ``memory``."""
    rows = [
        {
            "control": one.control,
            "text": one.text,
            "ended": one.ended,
            "tokens": len(one.tokens),
            "score": one.score,
            "segment_ends": one.segment_ends,
            "scores": list(one.segments.scores) if one.segments.error is None else None,
            "reasons": [{"begin": f.begin, "end": f.end, "kind": f.kind} for f in one.whole.findings],
            "unreadable": one.whole.unreadable,
            "error": one.whole.error,
            "shared_run": int(run),
        }
        for one, run in zip(samples, shared_runs, strict=True)
    ]
    files.write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA))
