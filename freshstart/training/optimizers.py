"""AdamW over everything, or Muon over the matrices inside the blocks and AdamW over the rest.

AdamW: Loshchilov and Hutter 2019, no decay on vectors (biases, norms). Muon: Jordan et al. 2024, as in torch.
"""

from __future__ import annotations

import torch
from torch import nn

from freshstart.training import TrainSettings


def optimizers(model: nn.Module, value_head: nn.Module | None, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers of a run; each of their groups keeps its learning rate before the schedule as ``base``."""
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    inside = [p for p in model.base_model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    muon = inside if settings.optimizer == "muon" else []
    taken = {id(p) for p in muon}
    rest = [
        p for module in (model, value_head) if module is not None for p in module.parameters() if id(p) not in taken
    ]
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim != 2], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=betas, fused=True)
    ]
    if muon:
        rate = settings.muon_learning_rate
        made.append(torch.optim.Muon(muon, lr=rate, weight_decay=settings.weight_decay))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return made


def set_rate(made: list[torch.optim.Optimizer], factor: float) -> None:
    """Bring every group to ``factor`` of its base learning rate."""
    for optimizer in made:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
