"""What a model was trained on, as its folder says; nothing for one that was trained elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

NAMES = {
    "positions": "positions trained on, control tokens included",
    "text_tokens": "text tokens trained on",
    "documents": "distinct documents",
    "epochs": "passes over them",
}
METRICS = (
    *(
        Metric(
            path=f"tokens_seen.{name}",
            meaning=meaning,
            optional=True,
            group="" if name == "positions" else "Trained on",
            title="" if name == "positions" else name.replace("_", " "),
            digits=2 if name == "epochs" else 0,
            column=name,
        )
        for name, meaning in NAMES.items()
    ),
    Metric(path="finetuned.objective", meaning="objective that mle was finetuned with", unit="text", optional=True),
    Metric(path="finetuned.share", meaning="share of mle's budget that came first", unit="share", optional=True),
    Metric(path="finetuned.from_positions", meaning="positions that came first", unit="positions", optional=True),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    record = subject.record
    metrics: dict[str, Any] = {"tokens_seen": {name: record[name] for name in NAMES}} if "positions" in record else {}
    return metrics | ({"finetuned": record["finetuned"]} if "finetuned" in record else {})
