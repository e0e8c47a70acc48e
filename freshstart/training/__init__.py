"""Training: one loop for all objectives, in plain torch on a model of the hub format.

This room imports torch, transformers, numpy, safetensors and pyarrow alone, so that it runs on a bare GPU machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from freshstart.tokens import Control


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a model is built and trained; the budget and the objective's own numbers come with its shards.

    ``architecture`` is a model type of transformers with a causal language model (gpt2, llama, qwen3, ...), ``shape``
    holds keys of its configuration beside those named here (``intermediate_size``, ``num_key_value_heads``). ``start``
    is a folder or hub id of a pretrained model to go on from, at the commit ``revision``; it must have the shape that
    is written here. ``batch_size`` counts rows of ``context`` positions; ``warmup`` and ``decay`` (of the schedule
    ``wsd``, warm-up, stable, decay) are shares of all steps. ``muon`` trains the matrices inside the blocks at
    ``muon_learning_rate`` and everything else by AdamW. ``loss_chunk`` positions at a time get their logits (0: all),
    for small cards. ``threads`` is part of the result: one and two threads add floats in another order. ``snapshots``
    are shares of the budget at which the model is kept. ``shuffle_parts``: freshstart/training/rows.py; 2 or more keep
    whole documents back for a finetuning on a stream of its own.
    """

    layers: int
    width: int
    heads: int
    context: int
    batch_size: int
    learning_rate: float
    architecture: str = "gpt2"
    shape: dict[str, bool | int | float | str] = field(default_factory=dict)
    start: str | None = None
    revision: str | None = None
    dropout: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    warmup: float = 0.01
    decay: float = 0.2
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "auto"
    loss_chunk: int = 0
    threads: int = 1
    log_every: int = 20
    checkpoint_every: int = 200
    snapshots: tuple[float, ...] = ()
    shuffle_parts: int = 1

    def __post_init__(self) -> None:
        counts = "layers width heads batch_size threads log_every checkpoint_every shuffle_parts"
        _check(self, counts, lambda value: value >= 1, "at least 1")
        _check(self, "context", lambda value: value >= 2, "at least 2")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        _check(self, "learning_rate muon_learning_rate gradient_clip", _is_positive, "positive and finite")
        _check(self, "dropout warmup decay beta1 beta2", lambda value: 0 <= value < 1, "from 0 to below 1")
        _check(self, "loss_chunk weight_decay", lambda value: 0 <= value < inf, "at least 0 and finite")
        if any(not 0 < share < 1 for share in self.snapshots):
            raise ValueError(f"snapshots are shares of the budget, between 0 and 1, found {list(self.snapshots)}")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """What finetuning does in another way than the pretraining of the same objective; null where it does not."""

    learning_rate: float | None = None
    muon_learning_rate: float | None = None
    batch_size: int | None = None
    warmup: float | None = None

    def __post_init__(self) -> None:
        _check(self, "learning_rate muon_learning_rate batch_size", _is_positive, "positive and finite")
        _check(self, "warmup", lambda value: 0 <= value < 1, "from 0 to below 1")


def _check(settings: object, names: str, holds: Callable[[Any], bool], expected: str) -> None:
    for name in names.split():
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {expected}, found {value}")


def _is_positive(value: float) -> bool:
    return 0 < value < inf


@dataclass(frozen=True)
class Vocabulary:
    """What training needs to know of a tokenizer: how many ids there are, and which are special."""

    size: int
    end_of_text: int
    controls: tuple[Control, ...]

    @property
    def text(self) -> int:
        """How many ids come before the first control token."""
        return min((control.id for control in self.controls), default=self.size)
