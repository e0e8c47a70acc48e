"""The scored table: one corpus part in, one scored part out, with the same rows in the same order.

To the corpus' columns it adds ``segment_ends`` (character offsets), ``scores`` (one a segment; null where scoring
failed), ``avg_score`` (their mean, the paper's document score), ``reasons`` (spans of what was found) and ``error``.
The schema's metadata carries the fingerprint of all that the scores depend on; equal inputs make equal bytes, whatever
the cache already knew.

A corpus part may bring published scores along, with the segments that they belong to (columns ``segment_ends``,
``scores``, ``check_again``). They are taken as they are; only documents to check again are scored here.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshstart import files
from freshstart.schema import CORPUS, FINGERPRINT_KEY, PUBLISHED, PUBLISHED_KEY, RESULT, RESULTS, SCORED
from freshstart.scorers import Scorer, answers
from freshstart.scoring.cache import Cache
from freshstart.scoring.segments import SEGMENTERS

BATCH_CHARACTERS = 500_000
LONG = 20_000  # characters of a document for which it has as long again


@dataclass(frozen=True)
class PartDone:
    """Documents scored anew, and packs of the cache that are damaged; not written where rows were left out."""

    anew: int
    damaged: tuple[Path, ...] = ()


def score_part(
    source: Path,
    target: Path,
    loaded: Callable[[], Scorer],
    segments: str,
    fingerprint: dict[str, Any],
    before: Callable[[int], bool] | None = None,
    seconds: float = 0.0,
) -> PartDone:
    """Score one corpus part into ``target``.

    ``loaded`` gives the scorer, which is asked for only where a document is not in the cache. For a part that killed
    its worker, ``before`` is told of every row before it is scored, alone, and says whether to score it at all. A
    SIGALRM comes where the documents that the scorer was given take longer than ``seconds`` each (0: as long as they
    like); one that does not override ``score`` is given them one by one.
    """
    part = files.read_table(source, "corpus", CORPUS.names)
    ids = part["doc_id"].to_pylist()
    full = {**fingerprint, "input_sha256": files.sha256(source)}
    tables, known = [RESULT.empty_table()], set()
    if (published := (part.schema.metadata or {}).get(PUBLISHED_KEY)) is not None:
        full["published"] = json.loads(published)
        tables.append(_published(files.read_table(source, "corpus", ["doc_id", *(name for name, _ in PUBLISHED)])))
        known.update(tables[-1]["doc_id"].to_pylist())
    cache = Cache(fingerprint)
    cached = cache.find([doc_id for doc_id in ids if doc_id not in known])
    if cached is not None:
        tables.append(cached)
        known.update(cached["doc_id"].to_pylist())
    todo = [row for row, doc_id in enumerate(ids) if doc_id not in known]
    left_out = []
    if todo:
        scorer = loaded()
        if before is not None:
            allowed = ((row, before(row)) for row in todo)
            batches: Iterable[list[int]] = ([row] for row, may in allowed if may or left_out.append(row))
        elif type(scorer).score is Scorer.score:
            batches = ([row] for row in todo)
        else:
            batches = _batches(todo, part["text"])
        anew = _scored(batches, part["text"], ids, scorer, SEGMENTERS[segments], seconds)
        cache.keep(anew)
        tables.append(anew)
    done = PartDone(len(todo) - len(left_out), tuple(cache.damaged))
    if left_out:
        return done
    results = pa.concat_tables(tables)
    place = {doc_id: row for row, doc_id in enumerate(results["doc_id"].to_pylist())}
    results = results.take([place[doc_id] for doc_id in ids])
    columns = {name: part[name] for name in CORPUS.names} | {name: results[name] for name in RESULTS}
    metadata = {FINGERPRINT_KEY: json.dumps(full, sort_keys=True).encode()}
    # In one piece: what pages a file gets must not depend on where its rows came from
    files.write_table(target, pa.table(columns).cast(SCORED).combine_chunks().replace_schema_metadata(metadata))
    return done


def _scored(
    batches: Iterable[list[int]],
    texts: pa.ChunkedArray,
    ids: Sequence[str],
    scorer: Scorer,
    cut: Callable,
    seconds: float,
) -> pa.Table:
    """The results of the rows in ``batches``."""
    results = []
    for rows in batches:
        documents = [(text, cut(text)) for text in (texts[row].as_py() for row in rows)]
        with _within(seconds * sum(1 + len(text) // LONG for text, _ in documents)):
            answered = answers(scorer, documents)
        for row, (_, ends), scored in zip(rows, documents, answered, strict=True):
            error = scored.error or scored.unreadable
            reasons = [{"begin": f.begin, "end": f.end, "kind": f.kind} for f in scored.findings]
            results.append(_result(ids[row], list(ends), None if error else scored.scores, reasons, error))
    return pa.Table.from_pylist(results, RESULT)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """A SIGALRM after so many seconds, unless it is over by then."""
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second, where a scorer swallows the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _published(part: pa.Table) -> pa.Table:
    """The published scores of the documents that need no second look."""
    rows = part.filter(pc.invert(part["check_again"])).to_pylist()
    results = [_result(row["doc_id"], row["segment_ends"], row["scores"], [], None) for row in rows]
    return pa.Table.from_pylist(results, RESULT)


def _result(
    doc_id: str, ends: list[int], scores: Sequence[float] | None, reasons: list[dict[str, Any]], error: str | None
) -> dict[str, Any]:
    values = None if scores is None else np.array(scores, dtype=np.float32)
    mean = float(np.mean(values, dtype=np.float64)) if values is not None and len(values) else None
    return dict(zip(RESULT.names, (doc_id, ends, values, mean, reasons, error), strict=True))


def _batches(rows: Sequence[int], texts: pa.ChunkedArray) -> list[list[int]]:
    """The rows in batches of about BATCH_CHARACTERS."""
    sizes = pc.utf8_length(texts).to_numpy()[rows]
    numbers = (np.cumsum(sizes) - sizes) // BATCH_CHARACTERS
    return [batch.tolist() for batch in np.split(rows, np.flatnonzero(np.diff(numbers)) + 1)]
