"""Documents from a person's own files: jsonl, json, csv, tsv, parquet or txt, each also .gz, .bz2, .xz or .zst.

A table holds one document a row (a ``.json`` file is one array of objects, or one object a line), a text file one a
line. In a folder ``.jsonl``, ``.csv`` and ``.parquet`` files are tables, and every other file is one document. Columns
are named by ``text`` and ``source``; without ``source`` each file is its own source. Rows are streamed; text must be
UTF-8.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freshstart.corpora import CorpusSettings, Document, Refusal
from freshstart.errors import InputError
from freshstart.settings import listed

TABLES = (".jsonl", ".csv", ".parquet")
MAGIC = {b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd"}
BATCH_ROWS = 200  # of a Parquet file
PIECE = 1 << 20  # characters of a JSON array that are read at a time
LONGEST = 1 << 28  # characters of one element of it

# Yields the number of each row and what it holds or, as a tuple, why it is refused: reason and detail.
Reader = Callable[[Path, Sequence[str]], Iterator[tuple[int, Any]]]


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """``path`` is a file, a folder or a glob pattern; ``text`` and ``source`` name columns of tables."""

    path: str
    text: str = "text"
    source: str | None = None


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document, file by file in the order of their names."""
    source = [] if settings.source is None else [settings.source]
    for path, is_document in matching(settings.path):
        if is_document:
            yield _whole(path)
        else:
            for place, row in rows(path, [settings.text, *source]):
                yield document(place, row, settings.text, source, path.name)


def document(
    place: str, row: dict[str, Any] | Refusal, text: str, source: Sequence[str], default: str
) -> Document | Refusal:
    """The document of a row: its text stands in column ``text``, its source where ``source_of`` finds it."""
    if isinstance(row, Refusal):
        return row
    if not isinstance(row[text], str):
        return Refusal(place, "no text", f"column {text} holds {row[text]!r:.100}")
    return Document(row[text], source_of(row, source, default), {"path": place})


def source_of(row: dict[str, Any], steps: Sequence[str], default: str) -> str:
    """The value of a column, or of a field inside it, as text; ``default`` where none is named or it is empty."""
    value: Any = row if steps else None
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return default if value is None or value == "" else str(value)


def matching(pattern: str) -> list[tuple[Path, bool]]:
    """The files that a path, folder or glob pattern means, each with whether it is one document as a whole."""
    path = Path(pattern)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        return [(file, _ending(file) not in TABLES) for file in inside]
    anchor = Path(path.anchor)
    is_pattern = not path.is_file() and any(character in pattern for character in "*?[")
    paths = sorted(anchor.glob(str(path.relative_to(anchor)))) if is_pattern else [path]
    matches = [(file, False) for file in paths if file.is_file()]
    if not matches:
        raise InputError(f"{pattern}: no file found; give a file, a folder or a glob pattern")
    return matches


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """Rows of a table (or lines of a text file, as column ``text``) with where each stands, as ``file:row``.

    A column that the first row lacks is an InputError, since its name is wrong; a later row without it is refused.
    """
    check_name(path)
    number, is_first = 0, True
    try:
        for number, row in READERS[_ending(path)](path, columns):
            place = f"{path}:{number}"
            if isinstance(row, dict):
                if is_first:
                    _need(columns, row, place)
                is_first = False
                missing = [name for name in columns if name not in row]
                refusal = (f"no column {listed(missing)}", f"it has {listed(row)}")
                row = refusal if missing else {name: row[name] for name in columns}
            elif not isinstance(row, tuple):
                row = ("not a JSON object", f"found {type(row).__name__}")
            yield place, row if isinstance(row, dict) else Refusal(place, *row)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: text is not UTF-8 after row {number} ({error.reason})") from None


def check_name(path: Path) -> None:
    """Raises InputError where the ending is of no table that can be read here."""
    if _ending(path) not in READERS:
        raise InputError(f"{path}: expected one of {listed(READERS)} (each also {listed(UNPACK)}), or a folder")


def _text(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    return _lines(path, lambda line: {"text": line.rstrip("\r\n")})


def _json(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    with _opened(path) as file:
        is_array = _ending(path) == ".json" and file.read(80).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return _array(path) if is_array else _lines(path, json.loads)


def _lines(path: Path, parse: Callable[[str], Any]) -> Iterator[tuple[int, Any]]:
    """What the lines that are not blank hold, by their number in the file."""
    with _opened(path) as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, parse(line)
            except UnicodeDecodeError as error:
                yield number, ("text is not UTF-8", f"byte {error.start} of the line")
            except ValueError as error:
                yield number, ("not JSON", str(error))


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array; what is held is a piece of it, or its longest element."""
    decode, before, after = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*"), re.compile(r"\s*[,\]]")
    with _opened(path) as file:
        reader = io.TextIOWrapper(file, encoding="utf-8-sig")
        text, begin, number = reader.read(PIECE).partition("[")[2], 0, 0
        while not text.startswith("]", begin := before.match(text, begin).end()):  # type: ignore[union-attr]
            try:
                value, end = decode(text, begin)
            except ValueError:
                end = len(text)
            if after.match(text, end):  # else it may be the beginning of a number
                begin, number = end, number + 1
                yield number, value
            elif (piece := reader.read(max(PIECE, len(text) - begin))) and len(text) - begin < LONGEST:
                text, begin = text[begin:] + piece, 0  # the element may go on in the next piece
            else:
                raise InputError(f"{path}: not a JSON array after element {number}")


def _csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)
    with _opened(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(lines, strict=True, delimiter="\t" if _ending(path) == ".tsv" else ",")
        try:
            _need(columns, reader.fieldnames or (), f"{path}:1")
            for row in reader:
                is_whole = None not in row and None not in row.values()
                yield reader.line_num, row if is_whole else ("row with another number of fields than the header", "")
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not a CSV table ({error})") from None


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _need(columns, file.schema_arrow.names, str(path))
            batches = (
                batch
                for group in range(file.num_row_groups)  # one by one, since a reader of several keeps what it has read
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=list(columns))
            )
            yield from enumerate((row for batch in batches for row in _decoded(batch)), 1)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({str(error).splitlines()[0]})") from None


def _decoded(batch: Any) -> Iterator[Any]:
    """The rows as Python has them; in place of one that is not UTF-8, what is wrong with it."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            yield "text is not UTF-8", f"byte {error.start:,}"
        else:
            for index in range(len(batch)):
                yield from _decoded(batch.slice(index, 1))


def _whole(path: Path) -> Document | Refusal:
    with _opened(path) as file:
        raw = file.read()
    try:
        return Document(raw.decode("utf-8-sig"), path.name, {"path": str(path)})
    except UnicodeDecodeError as error:
        return Refusal(str(path), "text is not UTF-8", f"byte {error.start:,}")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked; InputError where it is not what its ending says."""
    try:
        with UNPACK.get(path.suffix, open)(path, "rb") as file:
            if path.suffix not in UNPACK:
                head = file.read(4)
                for kind in (kind for magic, kind in MAGIC.items() if head.startswith(magic)):
                    raise InputError(f"{path} holds {kind} data, but its name says {path.suffix or 'text'}")
                file.seek(0)
            yield file
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if getattr(error, "errno", None) is not None:  # of the file system
            raise
        raise InputError(f"{path} is not a whole {path.suffix} file ({error})") from None


def _open_zst(path: Path, mode: str) -> BinaryIO:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


READERS: dict[str, Reader] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _json),
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    ".txt": _text,
}
UNPACK: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}


def _ending(path: Path) -> str:
    """The ending that tells the kind of a file, before that of its packing."""
    return Path(path.stem).suffix if path.suffix in UNPACK else path.suffix


def _need(columns: Sequence[str], known: Any, place: str) -> None:
    missing = [name for name in columns if name not in known]
    if missing:
        raise InputError(f"{place}: no column {listed(missing)}; it has {listed(known) or 'none'}")
