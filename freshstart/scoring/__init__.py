"""From the corpus to the scored table: segments, the table's schema, the pool of workers and the parts they keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freshstart import files
from freshstart.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def read_part(path: Path, made_by: str, columns: Sequence[str] | None = None) -> pa.Table:
    """``files.read_table``, where a damaged page and text that is not UTF-8 are errors in one line too."""
    try:
        table = files.read_table(path, made_by, columns)
        table.validate(full=True)
        return table
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}): run `dvc repro -f {made_by}`") from None
