"""A second scorer, described or learned in the block ``judge`` of the task's own: other labels, another method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freshstart.evaluation.judges import Judge
from freshstart.scorers import JUDGE, ScorerSettings, load


def suits(scorer: ScorerSettings, second: ScorerSettings | None) -> bool:
    return second is not None


def judge(folder: Path, task: str) -> Judge:
    scorer, record = load(folder / JUDGE, task)

    def score(texts: Sequence[str]) -> list[float | None]:
        """The score of each whole text; None where its scoring raised."""
        return [one.scores[0] if one.scores else None for one in scorer.score([(text, [len(text)]) for text in texts])]

    return Judge(f"{record['kind']}, a second scorer", "mean score", "rival", "lower", score)
