"""The plain token stream: every scored document, tokenised whole, behind an end-of-text token.

A token belongs to the segment of its first character. Documents without a score are left out here, for every
objective alike. Besides the stream itself a split keeps, for each segment, its bytes (for bits per byte) and its place
in its document, and, for each document, its id and its score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from freshstart import files
from freshstart.errors import InputError
from freshstart.progress import track
from freshstart.schema import FINGERPRINT_KEY
from freshstart.tokens import written
from freshstart.tokens.store import StreamWriter, write_manifest
from freshstart.tokens.tokenizer import Tokenizer

BATCH = 64
COLUMNS = ("doc_id", "text", "segment_ends", "scores", "avg_score", "error")
OTHERS = {  # what the plain stream keeps beside what every stream holds
    "segment_bytes": np.dtype("i4"),
    "document_segments": np.dtype("i8"),
    "document_scores": np.dtype("f4"),
    "document_ids": np.dtype(("u1", 16)),
}


def build(parts: list[Path], tokenizer: Tokenizer, folder: Path, scorer: dict[str, Any]) -> dict[str, Any]:
    """Write the stream of one split to ``folder``, its manifest last; gives the manifest."""
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
    with StreamWriter(folder, dtype, **OTHERS) as stream:
        for rows in track(batches(parts, "score", COLUMNS), "tokenising", None, "batches"):
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
    text_tokens = max(counts["tokens"] - counts["documents"], 1)
    entries = {
        "dtype": dtype.name,
        "vocabulary": tokenizer.size,
        "end_of_text": tokenizer.end_of_text,
        "controls": written(tokenizer.controls),
        "tokenizer_sha256": tokenizer.sha256,
        "scorer": scorer,
        "published": _published(parts[0]),
        **{name: counts[name] for name in ("documents", "segments", "segments_without_token", "tokens")},
        "documents_left_out": dict(sorted(left_out.items())),
        "characters_per_token": counts["characters"] / text_tokens,
        "share_straddling": counts["straddling"] / text_tokens,
    }
    return write_manifest(folder, entries)


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
