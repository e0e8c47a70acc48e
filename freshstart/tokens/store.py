"""The token store: real ``.npy`` files, written as a stream, read by ``np.load(path, mmap_mode="r")``.

A stream folder holds ``tokens`` (uint16, or uint32 for large vocabularies), ``segment_ends`` (int64, in tokens) with
``segment_scores`` (float32; NaN for the end-of-text and control tokens, which stand in spans of their own), and
``document_ends`` (int64, in tokens). The spans of the segments tile the stream.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError

MANIFEST = "manifest.json"
FORMAT = 1
ARRAYS = {"segment_ends": np.dtype("i8"), "segment_scores": np.dtype("f4"), "document_ends": np.dtype("i8")}
_HEADER_BYTES = 128


class NpyWriter:
    """Append to a ``.npy`` file whose length is known only at the end; of rows where the dtype has a shape."""

    def __init__(self, path: Path, dtype: np.dtype):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dtype, self.length = dtype, 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._file.write(self._header())

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype.base).tobytes())
        self.length += len(values)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        shape = (self.length, *self.dtype.shape)
        text = f"{{'descr': {self.dtype.base.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
        padded = text.ljust(_HEADER_BYTES - 11) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("ascii")


class StreamWriter(ExitStack):
    """Append documents to a stream folder; ``others`` are the dtypes of arrays beside those of every stream."""

    def __init__(self, folder: Path, dtype: np.dtype, **others: np.dtype):
        super().__init__()
        arrays = {"tokens": dtype, **ARRAYS, **others}
        self._writers = {name: self.enter_context(NpyWriter(folder / f"{name}.npy", arrays[name])) for name in arrays}

    def append(
        self, tokens: np.ndarray, lengths: np.ndarray, scores: np.ndarray, sizes: np.ndarray, **others: np.ndarray
    ) -> None:
        """Documents of these ``sizes``, and their spans, with the ``lengths`` and scores of these; sizes in tokens."""
        begin = self._writers["tokens"].length
        ends = {"segment_ends": begin + np.cumsum(lengths), "document_ends": begin + np.cumsum(sizes)}
        for name, values in {"tokens": tokens, **ends, "segment_scores": scores, **others}.items():
            self._writers[name].append(values)


@dataclass(frozen=True)
class Stream:
    """The arrays of a stream folder, memory-mapped."""

    tokens: np.ndarray
    segment_ends: np.ndarray
    segment_scores: np.ndarray
    document_ends: np.ndarray

    @classmethod
    def open(cls, folder: Path | str, task: str) -> Stream:
        """Map a stream folder, refusing one whose files are not those that its manifest was written with.

        Cost: each file is read once, about a second a gigabyte; what is mapped later is then in the system's cache.
        """
        folder = Path(folder)
        if (folder / MANIFEST).exists():
            for name, digest in read_manifest(folder, f"tokens@{task}")["sha256"].items():
                if not (folder / name).is_file() or files.sha256(folder / name) != digest:
                    raise InputError(f"{folder / name} is missing or damaged: run `dvc repro -f tokens@{task}`")
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", *ARRAYS)})

    def release(self) -> None:
        """Unmap what has been read, for the memory's sake: it stays in the system's cache of files."""
        for array in vars(self).values():
            mapped = getattr(array, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def scores(self, begin: int, end: int) -> np.ndarray:
        """The score of each token in [begin, end), float32, from the span that holds it. Cost: one search.

        The search key is an int64 scalar: any other type would cast the whole array of ends at each call.
        """
        first = np.searchsorted(self.segment_ends, np.int64(begin), side="right")
        last = np.searchsorted(self.segment_ends, np.int64(end), side="left")
        ends = np.minimum(self.segment_ends[first : last + 1], end)
        lengths = np.diff(ends, prepend=begin)
        return np.repeat(self.segment_scores[first : last + 1], lengths)


def write_manifest(folder: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a folder whose arrays are written, with their digests; gives it."""
    digests = {path.name: files.sha256(path) for path in sorted(folder.glob("*.npy"))}
    manifest = {"format": FORMAT, **entries, "sha256": digests}
    manifest["manifest_sha256"] = files.digest(manifest)
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path | str, made_by: str) -> dict[str, Any]:
    manifest = files.read_json(Path(folder) / MANIFEST, made_by)
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder}/{MANIFEST} has format {manifest.get('format')}, this version reads {FORMAT}: "
            f"run `dvc repro -f {made_by}`"
        )
    entries = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    if manifest.get("manifest_sha256", digest := files.digest(entries)) != digest:
        raise InputError(f"{folder}/{MANIFEST} is damaged: run `dvc repro -f {made_by}`")
    return manifest
