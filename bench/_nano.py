"""A yardstick for training loops: GPT-2 and its loop written out by hand, as small as they get, without transformers.

In the manner of karpathy/nanoGPT (``model.py``, ``train.py``): the fused attention, batches at random offsets of a
memory-mapped file, the next one fetched while the model is at the one before, autocast, ``F.cross_entropy`` at
whatever precision autocast gives it, gradients clipped, fused AdamW. Biases are on, as in GPT-2: the number of
parameters is that of our model.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freshstart.training import TrainSettings, schedule


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, positions, width = x.shape
        cut = [t.view(rows, positions, self.heads, -1).transpose(1, 2) for t in self.inward(x).split(width, dim=2)]
        mixed = F.scaled_dot_product_attention(*cut, is_causal=True)
        return self.outward(mixed.transpose(1, 2).contiguous().view(rows, positions, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads)
        self.wider, self.outward = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.outward(F.gelu(self.wider(self.norm_2(x))))


class Gpt(nn.Module):
    """A GPT-2 whose head is its token embedding; ``forward`` gives the mean loss."""

    def __init__(self, settings: TrainSettings, vocabulary: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, settings.width)
        self.places = nn.Embedding(settings.context, settings.width)
        self.blocks = nn.ModuleList(Block(settings.width, settings.heads) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                shrunk = math.sqrt(2 * settings.layers) if "outward" in name else 1.0
                nn.init.normal_(parameter, std=0.02 / shrunk)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def train(file: Path, settings: TrainSettings, vocabulary: int, steps: int, device: torch.device) -> int:
    """Train on the tokens of a ``.npy`` file, compiled on a GPU; gives the number of parameters."""
    torch.set_num_threads(settings.threads)
    data = np.load(file, mmap_mode="r")
    places = torch.Generator().manual_seed(1337)

    def batch() -> tuple[Tensor, Tensor]:
        begins = torch.randint(len(data) - settings.context - 1, (settings.batch_size,), generator=places).tolist()
        cut = np.stack([data[begin : begin + settings.context + 1] for begin in begins]).astype(np.int64)
        tokens, targets = (torch.from_numpy(cut[:, at : at + settings.context]).contiguous() for at in (0, 1))
        if device.type == "cuda":
            tokens, targets = tokens.pin_memory(), targets.pin_memory()
        return tokens.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1337)
        model = Gpt(settings, vocabulary).to(device)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (settings.beta1, settings.beta2)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    run = torch.compile(model) if device.type == "cuda" else model
    low = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
    tokens, targets = batch()
    for step in range(steps):
        rate = settings.learning_rate * schedule.factor(step, steps, settings.warmup, settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with low:
            loss = run(tokens, targets)
        tokens, targets = batch()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % settings.log_every == 0:
            loss.item()
    return sum(p.numel() for p in model.parameters())
