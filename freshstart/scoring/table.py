"""The scored table: one corpus part in, one scored part out, with the same rows in the same order.

To the corpus' columns it adds ``segment_ends`` (character offsets), ``scores`` (one a segment; null where scoring
failed), ``avg_score`` (their plain mean, the paper's document score), ``reasons`` (spans of what was found) and
``error``. The schema's metadata carries the fingerprint of everything that the scores depend on, so that equal inputs
make equal bytes whatever made them, and whatever the cache already knew.

A corpus part may bring published scores along, with the segments that they belong to (columns ``segment_ends``,
``scores``, ``check_again``). They are taken as they are; only documents to check again are scored here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshstart import files
from freshstart.schema import CORPUS, FINGERPRINT_KEY, PUBLISHED, PUBLISHED_KEY, REASON, RESULT, RESULTS, SCORED
from freshstart.scorers import Scorer
from freshstart.scoring.cache import Cache
from freshstart.scoring.segments import SEGMENTERS

BATCH_CHARACTERS = 500_000


@dataclass(frozen=True)
class PartDone:
    """Documents without a score, documents scored anew, and rows left out (then the part is not written)."""

    without_score: int
    anew: int
    left_out: tuple[int, ...] = ()


def score_part(
    source: Path,
    target: Path,
    loaded: Callable[[], Scorer],
    segments: str,
    fingerprint: dict[str, Any],
    before: Callable[[int], bool] | None = None,
) -> PartDone:
    """Score one corpus part into ``target``.

    ``loaded`` gives the scorer, which is asked for only where a document is not in the cache. For a part that killed
    its worker, ``before`` is told of every row before it is scored, alone, and says whether to score it at all.
    """
    part = files.read_table(source, "corpus", CORPUS.names)
    ids = part["doc_id"].to_pylist()
    full = {**fingerprint, "input_sha256": files.sha256(source)}
    tables, known = [RESULT.empty_table()], set()
    if (published := (part.schema.metadata or {}).get(PUBLISHED_KEY)) is not None:
        full["published"] = json.loads(published)
        tables.append(_brought(files.read_table(source, "corpus", ["doc_id", *(name for name, _ in PUBLISHED)])))
        known.update(tables[-1]["doc_id"].to_pylist())
    cache = Cache(fingerprint)
    found = cache.find([doc_id for doc_id in ids if doc_id not in known])
    if found is not None:
        tables.append(found)
        known.update(found["doc_id"].to_pylist())
    todo = [row for row, doc_id in enumerate(ids) if doc_id not in known]
    left_out = []
    if todo:
        if before is None:
            batches: Iterable[list[int]] = _batches(todo, part["text"])
        else:
            allowed = ((row, before(row)) for row in todo)
            batches = ([row] for row, may in allowed if may or left_out.append(row))
        anew = _scored(batches, part["text"], ids, loaded(), SEGMENTERS[segments])
        cache.keep(anew)
        tables.append(anew)
    if left_out:
        return PartDone(0, len(todo) - len(left_out), tuple(left_out))
    results = pa.concat_tables(tables)
    place = {doc_id: row for row, doc_id in enumerate(results["doc_id"].to_pylist())}
    results = results.take([place[doc_id] for doc_id in ids]).combine_chunks()
    columns = {**{name: part[name] for name in CORPUS.names}, **{name: results[name] for name in RESULTS}}
    arrays = [_flat(columns[field.name], field.type) for field in SCORED]
    metadata = {FINGERPRINT_KEY: json.dumps(full, sort_keys=True).encode()}
    files.write_table(target, pa.Table.from_arrays(arrays, schema=SCORED.with_metadata(metadata)))
    return PartDone(len(ids) - results["error"].null_count, len(todo))


def _scored(
    batches: Iterable[list[int]], texts: pa.ChunkedArray, ids: Sequence[str], scorer: Scorer, cut: Callable
) -> pa.Table:
    """The results of the rows in ``batches``."""
    columns: dict[str, list[Any]] = {name: [] for name in RESULT.names}
    for rows in batches:
        documents = [(text, cut(text)) for text in (texts[row].as_py() for row in rows)]
        for row, (_, ends), scored in zip(rows, documents, scorer.score(documents), strict=True):
            error = scored.error or scored.unreadable
            scores = None if error else np.array(scored.scores, dtype=np.float32)
            columns["doc_id"].append(ids[row])
            columns["segment_ends"].append(list(ends))
            columns["scores"].append(scores)
            columns["avg_score"].append(None if scores is None else float(np.mean(scores, dtype=np.float64)))
            columns["reasons"].append([{"begin": f.begin, "end": f.end, "kind": f.kind} for f in scored.findings])
            columns["error"].append(error)
    return pa.Table.from_arrays([pa.array(columns[field.name], type=field.type) for field in RESULT], schema=RESULT)


def _brought(part: pa.Table) -> pa.Table:
    """The published scores of the documents that need no second look."""
    rows = part.filter(pc.invert(part["check_again"]))
    means = [float(np.mean(np.array(scores, np.float32), dtype=np.float64)) for scores in rows["scores"].to_pylist()]
    columns = {
        "doc_id": rows["doc_id"],
        "segment_ends": rows["segment_ends"],
        "scores": rows["scores"],
        "avg_score": pa.array(means, pa.float32()),
        "reasons": pa.array([[] for _ in means], pa.list_(REASON)),
        "error": pa.nulls(len(means), pa.string()),
    }
    return pa.Table.from_arrays([_flat(columns[field.name], field.type) for field in RESULT], schema=RESULT)


def _flat(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """One array of a type; what pages a file gets must not depend on where its rows came from."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.cast(kind)


def _batches(rows: Sequence[int], texts: pa.ChunkedArray) -> Iterator[list[int]]:
    batch: list[int] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(texts[row].as_py())
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
