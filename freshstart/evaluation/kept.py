"""Parts of long work, each kept in a file once it is done, so that a run that was killed goes on where it was.

A part is anything that JSON can hold, with its digest: one that is missing or damaged is None, and is made anew.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from freshstart import files


def keep(path: Path, part: Any) -> None:
    files.write_text(path, json.dumps({"part": part, "digest": files.digest(part)}))


def kept(path: Path) -> Any:
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["digest"] == files.digest(record["part"]):
            return record["part"]
    return None
