"""What training writes and reads back: a full disk and a damaged file end in one line.

The JSON record of a folder is written last. It holds the SHA-256 of the files beside it and a digest of itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from freshstart import card, files
from freshstart.errors import InputError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """``files.written``; what torch and safetensors make of a full disk becomes the OSError again that it was."""
    with files.written(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, SafetensorError) as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            failure = OSError(int(number[1]), os.strerror(int(number[1]))) if number else error.__context__
            if not isinstance(failure, OSError):
                raise
            raise failure from None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """With the SHA-256 of every file beside it but the card, which people may write on."""
    beside = sorted(
        file for file in path.parent.iterdir() if file.is_file() and file.name not in (path.name, card.FILE)
    )
    record = record | {"files": {file.name: files.sha256(file) for file in beside}}
    files.write_json(path, record | {"digest": files.digest(record)})


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Raises InputError, which ends in ``remedy``, unless it and the files that it names are as they were written."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        is_whole = record.pop("digest") == files.digest(record)
        changed = [name for name, sha256 in record["files"].items() if files.sha256(path.parent / name) != sha256]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing: {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole, changed = False, []
    if not is_whole or changed:
        names = ", ".join(changed) or path.name
        raise InputError(f"{path.parent}: {names} is not as it was written (its SHA-256 differs): {remedy}")
    return record
