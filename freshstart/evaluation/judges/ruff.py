"""Faults that ruff finds in the code that could be read: pyflakes' rules (F), names (N) and likely bugs (B).

None of them is pycodestyle's. ruff is run once over all texts, as files of their parts in a temporary folder, with no
configuration, no cache and no ``# noqa``. Left out is what blames the cut: imports and exports whose use stands behind
it (counting them, real files cut as samples are came out worst of all), and a ``return`` or ``break`` whose block could
not be read. Violations are counted by nodes of the syntax tree, not by characters, so that comments and blank lines
dilute nothing; a text without a node gives it nothing to judge. Cost: 1,000 samples of 350 characters in about 0.5 s.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from freshstart.errors import InputError
from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import read

SUITS = "pep8"
FAMILIES = ("F", "N", "B")
LEFT_OUT = ("F401", "F822", "F701", "F702", "F704", "F706")  # they blame the cut, not the code
TARGET = "py311"


def judge(folder: Path, task: str) -> Judge:
    try:
        title = f"faults found by ruff {version('ruff')}, F N B"
    except PackageNotFoundError:
        raise InputError(
            "the judge ruff needs the package ruff: install it (pip install ruff), or leave it out of evaluate.judges"
        ) from None
    return Judge(title, "violations in 100 nodes of code", "guard", "lower", violations)


def violations(texts: Sequence[str]) -> list[float | None]:
    """Violations of F, N and B in 100 nodes of the code that could be read; None where there is none."""
    from ruff import find_ruff_bin

    codes = [read(text) for text in texts]
    with tempfile.TemporaryDirectory(prefix="freshstart-judge-") as folder:
        for index, code in enumerate(codes):
            if code.nodes:
                Path(folder, f"sample_{index}.py").write_text(code.source, encoding="utf-8", newline="")
        command = [find_ruff_bin(), "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--quiet"]
        command += ["--output-format", "json", "--target-version", TARGET, "--select", ",".join(FAMILIES)]
        command += ["--ignore", ",".join(LEFT_OUT), folder]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise InputError(f"ruff ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[:300]}")
    faults = [fault for fault in json.loads(done.stdout) if (fault["code"] or "").startswith(FAMILIES)]
    counts = Counter(Path(fault["filename"]).name for fault in faults)
    return [100 * counts[f"sample_{index}.py"] / code.nodes if code.nodes else None for index, code in enumerate(codes)]
