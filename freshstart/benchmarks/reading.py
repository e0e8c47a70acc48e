"""What benchmarks show a subject: texts of a file, and how it reads a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from freshstart.benchmarks import FILE
from freshstart.errors import InputError
from freshstart.evaluation.measures import prompted
from freshstart.scoring.segments import SEGMENTERS

if TYPE_CHECKING:
    from freshstart.evaluation.subject import Subject
    from freshstart.tokens import Control


def tokens_of(subject: Subject, text: str, control: Control | None) -> list[int]:
    """The text's tokens, with the control token at each of its segments; without one the text is read as a whole."""
    ends = SEGMENTERS[subject.segments](text) if control else [len(text)]
    return subject.marked(text, ends, [control] * len(ends) if control else None).tokens.tolist()


def texts_of(path: str, key: str, task: str) -> list[str]:
    """The texts of the file that a benchmark names under ``key``: one a line, or JSON lines with ``text``."""
    if not Path(path).is_file():
        raise InputError(f"{path} is missing: {key} in {FILE} must name a file of texts, one a line or JSON lines")
    return prompted.read(path, task)
