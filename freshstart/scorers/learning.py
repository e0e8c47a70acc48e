"""What the scorers that learn from labelled text share: where rows come from, which are held out, what is measured.

``heldout_roc_auc`` is the chance that a bad text scores above a fine one; ``heldout_average_precision`` the mean share
of bad texts among the highest scored ones, down to each bad text. ``calibration`` lays the held-out texts in ten equal
bins of the score, read as a probability: in each, ``predicted`` is the mean score, ``observed`` the share that is bad.
``heldout_calibration_error`` is their mean distance over the texts (expected calibration error: Naeini, Cooper and
Hauskrecht 2015; Guo et al. 2017, arXiv 1706.04599, equation 3).

Both labels weigh the same, however many rows have them: a score of a half is what a text has that is as likely among
the bad ones as among the others, and not what the rows happen to be on the mean. The bins are weighted in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.scorers import ScorerSettings

LEAST_ROWS = 100
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``labelled`` is ``synthetic`` (the labelled sentences of the synthetic corpus, ``rows`` of them, a share
    ``noise`` with the wrong label) or a file, folder or pattern of jsonl, csv or parquet, where a row is bad whose
    column ``label`` holds one of ``bad``, texts or numbers. ``share_heldout`` of the rows measure the scorer and are
    not learned from."""

    labelled: str
    text: str = "text"
    label: str = "label"
    bad: tuple[bool | int | float | str, ...] = ("1",)
    rows: int = 8_000
    noise: float = 0.0
    seed: int = 0
    share_heldout: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share_heldout < 1 or not 0 <= self.noise < 0.5:
            raise ValueError("share_heldout must be between 0 and 1, and noise from 0 to below 0.5")
        if self.rows < LEAST_ROWS:
            raise ValueError(f"rows must be at least {LEAST_ROWS}, found {self.rows}")
        object.__setattr__(self, "bad", tuple(map(str, self.bad)))

    @property
    def reason(self) -> str:
        """What a reason is called: the one label that means bad, if it is a word, else the column of the labels."""
        if self.labelled == "synthetic":
            return "toxic"
        is_word = len(self.bad) == 1 and self.bad[0].isalpha() and self.bad[0].lower() != "true"
        return self.bad[0] if is_word else self.label


@dataclass(frozen=True)
class Rows:
    """Texts, and for each 1 where it is bad, else 0."""

    texts: list[str]
    labels: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """What each row weighs, on the mean 1: the rows of either label weigh half of all together."""
        return (len(self.labels) / (2 * np.bincount(self.labels, minlength=2)))[self.labels]


def divide(labelled: Iterable[tuple[str, int]], settings: Settings) -> tuple[Rows, Rows]:
    """Rows to learn from, and held-out ones: by the hash of the text, so that a repeated text is never among both, and
    sorted, so that what is learned does not depend on their order. Raises InputError where there are too few rows, or
    one label alone on a side."""
    learned, heldout = [], []
    for text, label in sorted(labelled):
        side = heldout if int(files.digest(text)[:8], 16) / 16**8 < settings.share_heldout else learned
        side.append((text, label))
    for name, side in (("learning", learned), ("held-out", heldout)):
        count = len(learned) + len(heldout)
        if count < LEAST_ROWS or len({label for _, label in side}) < 2:
            raise InputError(
                f"{settings.labelled}: {count} labelled rows, {len(side)} for {name}: expected at least "
                f"{LEAST_ROWS} rows and both labels on either side; is bad: [{', '.join(settings.bad)}] what column "
                f"{settings.label} holds?"
            )
    return tuple(
        Rows([text for text, _ in side], np.array([label for _, label in side])) for side in (learned, heldout)
    )


def metrics(learned: Rows, heldout: Rows, scores: Sequence[float]) -> dict[str, Any]:
    """Counts of the rows, and how good the scores of the held-out texts are."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, values = heldout.labels, np.asarray(scores, dtype=np.float64)
    bins = calibration(labels, values, heldout.weights)
    distances = [cell["weight"] * abs(cell["predicted"] - cell["observed"]) for cell in bins if cell["count"]]
    return {
        "rows": {"learned": len(learned.texts), "heldout": len(heldout.texts)},
        "share_bad": float(np.concatenate([learned.labels, labels]).mean()),
        "heldout_roc_auc": float(roc_auc_score(labels, values)),
        "heldout_average_precision": float(average_precision_score(labels, values)),
        "heldout_accuracy": float(((values >= 0.5) == labels).mean()),
        "heldout_calibration_error": sum(distances) / len(values),
        "calibration": bins,
    }


def calibration(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> list[dict[str, Any]]:
    """Ten bins of the score, from ``begin`` on, with the weight of their texts; a bin without texts has None for both
    shares."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    summed = (np.ones(len(scores)), weights, weights * scores, weights * labels)
    sums = (np.bincount(places, values, BINS).tolist() for values in summed)
    return [
        {
            "begin": number / BINS,
            "end": (number + 1) / BINS,
            "predicted": predicted / weight if count else None,
            "observed": observed / weight if count else None,
            "weight": weight,
            "count": int(count),
        }
        for number, (count, weight, predicted, observed) in enumerate(zip(*sums, strict=True))
    ]
