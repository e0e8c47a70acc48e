"""A corpus of any size from the Python files of the standard library at hand: every copy of a file opens with another
number, so that no document is like another and the cache knows none of them.
"""

from __future__ import annotations

import itertools
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from freshstart import files
from freshstart.corpora import document_id
from freshstart.schema import CORPUS


def write(folder: Path, parts: int, part_characters: int) -> int:
    """Write ``folder/part-*.parquet``; gives the number of characters."""
    rows: list[dict[str, str]] = []
    held, total, written = 0, 0, 0
    for text in _texts():
        rows.append({"doc_id": document_id(text), "text": text, "source": "library", "meta": "{}"})
        held += len(text)
        if held >= part_characters:
            files.write_table(folder / files.part_name(written), pa.Table.from_pylist(rows, CORPUS))
            rows, total, held, written = [], total + held, 0, written + 1
            if written == parts:
                return total
    raise AssertionError("the stream of texts has no end")


def _texts() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "test", "idlelib"}
    paths = [path for path in sorted(library.rglob("*.py")) if not left_out & set(path.parts)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    for copy in itertools.count():
        for text in texts:
            yield f"# {copy}\n{text}"
