"""A second scorer, described or learned in the block ``judge`` of the task's own: other labels, another method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freshstart.evaluation.judges import SECOND, Judge
from freshstart.scorers import JUDGE, load, of_texts

SUITS = SECOND


def judge(folder: Path, task: str) -> Judge:
    scorer, record = load(folder / JUDGE, task)

    def score(texts: Sequence[str]) -> list[float | None]:
        """The score of each whole text; None where its scoring raised."""
        return [result.scores[0] if result.scores else None for result in of_texts(scorer, texts)]

    return Judge(f"{record['kind']}, a second scorer", "mean score", "rival", "lower", score)
