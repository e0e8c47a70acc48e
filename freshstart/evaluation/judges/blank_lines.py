"""Share of lines with nothing on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import line_share

SUITS = "pep8"


def judge(folder: Path, task: str) -> Judge:
    return Judge("blank lines", "share of lines", "guard", "lower", score)


def score(texts: Sequence[str]) -> list[float]:
    return line_share(texts, lambda line: not line)
