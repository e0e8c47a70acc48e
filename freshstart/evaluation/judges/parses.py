"""Whether a whole text is Python: 1, else 0."""

from __future__ import annotations

from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import read

SUITS = "pep8"


def judge(folder: Path, task: str) -> Judge:
    title, unit = "parsing as Python", "share of samples"
    return Judge(title, unit, "guard", "higher", lambda texts: [float(read(text).whole) for text in texts])
