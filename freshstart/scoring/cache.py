"""The score cache: results by document, so that no document is scored twice.

``.state/scores/<digest of the fingerprint>/`` holds ``fingerprint.json`` and packs: Parquet files with the ids and
results of documents, no text. A pack is named by the SHA-256 of its bytes, written under a temporary name, renamed and
never changed, so that writers on several machines that share the folder cannot corrupt it. A document is known by the
hash of its text, and the fingerprint holds all else that a score depends on: a corpus that grows, or is cut into other
parts, scores only what is new. Failures are not kept: a scorer that raised is asked again.

Of each pack a process keeps eight bytes a document, so that those alone are read that hold what is looked up. Whenever
a pack is read its name is checked: a damaged one is removed and listed in ``damaged``, and counts as absent, like one
that another process pruned. Deleting packs only costs time; ``prune`` keeps the folder below a bound by deleting those
that were used least recently.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from freshstart import files
from freshstart.errors import InputError
from freshstart.schema import FINGERPRINT_KEY, RESULTS

FOLDER = "scores"
NAME = "fingerprint.json"
FORMAT = 2  # of packs; 1: named by their documents, so that damage went unseen
_KEYS: dict[Path, np.ndarray] = {}  # of the packs that this process has read, which never change


class Cache:
    """The results of one fingerprint."""

    def __init__(self, fingerprint: dict[str, Any]):
        self.folder = files.state_folder(FOLDER, files.digest({**fingerprint, "packs": FORMAT})[:32])
        self.damaged: list[Path] = []
        self._fingerprint = fingerprint

    def find(self, doc_ids: Sequence[str]) -> pa.Table | None:
        """Rows of ``doc_id`` and results of those documents that are known, in any order; None where there are none."""
        wanted, keys = pa.array(doc_ids, pa.string()), _keys(doc_ids)
        tables = []
        for pack in sorted(self.folder.glob("*.parquet")):
            if pack not in _KEYS and (ids := self._read(pack, ["doc_id"])) is not None:
                _KEYS[pack] = _keys(ids["doc_id"].to_pylist())
            if np.isin(keys, _KEYS.get(pack, ())).any() and (table := self._read(pack)) is not None:
                tables.append(table.filter(pc.is_in(table["doc_id"], wanted)))
                with suppress(FileNotFoundError):
                    os.utime(pack)
        return pa.concat_tables(tables) if tables else None

    def keep(self, table: pa.Table) -> None:
        """Keep the rows (``doc_id`` and results) that have no error."""
        table = table.filter(pc.is_valid(table["scores"]))
        if not len(table):
            return
        if not (self.folder / NAME).is_file():
            files.write_json(self.folder / NAME, self._fingerprint)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue()
        with files.written(self.folder / f"{hashlib.sha256(content).hexdigest()}.parquet") as temporary:
            temporary.write_bytes(content)

    def _read(self, pack: Path, columns: Sequence[str] = ("doc_id", *RESULTS)) -> pa.Table | None:
        """A pack's rows; None where it is gone, or damaged."""
        try:
            content = pack.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() == pack.stem:
            return pq.read_table(pa.BufferReader(content), columns=list(columns))
        self.damaged.append(pack)
        pack.unlink(missing_ok=True)
        return None


def seed(parts: Iterable[Path]) -> int:
    """Keep the results of scored parts, such as a colleague's; gives the number of documents with a score."""
    count = 0
    for path in parts:
        table = files.read_table(path, "score")
        raw = (table.schema.metadata or {}).get(FINGERPRINT_KEY)
        if raw is None or "published" in json.loads(raw):
            raise InputError(f"{path} was not scored by this project: its schema names no fingerprint of a scorer")
        fingerprint = {key: value for key, value in json.loads(raw).items() if key != "input_sha256"}
        rows = table.select(["doc_id", *RESULTS]).replace_schema_metadata(None)
        Cache(fingerprint).keep(rows)
        count += len(rows) - rows["scores"].null_count
    return count


@dataclass(frozen=True)
class Held:
    """What the cache holds for one fingerprint."""

    folder: Path
    kind: str
    packs: int
    bytes: int


def held() -> list[Held]:
    """One entry a fingerprint, the largest first."""
    entries = []
    for folder in files.state_folder(FOLDER).iterdir():
        packs, kind = list(folder.glob("*.parquet")), "?"
        with suppress(InputError):
            record = files.read_json(folder / NAME, "score")
            kind = f"{record.get('kind')} {record.get('version')}"
        entries.append(Held(folder, kind, len(packs), sum(map(_size, packs))))
    return sorted(entries, key=lambda entry: -entry.bytes)


def prune(most_bytes: float | None = None) -> int:
    """Delete the packs used least recently until at most ``most_bytes`` are left; gives the bytes freed."""
    most_bytes = bound() if most_bytes is None else most_bytes
    packs = [(path, path.stat()) for path in files.state_folder(FOLDER).glob("*/*.parquet")]
    total = sum(stat.st_size for _, stat in packs)
    freed = 0
    for path, stat in sorted(packs, key=lambda item: item[1].st_mtime_ns):
        if total - freed <= most_bytes:
            break
        path.unlink(missing_ok=True)
        freed += stat.st_size
    for folder in files.state_folder(FOLDER).iterdir():
        if folder.is_dir() and not any(folder.glob("*.parquet")):
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def bound() -> float:
    """The bound of the cache in bytes: FRESHSTART_SCORE_CACHE_GIB, else 50 GiB."""
    text = os.environ.get("FRESHSTART_SCORE_CACHE_GIB", "50")
    with suppress(ValueError):
        if float(text) >= 0:
            return float(text) * 2**30
    raise InputError(f"FRESHSTART_SCORE_CACHE_GIB must be a number of GiB from 0 on, found {text!r}")


def _keys(doc_ids: Sequence[str]) -> np.ndarray:
    """The first eight bytes of each id."""
    return np.array([int(doc_id[:16], 16) for doc_id in doc_ids], dtype=np.uint64)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
