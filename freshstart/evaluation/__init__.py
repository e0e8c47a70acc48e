"""Evaluation: what a trained model writes, how bad it is, what it has lost, and how sure we are of each.

A *subject* is a model that can be asked; a *measure*, one file below ``measures``, asks it and gives metrics; a
*judge*, one file below ``judges``, says how bad texts are to someone else than the scorer that models are trained
against.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from freshstart.imports import code_digest
from freshstart.settings import kind, kinds, known

if TYPE_CHECKING:
    from freshstart.scorers import ScorerSettings

MEASURES = "freshstart.evaluation.measures"
JUDGES = "freshstart.evaluation.judges"
ROOM = "freshstart/evaluation/"
MLE = "mle"  # the reference that is the task's own mle model of the same seed
ALL = ("misalignment", "over_training", "judges", "bits_per_byte", "divergence", "diversity", "memory", "tokens_seen")


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """Who a model is compared with, by ``samples`` texts of at most ``tokens`` tokens that are drawn once.

    ``model`` is ``mle``, the task's own of the same seed; a folder or hub name of a causal language model, of which the
    latter needs ``revision``, the full hash of a commit; or an OpenAI-compatible endpoint, ``http://host:port/v1#model``.
    """

    model: str = MLE
    revision: str | None = None
    samples: int = 512
    tokens: int = 64

    def __post_init__(self) -> None:
        for name, least in (("samples", 2), ("tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision must be the full hash of a commit, found {self.revision!r}")

    @property
    def is_endpoint(self) -> bool:
        return self.model.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How a model is sampled and measured.

    ``samples`` texts of ``min_new_tokens`` to ``max_new_tokens`` text tokens are drawn at ``temperature`` from the
    nucleus ``top_p``, ``batch_size`` at a time (which changes a sample by rounding alone). A sample counts from
    ``min_characters`` on. ``reference`` is whom the divergence is measured from. Held-out text is read up to
    ``heldout_tokens``, as many rows at a time as ``logit_gib`` GiB of logits allow; samples are looked up in the first
    ``memory_tokens`` of the training stream. ``threads`` is part of the result, as in training.
    Each snapshot of the training writes ``snapshot_samples`` texts, but never more than ``samples``.

    ``measures`` are asked in their order. ``judges`` names the held-out judges of the samples; null takes those that
    suit the scorer. ``gold`` is a file of marked personal data on which the scorer's recall is measured, or null.
    ``prompts`` is a file of prompts, each continued ``continuations`` times by the measure ``prompted``.
    """

    samples: int
    max_new_tokens: int
    min_new_tokens: int = 10
    min_characters: int = 20
    temperature: float = 0.7
    top_p: float = 0.9
    batch_size: int = 256
    reference: ReferenceSettings = ReferenceSettings()
    heldout_tokens: int = 1_000_000
    logit_gib: float = 1.0
    memory_tokens: int = 5_000_000
    bootstrap: int = 2000
    snapshot_samples: int = 256
    threads: int = 1
    measures: tuple[str, ...] = ALL
    judges: tuple[str, ...] | None = None
    gold: str | None = None
    prompts: str | None = None
    continuations: int = 25

    def __post_init__(self) -> None:
        counts = "samples max_new_tokens batch_size bootstrap snapshot_samples continuations threads"
        for names, least in ((counts, 1), ("min_characters heldout_tokens memory_tokens", 0)):
            for name in names.split():
                if getattr(self, name) < least:
                    raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(f"min_new_tokens must be from 0 to max_new_tokens, found {self.min_new_tokens}")
        if not (0 < self.temperature < inf and 0 < self.top_p <= 1):
            raise ValueError("temperature must be above 0 and finite, and top_p above 0 and at most 1")
        for name, listed in (("measures", self.measures), ("judges", self.judges or ())):
            if len(set(listed)) < len(listed):
                raise ValueError(f"{name} names one twice: {', '.join(listed)}")
        if not self.logit_gib > 0:
            raise ValueError(f"logit_gib must be above 0, found {self.logit_gib}")


def check(settings: EvaluateSettings, where: str) -> None:
    """Raises InputError where a measure or a judge is named that there is none of."""
    for name in settings.measures:
        known(name, kinds(MEASURES), "measure", f"{where}.measures")
    for name in settings.judges or ():
        known(name, kinds(JUDGES), "judge", f"{where}.judges")


def resolved(
    settings: EvaluateSettings, scorer: ScorerSettings, second: ScorerSettings | None
) -> tuple[EvaluateSettings, dict[str, str]]:
    """The settings with the judges by name, and a digest of the code of each measure and judge that they name.

    ``second`` is the scorer in the block ``judge`` of the task's own.
    """
    from freshstart.evaluation.judges import suited

    judges = settings.judges
    if judges is None:
        wanted = suited(scorer, second)
        judges = tuple(name for name in kinds(JUDGES) if judge(name).SUITS in wanted)
    modules = {f"measures.{name}": f"{MEASURES}.{name}" for name in settings.measures}
    modules |= {f"judges.{name}": f"{JUDGES}.{name}" for name in judges}
    digests = {name: code_digest(module, below=ROOM) for name, module in modules.items()}
    return replace(settings, judges=judges), digests


def measure(name: str) -> Any:
    """The module of a measure: ``freshstart.evaluation.measures.Kind``."""
    return kind(MEASURES, name, "measure", "evaluate.<task>.measures")


def judge(name: str) -> Any:
    """The module of a judge: ``freshstart.evaluation.judges.Kind``."""
    return kind(JUDGES, name, "judge", "evaluate.<task>.judges")
