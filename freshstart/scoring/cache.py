"""The score cache: results by document, so that no document is scored twice.

``.state/scores/<digest of the fingerprint>/`` holds ``fingerprint.json`` and packs: Parquet files with the ids and
results of documents, no text. A pack is written under a temporary name, renamed, named by its content and never
changed, so that writers on several machines that share the folder cannot corrupt it. A document is known by the hash of
its text, and the fingerprint holds all else that a score depends on: a corpus that grows, or is cut into other parts,
scores only what is new. Failures are not kept: a scorer that raised is asked again.

An index of all packs, 16 bytes a document, is read when the first document is looked up; hits are then read from their
packs. A pack that can not be read (cut short, or pruned by another process) counts as absent. Deleting packs only costs
time; ``prune`` keeps the folder below a bound by deleting those that were used least recently.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True)
class Index:
    """Sorted document keys with the pack and the row of each."""

    packs: list[Path]
    keys: np.ndarray  # uint64, sorted: the first eight bytes of the id
    places: np.ndarray  # (documents, 2) uint32: pack, row

    def find(self, doc_ids: Sequence[str]) -> dict[Path, list[tuple[str, int]]]:
        """Candidates by pack, as (id, row); the caller compares the whole id."""
        keys = _keys(doc_ids)
        at = np.searchsorted(self.keys, keys)
        inside = at < len(self.keys)
        inside[inside] = self.keys[at[inside]] == keys[inside]
        candidates: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        for number in np.flatnonzero(inside):
            pack, row = self.places[at[number]]
            candidates[self.packs[pack]].append((doc_ids[number], int(row)))
        return candidates


class Cache:
    """The results of one fingerprint."""

    def __init__(self, fingerprint: dict[str, Any]):
        self.folder = files.state_folder(FOLDER, files.digest(fingerprint)[:32])
        self._fingerprint = fingerprint
        self._index: Index | None = None

    def find(self, doc_ids: Sequence[str]) -> pa.Table | None:
        """Rows of ``doc_id`` and results of those documents that are known, in any order; None where there are none."""
        self._index = self._index or _index(sorted(self.folder.glob("*.parquet")))
        tables = []
        for pack, wanted in self._index.find(doc_ids).items():
            table = _read(pack)
            rows = [row for _, row in wanted]
            if table is None or max(rows) >= len(table):
                continue
            chosen = table.take(rows)
            same = pc.equal(chosen["doc_id"], pa.array([doc_id for doc_id, _ in wanted], pa.string()))
            tables.append(chosen.filter(same))
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
        name = files.digest(table["doc_id"].to_pylist())[:32]
        files.write_table(self.folder / f"{name}.parquet", table)


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


def _index(packs: list[Path]) -> Index:
    keys, places = [np.empty(0, np.uint64)], [np.empty((0, 2), np.uint32)]
    for number, pack in enumerate(packs):
        try:
            ids = pq.read_table(pack, columns=["doc_id"])["doc_id"].to_pylist()
        except (OSError, pa.ArrowException):
            continue
        keys.append(_keys(ids))
        rows = np.arange(len(ids), dtype=np.uint32)
        places.append(np.stack([np.full(len(ids), number, np.uint32), rows], axis=1))
    joined = np.concatenate(keys)
    order = np.argsort(joined, kind="stable")
    return Index(packs, joined[order], np.concatenate(places)[order])


def _keys(doc_ids: Sequence[str]) -> np.ndarray:
    return np.array([int(doc_id[:16], 16) for doc_id in doc_ids], dtype=np.uint64)


@lru_cache(maxsize=4)
def _read(pack: Path) -> pa.Table | None:
    try:
        return files.read_table(pack, "score", ["doc_id", *RESULTS])
    except (InputError, OSError):
        return None


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
