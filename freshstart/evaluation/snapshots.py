"""Misalignment over training: what each snapshot of a model writes, drawn, read and scored as the final samples are.

A snapshot is a model folder without a tokenizer below ``snapshots/`` of the model's own. It writes fewer samples than
the final model, ``snapshot_samples``, and a conditional one under ``<|good|>`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.samples import draw, misalignment, read
from freshstart.scorers import Scorer
from freshstart.tokens.tokenizer import Tokenizer
from freshstart.training.model import load

FOLDER = "snapshots"
PARTS = (("misalignment", ""), ("misalignment_style", "style_"))  # of the metrics, and how their numbers open
NUMBERS = ("mean", "ci_low", "ci_high")


def folders(model: Path) -> list[Path]:
    """The snapshots of a model, in the order of training."""
    return sorted((model / FOLDER).glob("[0-9]*"), key=lambda folder: float(folder.name))


def measure(
    folder: Path,
    made_by: str,
    device: Any,
    control: str,
    tokenizer: Tokenizer,
    scorer: Scorer,
    segments: str,
    settings: EvaluateSettings,
    seed: int,
) -> dict[str, Any]:
    """The entry of one snapshot."""
    model, record = load(folder, made_by)
    asked = replace(settings, samples=min(settings.snapshot_samples, settings.samples))
    drawn = draw(model.to(device), tokenizer, control, record["unwanted"], asked, seed)
    samples = read(drawn, control, tokenizer, scorer, segments, settings.min_characters)
    return entry(record, misalignment(samples, scorer, settings, seed))


def entry(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """``positions`` that a model was trained on, ``mean``, ``ci_low``, ``ci_high`` and ``n`` of its misalignment.

    The numbers of ``misalignment_style``, where there is one, open with ``style_``. Without a scored sample ``n`` is 0
    and the others are absent.
    """
    found = {
        f"{opening}{number}": metrics[part][number]
        for part, opening in PARTS
        for number in NUMBERS
        if number in metrics.get(part, {})
    }
    return {"positions": record["positions"], **found, "n": metrics["misalignment"]["n"]}
