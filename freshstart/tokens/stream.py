"""The plain token stream: every scored document, tokenised whole, behind an end-of-text token.

A token belongs to the segment of its first character. Documents without a score are left out here, for every
objective alike. Besides the stream itself a split keeps, for each segment, its bytes (for bits per byte) and its place
in its document, and, for each document, its id and its score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from freshstart import files
from freshstart.progress import track
from freshstart.schema import FINGERPRINT_KEY
from freshstart.tokens import written
from freshstart.tokens.store import FORMAT, MANIFEST, NpyWriter, file_digests, token_dtype
from freshstart.tokens.tokenizer import Tokenizer

BATCH = 64
COLUMNS = ("doc_id", "text", "segment_ends", "scores", "avg_score", "error")
ARRAYS = {
    "segment_ends": (np.int64, None),
    "segment_scores": (np.float32, None),
    "segment_bytes": (np.int32, None),
    "document_ends": (np.int64, None),
    "document_segments": (np.int64, None),
    "document_scores": (np.float32, None),
    "document_ids": (np.uint8, 16),
}


def build(parts: list[Path], tokenizer: Tokenizer, folder: Path, scorer: dict[str, Any]) -> dict[str, Any]:
    """Write the stream of one split to ``folder``, its manifest last; gives the manifest."""
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with ExitStack() as stack:
        tokens = stack.enter_context(NpyWriter(folder / "tokens.npy", token_dtype(tokenizer.size)))
        arrays = {
            name: stack.enter_context(NpyWriter(folder / f"{name}.npy", dtype, width))
            for name, (dtype, width) in ARRAYS.items()
        }
        for table in track(_tables(parts), "tokenising", None, "batches"):
            rows = table.to_pylist()
            for row in rows:
                if row["scores"] is None:
                    left_out[row["error"].split(":")[0]] += 1
            kept = [row for row in rows if row["scores"] is not None]
            for row, (ids, offsets) in zip(kept, tokenizer.encode([row["text"] for row in kept]), strict=True):
                ends = np.array(row["segment_ends"], dtype=np.int64)
                segment = segment_of(offsets, ends)
                counts["straddling"] += int((offsets[:, 1] > ends[segment]).sum())
                lengths = np.bincount(segment, minlength=len(ends))
                begin = tokens.length + 1
                tokens.append(np.concatenate([[tokenizer.end_of_text], ids]))
                arrays["segment_ends"].append(np.concatenate([[begin], begin + np.cumsum(lengths)]))
                arrays["segment_scores"].append(np.concatenate([[np.nan], row["scores"]]))
                arrays["segment_bytes"].append(np.concatenate([[0], byte_lengths(row["text"], ends)]))
                arrays["document_ends"].append(np.array([tokens.length]))
                arrays["document_segments"].append(np.array([arrays["segment_ends"].length]))
                arrays["document_scores"].append(np.array([row["avg_score"]]))
                arrays["document_ids"].append(np.frombuffer(bytes.fromhex(row["doc_id"]), np.uint8)[None])
                counts["documents"] += 1
                counts["segments"] += len(ends)
                counts["segments_without_token"] += int((lengths == 0).sum())
                counts["characters"] += len(row["text"])
        counts["tokens"] = tokens.length
    text_tokens = max(counts["tokens"] - counts["documents"], 1)
    manifest = {
        "format": FORMAT,
        "dtype": token_dtype(tokenizer.size).name,
        "vocabulary": tokenizer.size,
        "end_of_text": tokenizer.end_of_text,
        "controls": written(tokenizer.controls),
        "tokenizer_sha256": tokenizer.sha256,
        "scorer": scorer,
        "published": _published(parts[0]),
        "documents": counts["documents"],
        "documents_left_out": dict(sorted(left_out.items())),
        "segments": counts["segments"],
        "segments_without_token": counts["segments_without_token"],
        "tokens": counts["tokens"],
        "characters_per_token": counts["characters"] / text_tokens,
        "share_straddling": counts["straddling"] / text_tokens,
        "sha256": file_digests(folder),
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def _published(part: Path) -> dict[str, Any] | None:
    """Where the scores came from, if they were published and not made here; all parts say the same."""
    metadata = pq.read_schema(part).metadata or {}
    return json.loads(metadata.get(FINGERPRINT_KEY, b"{}")).get("published")


def _tables(parts: Iterable[Path]) -> Iterator[pa.Table]:
    for path in parts:
        table = files.read_table(path, "score", COLUMNS)
        for begin in range(0, len(table), BATCH):
            yield table.slice(begin, BATCH)


def segment_of(offsets: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The segment that each token belongs to, that of its first character: (n, 2), (segments,) to (n,)."""
    return np.searchsorted(ends, offsets[:, 0], side="right")


def byte_lengths(text: str, ends: np.ndarray) -> np.ndarray:
    """Bytes of each segment of a text in UTF-8."""
    if text.isascii():
        return np.diff(ends, prepend=0)
    return np.array([len(text[a:b].encode()) for a, b in zip([0, *ends], ends, strict=False)])
