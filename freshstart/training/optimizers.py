"""AdamW over everything, or Muon over the matrices inside the blocks and AdamW over the rest.

AdamW: Loshchilov and Hutter 2019, no decay on vectors (biases, norms). Muon: Jordan et al. 2024.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from freshstart.training import TrainSettings

MOMENTUM, ITERATIONS, QUINTIC = 0.95, 5, (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps along a matrix that is near the orthogonal one closest to the momentum (Nesterov's).

    As ``torch.optim.Muon``, but in bfloat16 on a GPU alone: torch's is 20 to 30 times slower on a processor that has
    no instructions for it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                mean = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = orthogonal(weight.grad.lerp(mean, MOMENTUM))
                rows, columns = weight.shape
                weight.mul_(1 - rate * decay).add_(update, alpha=-rate * max(1, rows / columns) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with singular values of about 1 (.7 to 1.2, of very small ones less), by a Newton-Schulz iteration."""
    a, b, c = QUINTIC
    near = matrix.bfloat16() if matrix.is_cuda else matrix
    near = near.T if len(matrix) > matrix.shape[1] else near
    near = near / near.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = near @ near.T
        near = torch.addmm(near, torch.addmm(square, square, square, beta=b, alpha=c), near, beta=a)
    return (near.T if len(matrix) > matrix.shape[1] else near).to(matrix.dtype)


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
        chosen.append(Muon(muon, lr=settings.muon_learning_rate, weight_decay=decay))
    for group in (group for optimizer in chosen for group in optimizer.param_groups):
        group["base"] = group["lr"]
    return chosen
