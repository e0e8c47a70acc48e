"""The scored table: one corpus part in, one scored part out, with the same rows in the same order.

To the corpus' columns it adds ``segment_ends`` (character offsets), ``scores`` (one a segment; null where scoring
failed), ``avg_score`` (their plain mean, the paper's document score), ``reasons`` (spans of what was found) and
``error``. The schema's metadata carries the fingerprint of everything that the scores depend on, so that equal inputs
make equal bytes whatever made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from freshstart import files
from freshstart.corpora.build import SCHEMA as CORPUS
from freshstart.scorers import Scored, Scorer
from freshstart.scoring.segments import SEGMENTERS

REASON = pa.struct([("begin", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
SCHEMA = pa.schema(
    [
        *CORPUS,
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("avg_score", pa.float32()),
        ("reasons", pa.list_(REASON)),
        ("error", pa.string()),
    ]
)
FINGERPRINT = b"freshstart"
BATCH_CHARACTERS = 500_000


def score_part(source: Path, target: Path, scorer: Scorer, record: dict[str, Any], fingerprint: dict[str, Any]) -> int:
    """Score one corpus part into ``target``; gives the number of documents without a score."""
    part = files.read_table(source, "corpus", CORPUS.names)
    texts = part["text"].to_pylist()
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names[len(CORPUS.names) :]}
    cut = SEGMENTERS[record["segments"]]
    for batch in _batches(texts):
        documents = [(text, cut(text)) for text in batch]
        for (_, ends), scored in zip(documents, scorer.score(documents), strict=True):
            _append(columns, ends, scored)
    metadata = {FINGERPRINT: json.dumps(fingerprint, sort_keys=True).encode()}
    arrays = [part[name].combine_chunks().cast(CORPUS.field(name).type) for name in CORPUS.names]
    arrays += [pa.array(columns[name], type=SCHEMA.field(name).type) for name in columns]
    files.write_table(target, pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)))
    return sum(error is not None for error in columns["error"])


def _append(columns: dict[str, list[Any]], ends: Sequence[int], scored: Scored) -> None:
    error = scored.error or scored.unreadable
    scores = None if error else np.array(scored.scores, dtype=np.float32)
    columns["segment_ends"].append(list(ends))
    columns["scores"].append(scores)
    columns["avg_score"].append(None if scores is None else float(np.mean(scores, dtype=np.float64)))
    columns["reasons"].append([{"begin": f.begin, "end": f.end, "kind": f.kind} for f in scored.findings])
    columns["error"].append(error)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
