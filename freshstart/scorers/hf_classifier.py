"""Any text-classification model in the hub's format, by folder or hub id: the probability of one of its labels.

``activation`` says what the outputs mean: ``softmax`` (one of the labels holds) or ``sigmoid`` (each holds or not).
``direction: inverted`` scores one minus the probability, for a label that is good. A hub id needs ``revision``, the
full hash of a commit. The model is copied into the scorer's folder: scoring needs no connection. No code of a model is
run. Windows and batches: ``freshstart.scorers.neural``.
Cost: a BERT-base runs about 500 tokens a second on one core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from freshstart.errors import InputError
from freshstart.scorers import ScorerSettings, neural, pinned


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``model`` is a folder or a hub id; ``label`` the name of an output in its config, or its number."""

    transformers: str
    model: str
    label: str
    revision: str | None = None
    direction: Literal["worse", "inverted"] = "worse"
    activation: Literal["sigmoid", "softmax"] = "softmax"
    precision: neural.Precision = "fp32"

    def __post_init__(self) -> None:
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision must be the 40 hexadecimal digits of a commit, found {self.revision!r}")


class HubClassifier(neural.NeuralScorer):
    version = "1"

    def __init__(self, folder: Path, settings: Settings):
        pinned(transformers=settings.transformers)
        super().__init__(folder, settings.label, settings.precision, f"model {settings.model}")
        self._softmax, self._inverted = settings.activation == "softmax", settings.direction == "inverted"
        if self._softmax and len(self.network.labels) < 2:
            raise InputError(f"model {settings.model} has one output: write activation: sigmoid")

    def badness(self, logits: Sequence[float]) -> float:
        from scipy.special import softmax

        probability = float(softmax(logits)[self.output]) if self._softmax else super().badness(logits)
        return 1 - probability if self._inverted else probability


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Copy the model into ``folder``; gives what it reads and its labels."""
    source = neural.model_folder(settings.model, settings.revision, f"model {settings.model}", "scorer.<task>.model")
    neural.copy(source, folder)
    network = HubClassifier(folder, settings).network
    return {"limit": network.limit, "labels": network.labels}


SCORER = HubClassifier
