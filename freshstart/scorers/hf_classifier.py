"""Any text-classification model in the hub's format, by folder or hub id: the probability of one of its labels.

``activation`` says what the outputs mean: ``softmax`` (one of the labels holds) or ``sigmoid`` (each holds or not).
``direction: inverted`` scores one minus the probability, for a label that is good. A hub id needs ``revision``, the
full hash of a commit. A local model is copied into the scorer's folder; a hub model stays in the hub's cache, held to
the digests of its files. No code of a model is run. Windows and batches: ``freshstart.scorers.neural``.
Cost: a BERT-base runs about 500 tokens a second on one core.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from freshstart import files
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
        known = neural.facts(folder)
        where = f"model {settings.model}"
        is_here = (folder / "config.json").is_file()
        source = folder if is_here else _from_hub(settings.model, settings.revision, where)
        for name, digest in known.get("hub_files", {}).items():
            if files.sha256(source / name) != digest:
                raise InputError(f"{where}: {source / name} is not the file that the scorer stage saw: delete it")
        self.network = neural.load_hub_format(source, settings.precision, where)
        self._label = _place(self.network.model.config, settings.label, where)
        self._softmax = settings.activation == "softmax"
        self._inverted = settings.direction == "inverted"
        if self._softmax and self.network.model.config.num_labels < 2:
            raise InputError(f"{where} has one output: write activation: sigmoid")

    def badness(self, logits: Sequence[float]) -> float:
        value = logits[self._label]
        if self._softmax:
            top = max(logits)
            probability = math.exp(value - top) / sum(math.exp(one - top) for one in logits)
        else:
            probability = sigmoid(value)
        return 1 - probability if self._inverted else probability


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Copy a local model into ``folder``, or fetch a hub model; gives the digests of what stays in the hub's cache."""
    where = f"model {settings.model}"
    source = Path(settings.model)
    known: dict[str, Any] = {}
    if source.is_dir():
        names = neural.copy(source, folder, (*neural.TEXT_FILES, *neural.WEIGHT_FILES))
        if not any(name.endswith(".safetensors") for name in names):
            neural.copy(source, folder, neural.PICKLED_FILES)
    elif settings.revision is None:
        raise InputError(f"{where} is no folder here: give one, or a hub id and in revision the full hash of a commit")
    else:
        source = _from_hub(settings.model, settings.revision, where)
        known["hub_files"] = {
            path.name: files.sha256(path)
            for path in sorted(source.iterdir())
            if path.suffix != ".md" and path.is_file()
        }
    scorer = HubClassifier(folder, settings)
    labels = [scorer.network.model.config.id2label[number] for number in range(scorer.network.model.config.num_labels)]
    return {**known, "limit": scorer.network.limit, "labels": labels}


def _from_hub(name: str, revision: str | None, where: str) -> Path:
    files_of_it = (*neural.TEXT_FILES, *neural.WEIGHT_FILES)
    source = neural.fetch(name, revision, files_of_it, where, "scorer.<task>.model")
    if not any(source.glob("*.safetensors")):
        source = neural.fetch(name, revision, (*files_of_it, *neural.PICKLED_FILES), where, "scorer.<task>.model")
    return source


def _place(config: Any, label: str, where: str) -> int:
    names = {int(number): name for number, name in config.id2label.items()}
    found = [number for number, name in names.items() if name == label]
    if not found and label.isdigit() and int(label) in names:
        found = [int(label)]
    if len(found) != 1:
        listed = ", ".join(f"{number} {name}" for number, name in sorted(names.items()))
        raise InputError(f"{where} has no label {label!r}; it has {listed}")
    return found[0]


SCORER = HubClassifier
