"""All that is measured of one subject, by the measures that the settings name, in their order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from freshstart.allocator import keep_memory
from freshstart.errors import InputError
from freshstart.evaluation import measure
from freshstart.evaluation.context import Context
from freshstart.evaluation.metrics import check, merged
from freshstart.evaluation.samples import write
from freshstart.evaluation.subject import Subject
from freshstart.progress import Progress


def evaluate(subject: Subject, context: Context, samples_file: Path, made_by: str) -> dict[str, Any]:
    """Write the samples of a subject and give its metrics, which are what the measures declare."""
    settings = context.settings
    subject = replace(subject, logit_gib=settings.logit_gib)
    room = subject.context - 2
    if settings.max_new_tokens > room:
        raise InputError(
            f"evaluate.{context.task}.max_new_tokens is {settings.max_new_tokens}: a context of {subject.context} "
            f"leaves {room} after the prompt"
        )
    torch.set_num_threads(settings.threads)
    keep_memory()
    measures = {name: measure(name) for name in settings.measures}
    metrics: dict[str, Any] = {"measures": list(measures), "controls": [entry.name for entry in subject.controls]}
    with Progress(f"evaluating {subject.name}", len(measures), "measures") as progress:
        for name, module in measures.items():
            merged(metrics, module.measure(subject, context))
            progress.advance(note=name)
    samples = [entry for part in context.samples(subject).values() for entry in part]
    write(samples_file, samples, context.columns)
    check(metrics, [metric for module in measures.values() for metric in module.METRICS], subject.name, made_by)
    return metrics
