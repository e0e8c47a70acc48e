"""Documents from a person's own files: jsonl, csv, parquet, txt, or a folder of any of these; each also .gz or .zst.

A ``.jsonl``, ``.csv`` or ``.parquet`` file holds one document a row; a single ``.txt`` file holds one a line. In a
folder, tables are read row by row and every other file is one document. Columns are named by ``text`` and ``source``;
without ``source`` each file is its own source. Rows are streamed; files must be UTF-8.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freshstart.corpora import CorpusSettings, Document, Refusal
from freshstart.errors import InputError

TABLES = (".jsonl", ".csv", ".parquet")
PACKED = (".gz", ".zst")
BINARY = {b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd"}


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """``path`` is a file, a folder or a glob pattern; ``text`` and ``source`` name columns of tables."""

    path: str
    text: str = "text"
    source: str | None = None


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document, file by file in the order of their names."""
    wanted = [settings.text] + ([settings.source] if settings.source is not None else [])
    for path, whole in found(settings.path):
        if whole:
            yield _whole(path, settings)
            continue
        for place, row in rows(path, wanted):
            if isinstance(row, Refusal):
                yield row
                continue
            text = row[settings.text]
            if not isinstance(text, str):
                yield Refusal(place, "no text", f"column {settings.text} holds {text!r}")
                continue
            source = path.name if settings.source is None else str(row[settings.source])
            yield Document(text, source, {"path": place})


def found(pattern: str) -> list[tuple[Path, bool]]:
    """The files that a path, folder or glob pattern means, each with whether it is one document as a whole."""
    path = Path(pattern)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        listed = [(file, _suffix(file) not in TABLES) for file in inside]
    elif path.is_file():
        listed = [(path, False)]
    else:
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        matches = sorted(anchor.glob(str(path.relative_to(anchor)))) if any(c in pattern for c in "*?[") else []
        listed = [(file, False) for file in matches if file.is_file()]
    if not listed:
        raise InputError(f"{pattern}: no file found; give a file, a folder or a glob pattern")
    return listed


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """Rows of a table (or lines of a text file, as column ``text``) with where each stands, as ``file:row``."""
    suffix = _suffix(path)
    if suffix == ".parquet":
        yield from _parquet(path, columns)
        return
    if suffix not in (".jsonl", ".csv", ".txt"):
        raise InputError(f"{path}: expected .jsonl, .csv, .parquet or .txt (each also .gz or .zst), or a folder")
    with _opened(path) as file:
        if suffix == ".csv":
            yield from _csv(path, file, columns)
        else:
            for number, line in enumerate(file, 1):
                place = f"{path}:{number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield place, Refusal(place, "text is not UTF-8", f"byte {error.start} of the line")
                    continue
                if suffix == ".txt":
                    if text.strip():
                        yield place, {name: text.rstrip("\r\n") for name in columns}
                elif text.strip():
                    yield place, _json_row(text, columns, place)


def _json_row(text: str, columns: Sequence[str], place: str) -> dict[str, Any] | Refusal:
    try:
        row = json.loads(text)
    except ValueError as error:
        return Refusal(place, "not JSON", str(error))
    if not isinstance(row, dict):
        return Refusal(place, "not a JSON object", f"found {type(row).__name__}")
    _need(columns, row, place)
    return {name: row[name] for name in columns}


def _csv(path: Path, file: BinaryIO, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        _need(columns, reader.fieldnames or (), f"{path}:1")
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                yield place, Refusal(place, "row with another number of fields than the header")
            else:
                yield place, {name: row[name] for name in columns}
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: text is not UTF-8 after line {reader.line_num} ({error.reason})") from None
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a CSV table ({error})") from None


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _need(columns, file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise InputError(f"{path} is not a whole Parquet file ({str(error).splitlines()[0]})") from None


def _whole(path: Path, settings: Settings) -> Document | Refusal:
    with _opened(path) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Refusal(str(path), "text is not UTF-8", f"byte {error.start:,}")
    return Document(text, path.name, {"path": str(path)})


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked; one error where it is not what its ending says."""
    import pyarrow as pa

    packing = path.suffix if path.suffix in PACKED else ""
    try:
        if packing == ".gz":
            with gzip.open(path) as file:
                yield file  # type: ignore[misc]
        elif packing == ".zst":
            with pa.input_stream(str(path), compression="zstd") as stream, io.BufferedReader(stream) as file:
                yield file  # type: ignore[misc]
        else:
            with open(path, "rb") as file:
                head = file.read(4)
                for kind in (kind for magic, kind in BINARY.items() if head.startswith(magic)):
                    raise InputError(f"{path} holds {kind} data, but its name says {_suffix(path) or 'text'}")
                file.seek(0)
                yield file
    except (gzip.BadGzipFile, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is not a whole {packing} file ({error})") from None
    except OSError as error:
        if packing == ".zst" and error.errno is None:
            raise InputError(f"{path} is not a whole .zst file ({error})") from None
        raise


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def _need(columns: Sequence[str], known: Any, place: str) -> None:
    missing = [name for name in columns if name not in known]
    if missing:
        raise InputError(f"{place}: no column {', '.join(missing)}; it has {', '.join(map(str, known)) or 'none'}")
