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

from freshstart.objectives import Batch
from freshstart.training.launch import Group
from freshstart.training.model import ValueHead, hidden_states, token_logprobs
from freshstart.training.run import Run


class Learner(nn.Module):
    """(tokens, scores) to (loss, terms): (rows, positions + 1) int64, (rows, positions) fp32.

    ``reference`` is the model that the run began from, for objectives that need it; it stays as it is.
    """

    def __init__(self, model: Any, run: Run, group: Group, reference: Any = None):
        super().__init__()
        has_value = run.objective.needs.value_head
        self.model = model
        self.value_head = ValueHead(model.config.hidden_size).to(model.device) if has_value else None
        self.reference = reference.requires_grad_(False).eval() if reference is not None else None
        self.objective = run.objective
        self.weigh = run.objective.weigh if run.numbers.get("normalize") else None
        self.numbers = {  # lists go to the device once, not at every step
            name: torch.tensor(value, dtype=torch.float32, device=group.device) if isinstance(value, list) else value
            for name, value in run.numbers.items()
        }
        self.low, self.chunk, self.group = run.settings.precision == "bf16", run.settings.loss_chunk, group

    def forward(self, tokens: Tensor, scores: Tensor, mean_weight: Tensor | None = None):
        """``mean_weight`` is that of the whole batch, for objectives that bring their weights to mean 1 over it."""
        objective, inputs, targets = self.objective, tokens[:, :-1], tokens[:, 1:]
        with self._precision():
            hidden = hidden_states(self.model, inputs)
            logp = self._logp(self.model, hidden, targets)
            value, reference = self._value(hidden), None
            if self.reference is not None:
                with torch.no_grad():
                    reference = self._logp(self.reference, hidden_states(self.reference, inputs), targets)
        batch = Batch(logp, scores, value, reference, mean_weight)
        if self.weigh is not None and mean_weight is None and self.group.count > 1:
            fixed = Batch(*(part if part is None else part.detach() for part in batch))
            batch = batch._replace(mean_weight=self._mean(*self.weigh(fixed, self.numbers)))
        losses, terms = objective.loss(batch, self.numbers)
        loss = losses.mean()
        logged = {"loss": loss, "nll": -logp.mean(), **terms}
        return loss, {name: term.detach() for name, term in logged.items()}

    @torch.no_grad()
    def mean_weight(self, pieces: list[tuple[Tensor, Tensor]], seeded: Callable[[int], None]) -> Tensor | None:
        """The mean weight of a batch that is read in several pieces; None where the objective does not ask for it.

        ``seeded`` sets the random numbers of a piece. Costs a forward pass over the batch where it does.
        """
        if self.weigh is None:
            return None
        total = torch.zeros(2, dtype=torch.float64, device=self.group.device)
        for number, (tokens, scores) in enumerate(pieces):
            seeded(number)
            with self._precision():
                value = self._value(hidden_states(self.model, tokens[:, :-1]))
            unknown = torch.full_like(scores, torch.nan)  # weights do not depend on log p
            total += torch.stack(self.weigh(Batch(unknown, scores, value), self.numbers)).double()
        return self._mean(*total)

    def _logp(self, model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
        return token_logprobs(hidden, model.get_output_embeddings().weight, targets, self.chunk)

    def _value(self, hidden: Tensor) -> Tensor | None:
        if self.value_head is None:
            return None
        return self.value_head(hidden.detach() if self.numbers.get("detach") else hidden)

    def _mean(self, weights: Tensor, count: Tensor) -> Tensor:
        total, count = self.group.add(torch.stack((weights, count)))
        return total / count

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.group.device.type, dtype=torch.bfloat16, enabled=self.low)
