"""What a model was trained on, as its folder says; nothing for one that was trained elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

TABLE = "Trained on"
NAMES = ("positions", "text_tokens", "documents", "epochs")
METRICS = (
    Metric("tokens_seen.positions", "with control tokens", "positions", column="positions", optional=True),
    Metric("tokens_seen.text_tokens", "text tokens", "tokens", "", TABLE, "text tokens", "text_tokens", optional=True),
    Metric("tokens_seen.documents", "distinct documents", "", "", TABLE, "documents", "documents", optional=True),
    Metric("tokens_seen.epochs", "passes over them", "", "", TABLE, "epochs", "epochs", digits=2, optional=True),
    Metric("finetuned.objective", "objective that mle was finetuned with", "text", optional=True),
    Metric("finetuned.share", "share of mle's budget that came first", "share", optional=True),
    Metric("finetuned.from_positions", "positions that came first", "positions", optional=True),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    record = subject.record
    metrics: dict[str, Any] = {"tokens_seen": {name: record[name] for name in NAMES}} if "positions" in record else {}
    return metrics | ({"finetuned": record["finetuned"]} if "finetuned" in record else {})
