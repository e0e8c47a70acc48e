"""Characters per second of the scorers that learn nothing, by number of workers.

python -m bench.scoring

Scores the Python files of the standard library at hand: for pep8 the files, for pii the same text as prose. Ray's
start-up is part of the time, so ratios to no workers grow with the corpus.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from bench import report
from freshstart import files, params, scorers
from freshstart.corpora import document_id
from freshstart.corpora.build import SCHEMA
from freshstart.scoring.pool import score_parts

PARTS, PART_CHARACTERS = 16, 250_000
WORKERS = (0, 1, 2)


def corpus(folder: Path) -> list[Path]:
    """The first ``PARTS`` parts of the standard library's files, in order of their paths."""
    library = Path(sysconfig.get_path("stdlib"))
    paths, rows, held = [], [], 0
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "idlelib"} & set(path.parts):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if not text.strip():
            continue
        rows.append({"doc_id": document_id(text), "text": text, "source": path.name, "meta": "{}"})
        held += len(text)
        if held >= PART_CHARACTERS:
            paths.append(folder / f"part-{len(paths):05d}.parquet")
            files.write_table(paths[-1], pa.Table.from_pylist(rows, SCHEMA))
            rows, held = [], 0
            if len(paths) == PARTS:
                break
    return paths


def main() -> None:
    everything = params.load()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = corpus(folder)
        characters = sum(sum(map(len, files.read_table(part, "bench", ["text"])["text"].to_pylist())) for part in parts)
        for task in ("pep8", "pii"):
            chosen = scorers.settings(everything.block("scorer", task), f"{everything.file}: scorer.{task}")
            files.write_json(folder / task / scorers.RECORD, {**scorers.describe(chosen), "files": {}})
            for workers in WORKERS:
                os.environ["FRESHSTART_STATE"] = str(folder / f"state-{task}-{workers}")
                begun = time.perf_counter()
                score_parts(parts, folder / task, task, workers)
                spent = time.perf_counter() - begun
                rows.append({"scorer": task, "workers": workers, "characters_per_second": round(characters / spent)})
    report("scoring", {"parts": len(parts), "characters": characters}, rows, ("pycodestyle", "scrubadub", "ray"))


if __name__ == "__main__":
    main()
