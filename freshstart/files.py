"""Reading and writing the files that pass between stages: whole or not at all.

Everything is written to a temporary name in the same folder, flushed to the disk and renamed, so that a file under its
final name is complete. Parquet is compressed with zstd and carries no time stamps: equal tables make equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart.errors import NO_SPACE, InputError

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 1 << 20


def state_folder(*below: str) -> Path:
    """The folder for what may be deleted at the cost of time alone: ``.state``, or where FRESHSTART_STATE points."""
    folder = Path(os.environ.get("FRESHSTART_STATE", ".state"), *below)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def written(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; on success it takes the final name, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_SPACE:
            error.filename = str(path)
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_text(path: Path | str, text: str) -> None:
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str, made_by: str) -> Any:
    """Read a JSON file that the stage ``made_by`` writes."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro {made_by}`") from None
    except ValueError as error:
        raise InputError(f"{path} is not whole JSON ({error}): run `dvc repro -f {made_by}`") from None


def sha256(path: Path | str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of anything JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def fresh_folder(path: Path | str) -> Path:
    """An empty folder at ``path``. What was there is removed: a stage owns its output whole."""
    path = Path(path)
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def parts(folder: Path | str, made_by: str) -> list[Path]:
    """The ``part-*.parquet`` files of a folder, in order; refuses a folder without any."""
    folder = Path(folder)
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        state = "is missing" if not folder.is_dir() else "holds no part-*.parquet"
        raise InputError(f"{folder} {state}: run `dvc repro {made_by}`")
    return paths


def part_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def write_table(path: Path | str, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with written(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=8192, write_page_checksum=True)


def read_table(path: Path | str, made_by: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet part, with an error that names it where it is damaged or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)} (it has {', '.join(file.schema_arrow.names)}): "
                    f"run `dvc repro -f {made_by}`"
                )
            table = file.read(columns=list(columns) if columns is not None else None)
            table.validate(full=True)  # raises where a text is not UTF-8
            return table
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro {made_by}`") from None
    except (pa.ArrowException, OSError) as error:  # of a damaged page: an OSError without a number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}): run `dvc repro -f {made_by}`") from None
