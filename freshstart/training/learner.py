"""What learns: a model, its value head where the objective needs one, and the objective's loss, as one module.

One forward pass reads a micro-batch and gives the mean of the objective's losses, so that a compiler and DDP see all
of it. Objectives differ only above the log p of each token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from freshstart.objectives import Batch, Numbers, Objective
from freshstart.training import TrainSettings
from freshstart.training.launch import Group
from freshstart.training.model import ValueHead, hidden_states, token_logprobs


class Learner(nn.Module):
    """(tokens, scores) to (loss, terms): (rows, positions + 1) int64, (rows, positions) fp32.

    ``reference`` is the model that the run began from, for objectives that need it; it stays as it is.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        numbers: Numbers,
        settings: TrainSettings,
        group: Group,
        reference: Any = None,
    ):
        super().__init__()
        self.model = model
        self.value_head = ValueHead(model.config.hidden_size).to(model.device) if objective.needs.value_head else None
        self.reference = reference.requires_grad_(False).eval() if reference is not None else None
        self.objective = objective
        self.numbers = {  # lists go to the device once, not at every step
            name: torch.tensor(value, dtype=torch.float32, device=group.device) if isinstance(value, list) else value
            for name, value in numbers.items()
        }
        self.low, self.chunk, self.group = settings.precision == "bf16", settings.loss_chunk, group

    def forward(self, tokens: Tensor, scores: Tensor, mean_weight: Tensor | None = None):
        """``mean_weight`` is that of the whole batch, for objectives that bring their weights to mean 1 over it."""
        with self._precision():
            hidden = hidden_states(self.model, tokens[:, :-1])
            logp = token_logprobs(hidden, self.model.get_output_embeddings().weight, tokens[:, 1:], self.chunk)
            batch = Batch(logp, scores, self._value(hidden), self._reference(tokens))
        if self.objective.weigh is not None:
            if mean_weight is None and self.group.count > 1:
                mean_weight = self._mean(self.objective.weigh(_without_gradient(batch), self.numbers))
            batch = batch._replace(mean_weight=mean_weight)
        losses, terms = self.objective.loss(batch, self.numbers)
        loss = losses.mean()
        logged = {"loss": loss, "nll": -logp.mean(), **terms}
        return loss, {name: term.detach() for name, term in logged.items()}

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
            unknown = torch.full_like(scores, torch.nan)  # weights do not depend on log p
            batch = Batch(unknown, scores, value)
            total += torch.stack(self.objective.weigh(batch, self.numbers)).double()
        return self._mean((total[0], total[1]))

    def _value(self, hidden: Tensor) -> Tensor | None:
        if self.value_head is None:
            return None
        return self.value_head(hidden.detach() if self.numbers.get("detach") else hidden)

    @torch.no_grad()
    def _reference(self, tokens: Tensor) -> Tensor | None:
        if self.reference is None:
            return None
        hidden = hidden_states(self.reference, tokens[:, :-1])
        return token_logprobs(hidden, self.reference.get_output_embeddings().weight, tokens[:, 1:], self.chunk)

    def _mean(self, weights: tuple[Tensor, Tensor]) -> Tensor:
        total, count = self.group.add(torch.stack(weights))
        return total / count

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.group.device.type, dtype=torch.bfloat16, enabled=self.low)


def _without_gradient(batch: Batch) -> Batch:
    return Batch(*(one.detach() if one is not None else None for one in batch))
