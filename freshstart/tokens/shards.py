"""Shards: what one objective trains on. A stream of its own (filtered, control) or the plain one, and its numbers.

Built from the plain stream without tokenising anew: quantiles become thresholds, moments are taken over training
tokens, documents are left out, control tokens are put in. Taking the control tokens out of a control stream gives the
plain stream back, token for token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.imports import code_digest
from freshstart.objectives import NONE, Numbers, Objective, ObjectiveSettings, TrainScores
from freshstart.tokens.store import FORMAT, MANIFEST, NpyWriter, Stream, file_digests, read_manifest

CHUNK_DOCUMENTS = 256


@dataclass(frozen=True)
class Plain:
    """The plain stream of a task's split, read when it is asked for."""

    folder: Path
    task: str

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.folder, f"tokens@{self.task}")

    @cached_property
    def stream(self) -> Stream:
        return Stream.open(self.folder, self.task)

    def documents(self, name: str) -> np.ndarray:
        """What the split keeps of each document: its ``scores``, its ``ids``, the end of its ``segments``."""
        return np.load(self.folder / f"document_{name}.npy", mmap_mode="r")


def build(
    objective: Objective, settings: ObjectiveSettings, plain: Plain, folder: Path, corpus_seed: int
) -> dict[str, Any]:
    """Write the shards of one objective to ``folder``, the manifest last; gives the manifest."""
    source, needs = plain.manifest, objective.needs
    published = source.get("published") or {}
    by_size = needs.magnitudes or settings.good.quantile is not None
    if by_size and published.get("divided_by_length") == "undecided":
        raise InputError(
            f"{objective.name} weighs by how bad a segment is, and the published scores of {published['name']} do not "
            "tell whether they were divided by length once or twice: use mle, conditional or unlikelihood with "
            "good: {score: 0.0}, or score the corpus here (kind: hub)"
        )
    document_scores = np.asarray(plain.documents("scores"))
    scores = train_scores(plain.stream, document_scores)
    if not len(scores.segments):
        raise InputError(
            f"{plain.folder} holds no scored segment: every document was left out ({source['documents_left_out']})"
        )
    numbers = objective.resolve(settings, scores)
    good = settings.good.threshold(scores.segments)
    kept = np.ones(len(document_scores), dtype=bool)
    left_out = dict(source["documents_left_out"])
    if objective.keep is not None:
        kept = objective.keep(document_scores, numbers)
        left_out["filtered"] = int((~kept).sum())
        _write(folder, source, _filtered(plain.stream, kept))
    elif objective.label is not None:
        ids, segments = plain.documents("ids"), plain.documents("segments")
        _write(
            folder, source, _controlled(plain.stream, ids, segments, Labels(objective, numbers, source, corpus_seed))
        )
    own = plain.folder if needs.stream == "plain" else folder
    tokens = len(np.load(own / "tokens.npy", mmap_mode="r"))
    repetition = settings.positions / max(tokens, 1)
    if numbers.get("budget") == "fresh" and repetition > 1:
        raise InputError(
            f"filtered.budget is fresh, but the {int(kept.sum())} documents that it keeps hold {tokens:,} tokens for a "
            f"budget of {settings.positions:,}: raise corpus.{plain.task}.train_characters about {repetition:.1f} "
            "times, or set budget: repeat"
        )
    manifest = {
        "format": FORMAT,
        "objective": objective.name,
        "stream": needs.stream,
        "code_sha256": code_digest(f"freshstart.objectives.{objective.name}"),
        "settings": asdict(settings),
        "numbers": numbers,
        "good_threshold": good,
        "segments": source["scorer"]["segments"],
        "controls": source["controls"] if needs.stream == "control" else [],
        "share_segments_good": float((scores.segments <= np.float32(good)).mean()),
        "share_tokens_bad": float(scores.tokens[scores.segments > np.float32(good)].sum() / scores.tokens.sum()),
        "tokens": tokens,
        "documents": int(kept.sum()),
        "documents_left_out": left_out,
        "repetition": repetition,
        "plain_sha256": source["sha256"],
        "sha256": file_digests(folder),
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def untouched(
    objective: Objective,
    numbers: Numbers,
    free: np.ndarray,
    plain: Plain,
    folder: Path,
    corpus_seed: int,
    manifest: dict[str, Any],
) -> None:
    """Write the stream that an objective makes of the ``free`` documents alone (bool, one a document) to ``folder``.

    ``manifest`` is what its manifest says beside the counts and digests.
    """
    if objective.keep is not None:
        free = free & objective.keep(np.asarray(plain.documents("scores")), numbers)
    if not free.any():
        raise InputError(f"{objective.name} keeps none of the documents that mle has left: enlarge the corpus")
    files.fresh_folder(folder)
    _write(folder, plain.manifest, _filtered(plain.stream, free))
    if objective.label is not None:
        ids = plain.documents("ids")[free]
        counts = np.diff(plain.documents("segments"), prepend=0)[free]
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            whole = Path(temporary)
            for path in folder.glob("*.npy"):
                path.rename(whole / path.name)
            text = Stream.open(whole, plain.task)
            labels = Labels(objective, numbers, plain.manifest, corpus_seed)
            _write(folder, plain.manifest, _controlled(text, ids, np.cumsum(counts), labels))
    files.write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "objective": objective.name,
            **manifest,
            "documents": int(free.sum()),
            "document_places": np.flatnonzero(free).tolist(),
            "tokens": len(np.load(folder / "tokens.npy", mmap_mode="r")),
            "sha256": file_digests(folder),
        },
    )


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


@dataclass(frozen=True)
class Labels:
    """How the segments of a stream get control tokens."""

    objective: Objective
    numbers: Numbers
    source: dict[str, Any]
    corpus_seed: int

    def of(self, span_scores: np.ndarray, lengths: np.ndarray, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """The label of each span of a few documents; NONE for spans without a score or without a token."""
        assert self.objective.label is not None
        scored = ~np.isnan(span_scores)
        draws = uniform(self.corpus_seed, ids, segments)
        labels = np.full(len(span_scores), NONE, dtype=np.int64)
        labels[scored] = self.objective.label(span_scores[scored], draws, self.numbers)
        labels[lengths == 0] = NONE
        known = len(self.source["controls"])
        if labels.max(initial=NONE) >= known:
            raise InputError(
                f"{self.objective.name} labels a segment {labels.max()}, but the tokenizer has {known} control tokens: "
                "name the others in tokenizer.<task>.controls"
            )
        return labels


def _controlled(stream: Stream, ids: np.ndarray, segments: np.ndarray, labels: Labels) -> Iterator[Piece]:
    control = np.array([one["id"] for one in labels.source["controls"]])
    for begin, end, document_ends, span_ends, span_scores in _documents(stream):
        lengths = np.diff(span_ends, prepend=0)
        counts = np.diff(segments[begin:end], prepend=segments[begin - 1] if begin else 0) - 1  # the end of text's span
        found = labels.of(span_scores, lengths, ids[begin:end], counts)
        labelled = np.flatnonzero(found != NONE)
        starts = (span_ends - lengths)[labelled]
        offset = stream.document_ends[begin - 1] if begin else 0
        tokens = np.insert(stream.tokens[offset : offset + document_ends[-1]], starts, control[found[labelled]])
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
