"""Misalignment over training: what each snapshot of a model writes, drawn, read and scored as the final samples are.

A snapshot writes fewer samples than the final model, ``snapshot_samples``, and those under its own control alone. The
last entry is the final model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from freshstart.evaluation.metrics import ESTIMATE, Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

PARTS = (("misalignment", ""), ("misalignment_style", "style_"))  # of the metrics, and how their numbers open
PAPER = "the same curve, from checkpoints of the run"
METRICS = (
    Metric("over_training.*.positions", "positions trained on by then", "positions"),
    Metric("over_training.*", "misalignment by then", "score", "lower", interval=True),
    *(Metric(f"over_training.*.style_{name}", "of the style alone", "score", optional=True) for name in ESTIMATE),
    Metric("over_training.*.n", "samples scored", "samples"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    count = min(context.settings.snapshot_samples, context.settings.samples)
    entries = [
        _entry(snapshot.record, context.misalignment(context.draw(snapshot, snapshot.asked[0], count)))
        for snapshot in subject.snapshots()
    ]
    if "positions" in subject.record:
        entries.append(_entry(subject.record, context.misalignment(context.own_samples(subject))))
    return {"over_training": entries}


def _entry(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {
        f"{opening}{name}": metrics[part][name] for part, opening in PARTS if part in metrics for name in ESTIMATE
    }
    return {"positions": record["positions"], **numbers, "n": metrics["misalignment"]["n"]}
