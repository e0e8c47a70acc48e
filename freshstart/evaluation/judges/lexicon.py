"""The words that the synthetic corpus knows to be abuse: 1 for a text that holds one of them, also as a plural."""

from __future__ import annotations

import re
from pathlib import Path

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation.judges import SYNTHETIC, Judge
from freshstart.scorers import LEXICON

SUITS = SYNTHETIC


def judge(folder: Path, task: str) -> Judge:
    if not (folder / LEXICON).is_file():
        raise InputError(
            f"the judge lexicon needs {folder / LEXICON}, which the scorer stage writes for scorers learned from "
            "synthetic text alone: leave it out of evaluate.judges"
        )
    words = files.read_json(folder / LEXICON, f"scorer@{task}")
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})s?\b", re.IGNORECASE)
    title, unit = "lexicon of known abuse", "share of samples that use it"
    return Judge(title, unit, "rival", "lower", lambda texts: [float(bool(pattern.search(text))) for text in texts])
