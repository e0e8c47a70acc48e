"""Measurements: ``make bench`` runs every program here. Each prints one JSON document last and keeps it in
``reports/bench/<name>.json`` with the machine, the versions and the sizes. Compare ratios, not seconds: they are of
one run on one machine.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from freshstart import files


def report(name: str, sizes: dict[str, Any], rows: list[dict[str, Any]], packages: tuple[str, ...]) -> None:
    """Print what was measured and keep it."""
    document = {
        "bench": name,
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "versions": {package: version(package) for package in packages},
        "sizes": sizes,
        "rows": rows,
    }
    files.write_json(Path("reports/bench") / f"{name}.json", document)
    print(json.dumps(document, indent=2))


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
