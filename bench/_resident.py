"""Resident memory of training, by kind of page, against the size of the shards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import _steps
from freshstart.tokens.store import Stream

SHARDS_MB, STEPS = (20, 2000), 300


def rows() -> Iterator[dict[str, Any]]:
    """One row a size: the peaks of a process of its own that trains on rows from all over the stream."""
    for megabytes in SHARDS_MB:
        with tempfile.TemporaryDirectory() as name:
            shards = Path(name, "shards")
            _steps.write(shards, int(megabytes * 1e6 / _steps.BYTES_PER_TOKEN), _steps.QUICK_VOCABULARY)
            written = sum(path.stat().st_size for path in shards.iterdir())
            command = "import sys; from bench._resident import on_shards; on_shards(sys.argv[1], int(sys.argv[2]))"
            running = subprocess.Popen([sys.executable, "-c", command, str(shards), str(STEPS)])
            peaks: dict[str, int] = {}
            while running.poll() is None:
                for key, kilobytes in resident(running.pid).items():
                    peaks[key] = max(peaks.get(key, 0), kilobytes)
                time.sleep(0.02)
            if running.returncode:
                sys.exit(f"training on {megabytes} MB of shards ended with {running.returncode}")
            yield {
                "shards_mb": round(written / 1e6),
                "steps": STEPS,
                "peak_resident_mib": round(peaks["VmHWM"] / 1024),
                "peak_anonymous_mib": round(peaks["RssAnon"] / 1024),
                "peak_file_mapped_mib": round(peaks["RssFile"] / 1024),
            }


def on_shards(folder: str, steps: int) -> None:
    """What the process that is watched does: train by mle on one thread."""
    settings = replace(_steps.QUICK, threads=1)
    stream = Stream.open(folder, "bench")
    _steps.ours("mle", stream, settings, _steps.QUICK_VOCABULARY, steps, torch.device("cpu"))


def resident(process: int) -> dict[str, int]:
    """Resident memory of a process in KiB by kind, from /proc; empty once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines if line.startswith(("VmHWM:", "RssAnon:", "RssFile:")))
    return {key.rstrip(":"): int(value) for key, value, _ in words}
