"""Shards: what one objective trains on. A stream of its own (filtered, control) or the plain one, and its numbers.

Built from the plain stream without tokenising anew: quantiles become thresholds, moments are taken over training
tokens, documents are left out, control tokens are put in. Taking the control tokens out of a control stream gives the
plain stream back, token for token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.imports import code_digest
from freshstart.objectives import Objective, ObjectiveSettings, TrainScores
from freshstart.tokens.store import FORMAT, MANIFEST, NpyWriter, Stream, file_digests, read_manifest

CHUNK_DOCUMENTS = 256
NONE, GOOD, BAD = 0, 1, 2  # what an objective's ``label`` gives


def build(
    objective: Objective, settings: ObjectiveSettings, plain: Path, folder: Path, task: str, corpus_seed: int
) -> dict[str, Any]:
    """Write the shards of one objective to ``folder``, the manifest last; gives the manifest."""
    made_by = f"tokens@{task}"
    source = read_manifest(plain, made_by)
    published = source.get("published") or {}
    by_size = objective.magnitudes or settings.good.quantile is not None
    if by_size and published.get("divided_by_length") == "undecided":
        raise InputError(
            f"{objective.name} weighs by how bad a segment is, and the published scores of {published['name']} do not "
            "tell whether they were divided by length once or twice: use mle, conditional or unlikelihood with "
            "good: {score: 0.0}, or score the corpus here (kind: hub)"
        )
    stream = Stream.open(plain, task)
    document_scores = np.load(plain / "document_scores.npy")
    scores = train_scores(stream, document_scores)
    if not len(scores.segments):
        raise InputError(
            f"{plain} holds no scored segment: every document was left out ({source['documents_left_out']})"
        )
    numbers = objective.resolve(settings, scores)
    good = settings.good.threshold(scores.segments)
    kept = np.ones(len(document_scores), dtype=bool)
    filters = objective.stream == "filtered"
    if filters:
        kept = objective.keep(document_scores, numbers)
        _write(folder, source, _filtered(stream, kept))
    elif objective.stream == "control":
        ids = np.load(plain / "document_ids.npy", mmap_mode="r")
        segments = np.load(plain / "document_segments.npy", mmap_mode="r")
        _write(folder, source, _controlled(stream, ids, segments, objective, numbers, source, corpus_seed))
    own = plain if objective.stream == "plain" else folder
    tokens = len(np.load(own / "tokens.npy", mmap_mode="r"))
    repetition = settings.positions / max(tokens, 1)
    if numbers.get("budget") == "fresh" and repetition > 1:
        raise InputError(
            f"filtered.budget is fresh, but the {int(kept.sum())} documents that it keeps hold {tokens:,} tokens for a "
            f"budget of {settings.positions:,}: raise corpus.{task}.train_characters about {repetition:.1f} times, or "
            "set budget: repeat"
        )
    manifest = {
        "format": FORMAT,
        "objective": objective.name,
        "stream": objective.stream,
        "code_sha256": code_digest(f"freshstart.objectives.{objective.name}"),
        "settings": asdict(settings),
        "numbers": numbers,
        "good_threshold": good,
        "share_segments_good": float((scores.segments <= np.float32(good)).mean()),
        "share_tokens_bad": float(scores.tokens[scores.segments > np.float32(good)].sum() / scores.tokens.sum()),
        "tokens": tokens,
        "documents": int(kept.sum()),
        "documents_left_out": {**source["documents_left_out"], **({"filtered": int((~kept).sum())} if filters else {})},
        "repetition": repetition,
        "plain_sha256": source["sha256"],
        "sha256": file_digests(folder),
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def leave(
    objective: Objective,
    numbers: dict[str, Any],
    free: np.ndarray,
    plain: Path,
    folder: Path,
    task: str,
    corpus_seed: int,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write the stream that an objective makes of the ``free`` documents alone (bool, one a document) to ``folder``.

    ``manifest`` is what its manifest says beside the counts and digests; gives the whole.
    """
    source = read_manifest(plain, f"tokens@{task}")
    stream = Stream.open(plain, task)
    if objective.stream == "filtered":
        free = free & objective.keep(np.load(plain / "document_scores.npy"), numbers)
    if not free.any():
        raise InputError(f"{objective.name} keeps none of the documents that mle has left: enlarge the corpus")
    files.fresh_folder(folder)
    _write(folder, source, _filtered(stream, free))
    if objective.stream == "control":
        ids = np.load(plain / "document_ids.npy", mmap_mode="r")[free]
        counts = np.diff(np.load(plain / "document_segments.npy"), prepend=0)[free]
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            whole = Path(temporary)
            for path in folder.glob("*.npy"):
                path.rename(whole / path.name)
            text = Stream.open(whole, task)
            pieces = _controlled(text, ids, np.cumsum(counts), objective, numbers, source, corpus_seed)
            _write(folder, source, pieces)
    manifest = {
        "format": FORMAT,
        "objective": objective.name,
        **manifest,
        "documents": int(free.sum()),
        "document_places": np.flatnonzero(free).tolist(),
        "tokens": len(np.load(folder / "tokens.npy", mmap_mode="r")),
        "sha256": file_digests(folder),
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def train_scores(stream: Stream, document_scores: np.ndarray) -> TrainScores:
    """The scored spans of a plain stream, with their numbers of tokens, and the scores of its documents."""
    lengths = np.diff(stream.segment_ends, prepend=0)
    scored = ~np.isnan(stream.segment_scores)
    return TrainScores(np.asarray(stream.segment_scores)[scored], lengths[scored], document_scores)


def uniform(corpus_seed: int, document_ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one a segment: splitmix64 of (corpus seed, document id, place in the document).

    document_ids: (documents, 16) bytes; segments: number of segments of each document.
    """
    with np.errstate(over="ignore"):
        words = np.ascontiguousarray(document_ids).view(np.uint64)
        base = _splitmix(words[:, 0] ^ _splitmix(words[:, 1] ^ np.uint64(corpus_seed)))
        place = np.concatenate([np.arange(count, dtype=np.uint64) for count in segments] or [np.zeros(0, np.uint64)])
        mixed = _splitmix(np.repeat(base, segments) + place * np.uint64(0x9E3779B97F4A7C15))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def _splitmix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


Piece = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # tokens, span ends, span scores, document ends


def _filtered(stream: Stream, kept: np.ndarray) -> Iterator[Piece]:
    for begin, end, document_ends, span_ends, span_scores in _documents(stream):
        chosen = np.flatnonzero(kept[begin:end])
        document_begins = np.concatenate([[0], document_ends[:-1]])
        owner = np.searchsorted(document_ends, span_ends - 1, side="right")
        mine = np.isin(owner, chosen)
        lengths = np.diff(span_ends, prepend=0)[mine]
        offset = stream.document_ends[begin - 1] if begin else 0
        tokens = [stream.tokens[offset + document_begins[i] : offset + document_ends[i]] for i in chosen]
        sizes = (document_ends - document_begins)[chosen]
        if len(chosen):
            yield np.concatenate(tokens), np.cumsum(lengths), span_scores[mine], np.cumsum(sizes)


def _controlled(
    stream: Stream,
    ids: np.ndarray,
    segments: np.ndarray,
    objective: Objective,
    numbers: dict[str, Any],
    source: dict[str, Any],
    corpus_seed: int,
) -> Iterator[Piece]:
    control = np.array([0, source["good"], source["bad"]])
    for begin, end, document_ends, span_ends, span_scores in _documents(stream):
        lengths = np.diff(span_ends, prepend=0)
        scored = ~np.isnan(span_scores)
        counts = np.diff(segments[begin:end], prepend=segments[begin - 1] if begin else 0) - 1  # the end of text's span
        draws = uniform(corpus_seed, ids[begin:end], counts)
        labels = np.zeros(len(span_ends), dtype=np.int8)
        labels[scored] = objective.label(span_scores[scored], draws, numbers)
        labels[lengths == 0] = NONE
        labelled = np.flatnonzero(labels)
        starts = (span_ends - lengths)[labelled]
        offset = stream.document_ends[begin - 1] if begin else 0
        tokens = np.insert(stream.tokens[offset : offset + document_ends[-1]], starts, control[labels[labelled]])
        new_lengths = np.insert(lengths, labelled, 1)
        new_scores = np.insert(span_scores, labelled, np.float32(np.nan))
        before = np.searchsorted(starts, document_ends, side="left")
        yield tokens, np.cumsum(new_lengths), new_scores, document_ends + before


def _documents(stream: Stream) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """A few hundred documents at a time: their range, and their ends, span ends (from 0) and span scores."""
    documents = len(stream.document_ends)
    for begin in range(0, documents, CHUNK_DOCUMENTS):
        end = min(begin + CHUNK_DOCUMENTS, documents)
        offset = int(stream.document_ends[begin - 1]) if begin else 0
        first = np.searchsorted(stream.segment_ends, np.int64(offset), side="right") if begin else 0
        last = np.searchsorted(stream.segment_ends, np.int64(stream.document_ends[end - 1]), side="right")
        yield (
            begin,
            end,
            np.asarray(stream.document_ends[begin:end]) - offset,
            np.asarray(stream.segment_ends[first:last]) - offset,
            np.asarray(stream.segment_scores[first:last]),
        )


def _write(folder: Path, source: dict[str, Any], pieces: Iterator[Piece]) -> None:
    with (
        NpyWriter(folder / "tokens.npy", np.dtype(source["dtype"])) as tokens,
        NpyWriter(folder / "segment_ends.npy", np.int64) as span_ends,
        NpyWriter(folder / "segment_scores.npy", np.float32) as span_scores,
        NpyWriter(folder / "document_ends.npy", np.int64) as document_ends,
    ):
        for piece, ends, scores, documents in pieces:
            span_ends.append(tokens.length + ends)
            document_ends.append(tokens.length + documents)
            span_scores.append(scores)
            tokens.append(piece)
