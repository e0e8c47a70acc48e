"""The plain token stream: every scored document, tokenised whole, behind an end-of-text token.

A token belongs to the segment of its first character. Documents without a score are left out here, for every
objective alike. Besides the stream itself a split keeps, for each segment, its bytes (for bits per byte) and its place
in its document, and, for each document, its id and its score.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from freshstart import files, pool
from freshstart.errors import InputError
from freshstart.imports import code_digest
from freshstart.schema import FINGERPRINT_KEY
from freshstart.tokens import written
from freshstart.tokens.store import ARRAYS, Stream, StreamWriter, read_manifest, write_manifest
from freshstart.tokens.tokenizer import Tokenizer

BATCH = 64
COLUMNS = ("doc_id", "text", "segment_ends", "scores", "avg_score", "error")
OTHERS = {  # what the plain stream keeps beside what every stream holds
    "segment_bytes": np.dtype("i4"),
    "document_segments": np.dtype("i8"),
    "document_scores": np.dtype("f4"),
    "document_ids": np.dtype(("u1", 16)),
}


class Worker(pool.Worker):
    """One tokenizer, and the parts it is given."""

    def __init__(self, tokenizer_folder: str):
        self._folder = tokenizer_folder

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self._folder)

    def work(self, job: pool.Job) -> dict[str, Any]:
        return _piece(job.source, job.target, self._tokenizer)


def build(
    parts: Mapping[str, Sequence[Path]],
    tokenizer_folder: Path,
    output: Path,
    scorer: Mapping[str, Any],
    workers: int | None = 0,
) -> dict[str, dict[str, Any]]:
    """Write the stream of each split to ``output/<split>``, its manifest last; gives the manifests by split.

    Every part is tokenised to a piece in the state folder, where a run that was stopped finds it again; pieces are
    joined in the order of the parts. ``workers`` as in ``pool.run``.
    """
    tokenizer = Tokenizer.open(tokenizer_folder)
    state = files.state_folder("tokens", files.digest(str(output.resolve()))).resolve()
    pieces = {split: [state / split / path.stem for path in paths] for split, paths in parts.items()}
    pairs = [pair for split in parts for pair in zip(parts[split], pieces[split], strict=True)]
    jobs = [pool.Job(part.resolve(), piece, state / "row") for part, piece in pairs]
    done = pool.run("tokenising", jobs, Worker, (str(tokenizer_folder.resolve()),), workers, is_light=True)
    counts = {job.target: answer for job, answer in done}
    manifests = {}
    for split, folders in pieces.items():
        _join(folders, output / split, tokenizer)
        made = [counts[folder] for folder in folders]
        manifests[split] = write_manifest(output / split, _entries(made, tokenizer, scorer, parts[split][0]))
    shutil.rmtree(state)
    return manifests


def _piece(part: Path, folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The stream of one part, made unless it is there; gives what its manifest counts."""
    made_from = [files.sha256(part), tokenizer.sha256, tokenizer.end_of_text, code_digest(__name__)]
    with suppress(InputError):  # not there, or damaged
        manifest = read_manifest(folder, "tokens")
        if manifest["made_from"] == made_from:
            Stream.open(folder, "tokens")  # checks the digests
            return manifest
    files.fresh_folder(folder)
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with StreamWriter(folder, _dtype(tokenizer), **OTHERS) as stream:
        for rows in batches([part], "score", COLUMNS):
            left_out.update(row["error"].split(":")[0] for row in rows if row["scores"] is None)
            kept = [row for row in rows if row["scores"] is not None]
            for row, (ids, offsets) in zip(kept, tokenizer.encode([row["text"] for row in kept]), strict=True):
                ends = np.array(row["segment_ends"], dtype=np.int64)
                segment = segment_of(offsets, ends)
                lengths = np.bincount(segment, minlength=len(ends))
                counts["documents"] += 1
                counts["segments"] += len(ends)
                counts["segments_without_token"] += int((lengths == 0).sum())
                counts["straddling"] += int((offsets[:, 1] > ends[segment]).sum())
                counts["tokens"] += 1 + len(ids)
                counts["characters"] += len(row["text"])
                stream.append(
                    np.concatenate([[tokenizer.end_of_text], ids]),
                    np.concatenate([[1], lengths]),
                    np.concatenate([[np.nan], row["scores"]]),
                    np.array([1 + len(ids)]),
                    segment_bytes=np.concatenate([[0], byte_lengths(row["text"], ends)]),
                    document_segments=np.array([counts["documents"] + counts["segments"]]),
                    document_scores=np.array([row["avg_score"]]),
                    document_ids=np.frombuffer(bytes.fromhex(row["doc_id"]), np.uint8)[None],
                )
    return write_manifest(folder, {"made_from": made_from, "counts": counts, "left_out": left_out})


def _join(pieces: Iterable[Path], folder: Path, tokenizer: Tokenizer) -> None:
    """Write pieces behind one another, as one stream."""
    spans = 0
    with StreamWriter(folder, _dtype(tokenizer), **OTHERS) as stream:
        for piece in pieces:
            names = ("tokens", *ARRAYS, *OTHERS)
            arrays = {name: np.load(piece / f"{name}.npy") for name in names}
            stream.append(
                arrays["tokens"],
                np.diff(arrays["segment_ends"], prepend=0),
                arrays["segment_scores"],
                np.diff(arrays["document_ends"], prepend=0),
                **{name: arrays[name] for name in OTHERS} | {"document_segments": spans + arrays["document_segments"]},
            )
            spans += len(arrays["segment_ends"])


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)


def _entries(
    pieces: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, scorer: Mapping[str, Any], part: Path
) -> dict[str, Any]:
    """What the manifest of a stream says of pieces that were joined, the first of them made of ``part``."""
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece["counts"])
        left_out.update(piece["left_out"])
    text_tokens = max(counts["tokens"] - counts["documents"], 1)
    return {
        "dtype": _dtype(tokenizer).name,
        "vocabulary": tokenizer.size,
        "end_of_text": tokenizer.end_of_text,
        "controls": written(tokenizer.controls),
        "tokenizer_sha256": tokenizer.sha256,
        "scorer": scorer,
        "published": _published(part),
        **{name: counts[name] for name in ("documents", "segments", "segments_without_token", "tokens")},
        "documents_left_out": dict(sorted(left_out.items())),
        "characters_per_token": counts["characters"] / text_tokens,
        "share_straddling": counts["straddling"] / text_tokens,
    }


def _published(part: Path) -> dict[str, Any] | None:
    """Where the scores came from, if they were published and not made here; all parts say the same."""
    metadata = pq.read_schema(part).metadata or {}
    try:
        return json.loads(metadata.get(FINGERPRINT_KEY, b"{}")).get("published")
    except ValueError:
        raise InputError(f"{part} has damaged metadata: run `dvc repro -f score`") from None


def batches(parts: Iterable[Path], made_by: str, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of parts, some at a time."""
    for path in parts:
        table = files.read_table(path, made_by, columns)
        for begin in range(0, len(table), BATCH):
            yield table.slice(begin, BATCH).to_pylist()


def segment_of(offsets: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The segment that each token belongs to, that of its first character: (n, 2), (segments,) to (n,)."""
    return np.searchsorted(ends, offsets[:, 0], side="right")


def byte_lengths(text: str, ends: np.ndarray) -> np.ndarray:
    """Bytes of each segment of a text in UTF-8."""
    if text.isascii():
        return np.diff(ends, prepend=0)
    return np.array([len(text[a:b].encode()) for a, b in zip([0, *ends], ends, strict=False)])
