"""Share of lines that are a comment and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import line_share

SUITS = "pep8"


def judge(folder: Path, task: str) -> Judge:
    share = partial(line_share, counts=lambda line: line.startswith("#"))
    return Judge("comment lines", "share of lines", "guard", "lower", share)
