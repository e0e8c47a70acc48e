"""A language model finetuned to classify: a linear head on the last hidden state of a row of tokens, as in GPT-1
(Radford et al. 2018).

All weights learn, in float32: AdamW (Loshchilov and Hutter 2019) without weight decay, linear warm-up over a tenth of
the steps and linear decay, gradients clipped to norm 1, rows of like length in a batch. Rows are padded on the right,
which a causal model does not see from their last token. The model that is given is never changed: a copy learns. Equal
seeds, data and thread counts give equal weights on one type of processor.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from freshstart.errors import InputError
from freshstart.progress import Progress
from freshstart.training.model import hidden_states
from freshstart.training.schedule import factor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from freshstart.benchmarks.glue import Settings

HEAD_SPREAD = 0.02  # standard deviation of the head's first weights, GPT-2's own
WARMUP = 0.1
POOL_BATCHES = 32  # batches whose rows are sorted by length together


class Classifier(nn.Module):
    """A copy of a model with a head of so many outputs; the head's weights are a function of the seed."""

    def __init__(self, model: PreTrainedModel, outputs: int, seed: int):
        super().__init__()
        self.model = copy.deepcopy(model.base_model).float()
        self.head = nn.Linear(model.config.hidden_size, outputs)
        nn.init.normal_(self.head.weight, std=HEAD_SPREAD, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)
        self.to(model.device)

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rows of token ids, of any length from 1 on, to (rows, outputs)."""
        device = self.head.weight.device
        tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        last = torch.tensor([len(row) - 1 for row in rows], device=device)
        hidden = hidden_states(self.model, tokens)
        return self.head(hidden[torch.arange(len(rows), device=device), last])

    @torch.inference_mode()
    def predict(self, rows: Sequence[Sequence[int]], batch_size: int) -> Tensor:
        """The outputs of each row, on the CPU: (rows, outputs)."""
        self.eval()
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        outputs = torch.empty(len(rows), self.head.out_features)
        for begin in range(0, len(rows), batch_size):
            chosen = order[begin : begin + batch_size]
            outputs[chosen] = self([rows[row] for row in chosen]).cpu()
        return outputs


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of classes (int64), mean squared error of numbers (float): (rows, outputs), (rows,)."""
    return F.mse_loss(outputs[:, 0], targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)


def epochs(
    classifier: Classifier, rows: Sequence[Sequence[int]], targets: Tensor, settings: Settings, seed: int, title: str
) -> Iterator[int]:
    """Finetune in place, and give the number of each epoch that is done, from 1. InputError at a loss not finite."""
    steps = settings.epochs * math.ceil(len(rows) / settings.batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.0)
    generator, targets = random.Random(seed), targets.to(classifier.head.weight.device)
    with Progress(title, steps, "steps") as progress:
        for epoch in range(1, settings.epochs + 1):
            classifier.train()
            for batch in _batches([len(row) for row in rows], settings.batch_size, generator):
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * factor(progress.done, steps, WARMUP, "linear")
                loss = loss_of(classifier([rows[row] for row in batch]), targets[batch])
                if not math.isfinite(loss.item()):
                    raise InputError(f"{title}: the loss is {loss.item()} at step {progress.done}: lower learning_rate")
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
                optimizer.step()
                progress.advance(note=f"loss {loss.item():.3f}")
            yield epoch


def _batches(sizes: Sequence[int], size: int, generator: random.Random) -> list[list[int]]:
    """The rows of each step of an epoch: every row once, rows of like size together."""
    order = generator.sample(range(len(sizes)), len(sizes))
    pools = [order[begin : begin + POOL_BATCHES * size] for begin in range(0, len(order), POOL_BATCHES * size)]
    for pool in pools:
        pool.sort(key=lambda row: sizes[row])
    batches = [pool[begin : begin + size] for pool in pools for begin in range(0, len(pool), size)]
    generator.shuffle(batches)
    return batches
