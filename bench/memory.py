"""Peak memory of scoring: of the driver and of a worker, for one corpus and for one twice as large.

    python -m bench.memory

Resident memory, looked at ten times a second while two workers score the corpus with pii. A scorer's own weight, and
what a part weighs, are in a worker's figure; a corpus' size must be in neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench import _corpus, report
from freshstart import params, scorers

PART_CHARACTERS, PARTS = 20_000_000, (50, 100)
RUN = """
import sys
from pathlib import Path
from freshstart import files
from freshstart.scoring.pool import score_parts
from freshstart.scoring.report import report
parts = [(path, Path(sys.argv[3], path.name)) for path in files.parts(Path(sys.argv[1]), 'bench')]
score_parts(parts, Path(sys.argv[2]), 'pii', 2)
report([target for _, target in parts])
"""


def main() -> None:
    everything = params.load()
    settings = scorers.settings(everything.block("scorer", "pii"), everything.where("scorer", "pii"))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scorers.make(settings, folder / "scorer")
        for parts in PARTS:
            characters = _corpus.write(folder / "corpus", parts, PART_CHARACTERS)
            rows.append({"characters": characters, "parts": parts, **_peaks(folder)})
            print(rows[-1], file=sys.stderr, flush=True)
            for below in ("corpus", "scored", "state"):
                shutil.rmtree(folder / below)
    report("memory", {"part_characters": PART_CHARACTERS, "workers": 2}, rows, ("ray", "pyarrow", "polars"))


def _peaks(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", RUN, *(str(folder / name) for name in ("corpus", "scorer", "scored"))]
    environment = os.environ | {"FRESHSTART_STATE": str(folder / "state"), "PYTHONPATH": os.getcwd()}
    begun = time.perf_counter()
    running = subprocess.Popen(command, env=environment)
    driver, worker = 0, 0
    while running.poll() is None:
        try:
            processes = [psutil.Process(running.pid)]
            driver = max(driver, processes[0].memory_info().rss)
            for child in processes[0].children(recursive=True):
                if child.name().startswith("ray::Worker"):
                    worker = max(worker, child.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.1)
    if running.returncode:
        sys.exit(f"scoring ended with {running.returncode}")
    return {
        "driver_gib": round(driver / 2**30, 3),
        "worker_gib": round(worker / 2**30, 3),
        "seconds": round(time.perf_counter() - begun, 1),
    }


if __name__ == "__main__":
    main()
