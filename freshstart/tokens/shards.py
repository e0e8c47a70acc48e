"""Shards: what one objective trains on. A stream of its own (filtered, control) or the plain one, and its numbers.

Built from the plain stream without tokenising anew: quantiles become thresholds, moments are taken over training
tokens, documents are left out, control tokens are put in. Taking the control tokens out of a control stream gives the
plain stream back, token for token.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.imports import code_digest
from freshstart.names import kind_of
from freshstart.objectives import NONE, Numbers, Objective, ObjectiveSettings, TrainScores
from freshstart.tokens.store import NpyWriter, Stream, StreamWriter, read_manifest, write_manifest

CHUNK_DOCUMENTS, CHUNK_SPANS = 256, 1 << 20


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
    with tempfile.TemporaryDirectory(dir=files.state_folder()) as scratch:
        scores = _train_scores(plain, Path(scratch))
        if not len(scores.segments):
            raise InputError(
                f"{plain.folder} holds no scored segment: every document was left out ({source['documents_left_out']})"
            )
        numbers = objective.resolve(settings, scores)
        good = settings.good.threshold(scores.segments)
        bad = scores.segments > np.float32(good)  # a byte a segment
        share_bad = float(np.sum(scores.tokens, where=bad) / scores.tokens.sum())
    kept = np.ones(len(scores.documents), dtype=bool)
    left_out = dict(source["documents_left_out"])
    if objective.keep is not None:
        kept = objective.keep(scores.documents, numbers)
        left_out["filtered"] = int((~kept).sum())
    if needs.stream != "plain":
        _write(folder, plain, kept, objective, numbers, corpus_seed)
    tokens = len(np.load((plain.folder if needs.stream == "plain" else folder) / "tokens.npy", mmap_mode="r"))
    repetition = settings.positions / max(tokens, 1)
    if numbers.get("budget") == "fresh" and repetition > 1:
        raise InputError(
            f"filtered.budget is fresh, but the {int(kept.sum())} documents that it keeps hold {tokens:,} tokens for a "
            f"budget of {settings.positions:,}: raise corpus.{plain.task}.train_characters about {repetition:.1f} "
            "times, or set budget: repeat"
        )
    entries = {
        "objective": objective.name,
        "stream": needs.stream,
        "code_sha256": code_digest(f"freshstart.objectives.{kind_of(objective.name)}"),
        "settings": asdict(settings),
        "numbers": numbers,
        "good_threshold": good,
        "segments": source["scorer"]["segments"],
        "controls": source["controls"] if needs.stream == "control" else [],
        "share_segments_good": float((len(bad) - np.count_nonzero(bad)) / len(bad)),
        "share_tokens_bad": share_bad,
        "tokens": tokens,
        "documents": int(kept.sum()),
        "documents_left_out": left_out,
        "repetition": repetition,
        "plain_sha256": source["sha256"],
    }
    return write_manifest(folder, entries)


def write_rest(
    objective: Objective, numbers: Numbers, free: np.ndarray, plain: Plain, folder: Path, corpus_seed: int
) -> dict[str, Any]:
    """Write the stream that an objective makes of the ``free`` documents alone (bool, one a document) to ``folder``.

    Gives what its manifest is to say of it.
    """
    if objective.keep is not None:
        free = free & objective.keep(np.asarray(plain.documents("scores")), numbers)
    if not free.any():
        raise InputError(f"{objective.name} keeps none of the documents that mle has left: enlarge the corpus")
    _write(folder, plain, free, objective, numbers, corpus_seed)
    return {
        "objective": objective.name,
        "documents": int(free.sum()),
        "document_places": np.flatnonzero(free).tolist(),
        "tokens": len(np.load(folder / "tokens.npy", mmap_mode="r")),
    }


def uniform(corpus_seed: int, document_ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one a segment: splitmix64 of (corpus seed, document id, place in the document).

    document_ids: (documents, 16) bytes; segments: number of segments of each document.
    """
    with np.errstate(over="ignore"):
        words = np.ascontiguousarray(document_ids).view(np.uint64)
        base = _splitmix(words[:, 0] ^ _splitmix(words[:, 1] ^ np.uint64(corpus_seed)))
        place = np.arange(segments.sum()) - np.repeat(np.cumsum(segments) - segments, segments)
        mixed = _splitmix(np.repeat(base, segments) + place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def _splitmix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _train_scores(plain: Plain, folder: Path) -> TrainScores:
    """Those of the spans that have one, as files in ``folder``."""
    ends, values = plain.stream.segment_ends, plain.stream.segment_scores
    writers = [NpyWriter(folder / name, np.dtype(kind)) for name, kind in (("scores.npy", "f4"), ("tokens.npy", "i8"))]
    with writers[0], writers[1]:
        for begin in range(0, len(values), CHUNK_SPANS):
            chunk = slice(begin, begin + CHUNK_SPANS)
            scored = ~np.isnan(values[chunk])
            writers[0].append(values[chunk][scored])
            writers[1].append(np.diff(ends[chunk], prepend=ends[begin - 1] if begin else 0)[scored])
            plain.stream.release()
    of_segments = (np.load(folder / name, mmap_mode="r") for name in ("scores.npy", "tokens.npy"))
    return TrainScores(*of_segments, np.asarray(plain.documents("scores")))


def _write(
    folder: Path, plain: Plain, kept: np.ndarray, objective: Objective, numbers: Numbers, corpus_seed: int
) -> None:
    """Write the stream of the documents that are kept, with control tokens where the objective labels segments."""
    stream, ids, segments = plain.stream, plain.documents("ids"), plain.documents("segments")
    control = np.array([token["id"] for token in plain.manifest["controls"]])
    with StreamWriter(folder, np.dtype(plain.manifest["dtype"])) as writer:
        for begin in range(0, len(kept), CHUNK_DOCUMENTS):
            chunk = slice(begin, begin + CHUNK_DOCUMENTS)
            chosen = kept[chunk]
            token, span = (int(stream.document_ends[begin - 1]), int(segments[begin - 1])) if begin else (0, 0)
            sizes, spans = np.diff(stream.document_ends[chunk], prepend=token), np.diff(segments[chunk], prepend=span)
            of_tokens, of_spans = np.repeat(chosen, sizes), np.repeat(chosen, spans)
            tokens = stream.tokens[token : token + len(of_tokens)][of_tokens]
            lengths = np.diff(stream.segment_ends[span : span + len(of_spans)], prepend=token)[of_spans]
            scores = stream.segment_scores[span : span + len(of_spans)][of_spans]
            sizes, spans = sizes[chosen], spans[chosen]
            if objective.label is not None:
                draws = uniform(corpus_seed, ids[chunk][chosen], spans - 1)  # the end of text has a span and no label
                labels = _labels(objective, numbers, scores, lengths, draws, len(control))
                marked = np.flatnonzero(labels != NONE)
                document = np.repeat(np.arange(len(sizes)), spans)
                sizes = sizes + np.bincount(document[marked], minlength=len(sizes))
                tokens = np.insert(tokens, (np.cumsum(lengths) - lengths)[marked], control[labels[marked]])
                lengths, scores = np.insert(lengths, marked, 1), np.insert(scores, marked, np.float32(np.nan))
            writer.append(tokens, lengths, scores, sizes)


def _labels(
    objective: Objective, numbers: Numbers, scores: np.ndarray, lengths: np.ndarray, draws: np.ndarray, controls: int
) -> np.ndarray:
    """The label of each span; NONE for spans without a score or without a token. ``draws`` has one for each scored."""
    assert objective.label is not None
    scored = ~np.isnan(scores)
    labels = np.full(len(scores), NONE, dtype=np.int64)
    labels[scored] = objective.label(scores[scored], draws, numbers)
    unknown = labels[(labels < NONE) | (labels >= controls)]
    if len(unknown):
        raise InputError(
            f"{objective.name} labels a segment {unknown[0]}, but the tokenizer has {controls} control tokens: name "
            "the others in tokenizer.<task>.controls"
        )
    labels[lengths == 0] = NONE
    return labels
