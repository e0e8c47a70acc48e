"""Training: one loop for all objectives, in plain torch on a model of the hub format.

This room imports torch, transformers, numpy and safetensors alone, so that it runs on a bare GPU machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a model is built and trained; the budget and the objective's own numbers come with its shards.

    ``batch_size`` counts rows of ``context`` positions; ``warmup`` is a share of all steps. ``muon`` trains the
    matrices inside the blocks at ``muon_learning_rate`` and everything else by AdamW. ``threads`` is part of the
    result: one and two threads add floats in another order. ``snapshots`` are positions at which a model is kept.
    """

    layers: int
    width: int
    heads: int
    context: int
    batch_size: int
    learning_rate: float
    dropout: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "auto"
    threads: int = 1
    log_every: int = 20
    checkpoint_every: int = 200
    snapshots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context", "batch_size", "threads", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        for name in ("learning_rate", "muon_learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("dropout", "warmup", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, found {getattr(self, name)}")
