"""What learns: a model, its value head where the objective asks for one, and the objective's loss, as one module.

One forward pass reads a micro-batch and gives the mean of the objective's losses, so that a compiler and DDP see all
of it. Objectives differ only above the log p of each token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from freshstart.objectives import Numbers, Objective
from freshstart.training.launch import Group
from freshstart.training.model import ValueHead, hidden_states, token_logprobs


class Trainee(nn.Module):
    """(tokens, scores) to (loss, terms): (rows, positions + 1) int64, (rows, positions) fp32."""

    def __init__(self, model: Any, objective: Objective, numbers: Numbers, low: bool, chunk: int, group: Group):
        super().__init__()
        self.model = model
        self.value_head = ValueHead(model.config.hidden_size).to(model.device) if objective.value_head else None
        self.objective = objective
        self.numbers = {  # lists go to the device once, not at every step
            name: torch.tensor(value, dtype=torch.float32, device=group.device) if isinstance(value, list) else value
            for name, value in numbers.items()
        }
        self.low, self.chunk, self.group = low, chunk, group

    def forward(self, tokens: Tensor, scores: Tensor, mean_weight: Tensor | None = None):
        """``mean_weight`` is that of the whole batch, for objectives that bring their weights to mean 1 over it."""
        with self._precision():
            hidden = hidden_states(self.model, tokens[:, :-1])
            logp = token_logprobs(hidden, self.model.get_output_embeddings().weight, tokens[:, 1:], self.chunk)
            value = self._value(hidden)
        numbers = self.numbers
        if self.objective.weigh is not None:
            if mean_weight is None and self.group.count > 1:
                mean_weight = self._mean(self.objective.weigh(scores, value.detach(), numbers))
            if mean_weight is not None:
                numbers = {**numbers, "mean_weight": mean_weight}
        losses, terms = self.objective.loss(logp, scores, value, numbers)
        loss = losses.mean()
        found = {"loss": loss, "nll": -logp.mean(), **terms}
        return loss, {name: term.detach() for name, term in found.items()}

    @torch.no_grad()
    def mean_weight(self, pieces: list[tuple[Tensor, Tensor]], seeded: Callable[[int], None]) -> Tensor | None:
        """The mean weight of a batch that is read in several pieces; None where the objective does not ask for it.

        ``seeded`` sets the random numbers of a piece. Costs a forward pass over the batch.
        """
        if self.objective.weigh is None:
            return None
        total = torch.zeros(2, dtype=torch.float64, device=self.group.device)
        for number, (tokens, scores) in enumerate(pieces):
            seeded(number)
            with self._precision():
                value = self._value(hidden_states(self.model, tokens[:, :-1]))
            total += torch.stack(self.objective.weigh(scores, value, self.numbers)).double()
        return self._mean((total[0], total[1]))

    def _value(self, hidden: Tensor) -> Tensor | None:
        if self.value_head is None:
            return None
        return self.value_head(hidden.detach() if self.numbers["detach"] else hidden)

    def _mean(self, weights: tuple[Tensor, Tensor]) -> Tensor:
        total, count = self.group.add(torch.stack(weights))
        return total / count

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.group.device.type, dtype=torch.bfloat16, enabled=self.low)
