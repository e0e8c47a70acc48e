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
    taken, decay = set(map(id, muon)), settings.weight_decay
    modules = [model] if value_head is None else [model, value_head]
    rest = [p for module in modules for p in module.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": decay},
        {"params": [p for p in rest if p.ndim != 2], "weight_decay": 0.0},
    ]
    rate, betas = settings.learning_rate, (settings.beta1, settings.beta2)
    adamw = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=betas, fused=True)
    chosen: list[torch.optim.Optimizer] = [adamw]
    if muon:
        chosen.append(torch.optim.Muon(muon, lr=settings.muon_learning_rate, weight_decay=decay))
    for group in (group for optimizer in chosen for group in optimizer.param_groups):
        group["base"] = group["lr"]
    return chosen
