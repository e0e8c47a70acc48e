"""What the scorers that learn from labelled text share: which rows are held out, and what is measured on those.

``heldout_roc_auc`` is the chance that a bad text scores above a fine one; ``heldout_average_precision`` the mean share
of bad texts among the highest scored ones, down to each bad text. ``calibration`` lays the held-out texts in ten equal
bins of the score, read as the probability that a text is bad: in each, ``predicted`` is the mean score, ``observed``
the share that is bad. ``heldout_calibration_error`` is the mean distance of the two over the held-out texts (expected
calibration error: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, arXiv 1706.04599, equation 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from freshstart import files
from freshstart.errors import InputError

LEAST_ROWS = 100
BINS = 10


class Labelling(Protocol):
    """The settings of a scorer that learns which say what its labelled rows are."""

    labelled: str
    label: str
    bad: tuple[str, ...]
    share_heldout: float


@dataclass(frozen=True)
class Rows:
    """Labelled texts: ``texts`` (objects), ``labels`` (1 where bad) and ``heldout`` (booleans), of one length."""

    texts: np.ndarray
    labels: np.ndarray
    heldout: np.ndarray

    @property
    def learned(self) -> tuple[list[str], np.ndarray]:
        return list(self.texts[~self.heldout]), self.labels[~self.heldout]

    @property
    def measured(self) -> tuple[list[str], np.ndarray]:
        return list(self.texts[self.heldout]), self.labels[self.heldout]


def divide(labelled: Iterable[tuple[str, int]], settings: Labelling) -> Rows:
    """Hold out a share of the rows by the hash of the text, so that a repeated text never stands on both sides.

    Raises InputError where there are too few rows, or one label alone on a side.
    """
    rows = list(labelled)
    heldout = [int(files.digest(text)[:8], 16) / 16**8 < settings.share_heldout for text, _ in rows]
    found = Rows(
        np.array([text for text, _ in rows], dtype=object),
        np.array([label for _, label in rows], dtype=np.int64),
        np.array(heldout, dtype=bool),
    )
    for name, (texts, labels) in (("learning", found.learned), ("held-out", found.measured)):
        if len(rows) < LEAST_ROWS or len(set(labels.tolist())) < 2:
            raise InputError(
                f"{settings.labelled}: {len(rows)} labelled rows, {len(texts)} for {name}: expected at least "
                f"{LEAST_ROWS} rows and both labels on either side; is bad: [{', '.join(settings.bad)}] what column "
                f"{settings.label} holds?"
            )
    return found


def metrics(rows: Rows, scores: Sequence[float]) -> dict[str, Any]:
    """Counts of the rows, and how good the scores of the held-out texts are."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    _, labels = rows.measured
    given = np.asarray(scores, dtype=np.float64)
    bins = calibration(labels, given)
    distances = [one["count"] * abs(one["predicted"] - one["observed"]) for one in bins if one["count"]]
    return {
        "rows": {"learned": int((~rows.heldout).sum()), "heldout": int(rows.heldout.sum())},
        "share_bad": float(rows.labels.mean()),
        "heldout_roc_auc": float(roc_auc_score(labels, given)),
        "heldout_average_precision": float(average_precision_score(labels, given)),
        "heldout_accuracy": float(((given >= 0.5) == labels).mean()),
        "heldout_calibration_error": sum(distances) / len(given),
        "calibration": bins,
    }


def calibration(labels: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """Ten bins of the score, from ``begin`` on; a bin without texts has None for both shares."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    table = []
    for number in range(BINS):
        inside = places == number
        count = int(inside.sum())
        table.append(
            {
                "begin": number / BINS,
                "end": (number + 1) / BINS,
                "predicted": float(scores[inside].mean()) if count else None,
                "observed": float(labels[inside].mean()) if count else None,
                "count": count,
            }
        )
    return table
