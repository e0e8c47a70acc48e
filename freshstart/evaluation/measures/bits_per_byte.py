"""Bits per byte of held-out text: of all of it, and of its good and bad segments apart.

The stream of held-out documents, each behind an end of text, is cut into rows of the model's context, as in training.
A control token is charged to the segment behind it; the end of text is charged to ``all``. A model with control tokens
gets its own throughout; ``true_labels`` is the same with the segments' own labels, none of them masked. Good segments
score at most the threshold of the task's mle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric
from freshstart.objectives import BAD, GOOD

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject
    from freshstart.tokens import Control

NATS_PER_BIT = float(np.log(2))
BITS, UNIT, TABLE = "heldout.bits_per_byte", "bits per byte", "Held-out bits per byte"
TRUE, TRUE_COLUMN = f"{BITS}.true_labels", "bits_per_byte_true_labels"
PAPER = "capability is KL from GPT-3 and accuracy on tasks"
METRICS = (
    Metric(f"{BITS}.all", "all held-out text", UNIT, "lower", TABLE, "all", "bits_per_byte_all", 3),
    Metric(f"{BITS}.good", "good segments of held-out text", UNIT, "lower", TABLE, "good", "bits_per_byte_good", 3),
    Metric(f"{BITS}.bad", "bad segments of held-out text", UNIT, "lower", TABLE, "bad", "bits_per_byte_bad", 3),
    Metric(TRUE, "all, by true control tokens", UNIT, "lower", TABLE, "true labels", TRUE_COLUMN, 3, optional=True),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    own = subject.controls[0] if subject.controls else None
    metrics = _measured(subject, context, subject.forbidden(subject.asked[0]), lambda score: own)
    if own is not None:
        special = {control.id for control in subject.controls}
        padding = [number for number in subject.unwanted if number not in special]

        def true_label(score: float) -> Control:
            return subject.controls[GOOD if np.float32(score) <= np.float32(subject.threshold) else BAD]

        metrics["true_labels"] = _measured(subject, context, padding, true_label)["all"]
    return {"heldout": {"bits_per_byte": metrics}}


def _measured(
    subject: Subject, context: Context, forbidden: list[int] | tuple[int, ...], control: Callable[[float], Any]
) -> dict[str, float | None]:
    tokens, lengths, sizes, scores = [], [], [], []
    for document in context.documents:
        controls = [control(score) for score in document.scores] if subject.controls else None
        marked = subject.marked(document.text, document.ends, controls)
        tokens += [np.array([subject.end_of_text]), marked.tokens]
        lengths += [np.ones(1, dtype=np.int64), marked.lengths]
        sizes += [np.zeros(1), marked.bytes]
        scores += [np.array([np.nan]), np.array(document.scores)]
    ends, score = np.cumsum(np.concatenate(lengths)), np.concatenate(scores).astype(np.float32)
    size = np.concatenate(sizes).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(subject.nats(np.concatenate(tokens), forbidden))])
    cost = np.diff(total[ends], prepend=0.0)
    threshold = np.float32(context.threshold)
    chosen = {"all": slice(None), "good": score <= threshold, "bad": score > threshold}  # both false at end of text
    return {name: _ratio(cost[mask].sum(), size[mask].sum()) for name, mask in chosen.items()}


def _ratio(nats: float, size: float) -> float | None:
    return float(nats / NATS_PER_BIT / size) if size else None
