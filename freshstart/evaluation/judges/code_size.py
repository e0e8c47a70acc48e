"""Nodes of the syntax tree in 1,000 characters of a text, whether they could be read or not."""

from __future__ import annotations

from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.python_code import read

SUITS = "pep8"


def judge(folder: Path, task: str) -> Judge:
    title, unit = "amount of code", "syntax nodes in 1,000 characters"
    return Judge(title, unit, "guard", "higher", lambda texts: [1000 * read(text).nodes / len(text) for text in texts])
