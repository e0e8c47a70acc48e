"""Documents from a person's own files: jsonl, json, csv, tsv, parquet or txt, each also .gz, .bz2, .xz or .zst.

A table holds one document a row (a ``.json`` file is one array of objects, or one object a line), a text file one a
line. In a folder ``.jsonl``, ``.csv`` and ``.parquet`` files are tables, and every other file is one document. Columns
are named by ``text`` and ``source``; without ``source`` each file is its own source. Rows are streamed; text must be
UTF-8. A line, a CSV row and an element of an array are held up to ``CorpusSettings.longest_row``, whatever a packed
file unpacks to; of a Parquet file ``BATCH_ROWS`` rows are held, however large their cells are. Files of s3://, gs://,
hf:// and http(s):// are read as those of the disk are (``remote``).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freshstart.corpora import LEAST_ROW, CorpusSettings, Document, Refusal, remote
from freshstart.errors import InputError
from freshstart.settings import listed

TABLES = (".jsonl", ".csv", ".parquet")
MAGIC = {b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd"}
BATCH_ROWS = 200  # of a Parquet file
PIECE = 1 << 20  # characters of a JSON array that are read at a time

File = Path | remote.Remote

# Yields the number of each row and what it holds or, as a tuple, why it is refused: reason and detail. Is told which
# columns are needed, and how many bytes or characters of a row may be held.
Reader = Callable[[File, Sequence[str], int], Iterator[tuple[int, Any]]]


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """``path`` is a file, folder or glob pattern, or a URL of one; ``text`` and ``source`` name columns of tables."""

    path: str
    text: str = "text"
    source: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.strip():
            raise ValueError("path is empty, which would mean the current folder: name a file, a folder or a pattern")
        if self.source == self.text:
            raise ValueError(
                f"source is {self.source}, the column of the texts, so that every document were a source of its own: "
                "name another column, or leave source out"
            )


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document, file by file in the order of their names."""
    source = [] if settings.source is None else [settings.source]
    for path, is_document in matching(settings.path):
        if is_document:
            yield whole(path, settings.longest_row)
        else:
            for place, row in rows(path, [settings.text, *source], settings.longest_row):
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


def matching(pattern: str) -> list[tuple[File, bool]]:
    """The files that a path, URL, folder or glob pattern means, each with whether it is one document as a whole."""
    path = Path(pattern)
    paths: Sequence[File]
    if remote.SCHEME.match(pattern):
        paths, is_folder = remote.matching(pattern)
    elif is_folder := path.is_dir():
        paths = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    else:
        anchor = Path(path.anchor)
        is_pattern = not path.is_file() and any(character in pattern for character in "*?[")
        paths = sorted(anchor.glob(str(path.relative_to(anchor)))) if is_pattern else [path]
        paths = [file for file in paths if file.is_file()]
    if not (paths or is_folder):
        raise InputError(f"{pattern}: no file found; give a file, a folder or a glob pattern")
    return [(file, is_folder and _ending(file) not in TABLES) for file in paths]


def rows(
    path: File, columns: Sequence[str], longest: int = LEAST_ROW
) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """Rows of a table (or lines of a text file, as column ``text``) with where each stands, as ``file:row``.

    A column that the first row lacks is an InputError, since its name is wrong; a later row without it is refused.
    Where no columns are named, rows have all of theirs.
    """
    check_name(path)
    number, is_first = 0, True
    try:
        for number, row in READERS[_ending(path)](path, columns, longest):
            place = f"{path}:{number}"
            if isinstance(row, dict):
                if is_first:
                    _need(columns, row, place)
                is_first = False
                missing = [name for name in columns if name not in row]
                refusal = (f"no column {listed(missing)}", f"it has {listed(row)}")
                row = refusal if missing else {name: row[name] for name in columns or row}
            elif not isinstance(row, tuple):
                row = ("not a JSON object", f"found {type(row).__name__}")
            yield place, row if isinstance(row, dict) else Refusal(place, *row)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: text is not UTF-8 after row {number} ({error.reason})") from None


def check_name(path: File) -> None:
    """Raises InputError where the ending is of no table that can be read here."""
    if _ending(path) not in READERS:
        raise InputError(f"{path}: expected one of {listed(READERS)} (each also {listed(UNPACK)}), or a folder")


def _text(path: File, columns: Sequence[str], longest: int) -> Iterator[tuple[int, Any]]:
    return _lines(path, lambda line: {"text": line.rstrip("\r\n")}, longest)


def _json(path: File, columns: Sequence[str], longest: int) -> Iterator[tuple[int, Any]]:
    with _opened(path) as file:
        is_array = _ending(path) == ".json" and file.read(80).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return _array(path, longest) if is_array else _lines(path, json.loads, longest)


def _lines(path: File, parse: Callable[[str], Any], longest: int) -> Iterator[tuple[int, Any]]:
    """What the lines that are not blank hold, by their number in the file."""
    with _opened(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(longest + 1), b""), 1):
            if len(raw) > longest:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(PIECE)
                yield number, ("line too long", f"more than {longest:,} bytes")
                continue
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, parse(line)
            except UnicodeDecodeError as error:
                yield number, ("text is not UTF-8", f"byte {error.start} of the line")
            except (ValueError, RecursionError) as error:  # the latter where it is nested too deeply
                yield number, ("not JSON", str(error))


def _array(path: File, longest: int = LEAST_ROW) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array; what is held is a piece of it, or its longest element."""
    decode, before, after = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*"), re.compile(r"\s*[,\]]")
    with _opened(path) as file:
        reader = io.TextIOWrapper(file, encoding="utf-8-sig")
        text, begin, number = (piece := reader.read(PIECE)).partition("[")[2], 0, 0
        while not text.startswith("]", begin := before.match(text, begin).end()):  # type: ignore[union-attr]
            try:
                value, end = decode(text, begin)
            except ValueError:
                end = len(text)
            except RecursionError as error:
                raise InputError(f"{path}: element {number + 1} is nested too deeply ({error})") from None
            if after.match(text, end):  # else it may be the beginning of a number
                begin, number = end, number + 1
                yield number, value
            elif len(text) - begin <= longest and (piece := reader.read(max(PIECE, len(text) - begin))):
                text, begin = text[begin:] + piece, 0  # the element may go on in the next piece
            else:
                problem = f"longer than {longest:,} characters" if piece else "cut short or not JSON"
                raise InputError(f"{path}: not a JSON array after element {number}: the next is {problem}")


def _csv(path: File, columns: Sequence[str], longest: int) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(longest)
    held = 0  # characters of the row

    def lines(file: io.TextIOWrapper) -> Iterator[str]:
        nonlocal held
        while line := file.readline(longest - held + 1):
            held += len(line)
            if held > longest:
                raise csv.Error(f"a row of more than {longest:,} characters, as an unclosed quote makes one")
            yield line

    with _opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(lines(text), strict=True, delimiter="\t" if _ending(path) == ".tsv" else ",")
        try:
            _need(columns, reader.fieldnames or (), f"{path}:1")
            for row in reader:
                held = 0
                is_whole = None not in row and None not in row.values()
                yield reader.line_num, row if is_whole else ("row with another number of fields than the header", "")
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not a CSV table ({error})") from None


def _parquet(path: File, columns: Sequence[str], longest: int) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path if isinstance(path, Path) else path.open()) as file:
            _need(columns, file.schema_arrow.names, str(path))
            batches = (
                batch
                for group in range(file.num_row_groups)  # one by one, since a reader of several keeps what it has read
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=list(columns) or None)
            )
            yield from enumerate((row for batch in batches for row in _decoded(batch)), 1)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({str(error).split(chr(10))[0]})") from None


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


def whole(path: File, longest: int) -> Document | Refusal:
    with _opened(path) as file:
        raw = file.read(longest + 1)
    if len(raw) > longest:
        return Refusal(str(path), "document too long", f"more than {longest:,} bytes")
    try:
        return Document(raw.decode("utf-8-sig"), path.name, {"path": str(path)})
    except UnicodeDecodeError as error:
        return Refusal(str(path), "text is not UTF-8", f"byte {error.start:,}")


@contextmanager
def _opened(path: File) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked; InputError where it is not what its ending says."""
    try:
        with _raw(path) as raw, UNPACK[path.suffix](raw) if path.suffix in UNPACK else raw as file:
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


def _raw(path: File) -> BinaryIO:
    return open(path, "rb") if isinstance(path, Path) else path.open()


def _open_zst(raw: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(raw, compression="zstd"))


READERS: dict[str, Reader] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _json),
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    ".txt": _text,
}
UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}


def _ending(path: File) -> str:
    """The ending that tells the kind of a file, before that of its packing."""
    return Path(path.stem).suffix if path.suffix in UNPACK else path.suffix


def _need(columns: Sequence[str], names: Iterable[str], place: str) -> None:
    """Raises InputError where a column is missing, or is there twice."""
    names = list(names)
    for column in columns:
        if (count := names.count(column)) != 1:
            problem = f"{count} columns are named {column}" if count else f"no column {column}"
            raise InputError(f"{place}: {problem}; it has {listed(names) or 'none'}")
