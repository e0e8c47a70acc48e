"""Whether a whole text is Python: 1, else 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import read

SUITS = "pep8"


def judge(folder: Path, task: str) -> Judge:
    return Judge("parsing as Python", "share of samples", "guard", "higher", score)


def score(texts: Sequence[str]) -> list[float]:
    return [float(read(text).whole) for text in texts]
