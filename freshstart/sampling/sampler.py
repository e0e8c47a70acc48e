"""Ancestral sampling with a key-value cache, temperature and nucleus.

A batch of samples is a function of the model, the prompt and (seed, number of the batch): each batch has a random
stream of its own, and each step takes one uniform number a row, by inversion of the distribution function. The nucleus
needs the most likely tokens in order: the ``CANDIDATES`` first are sorted, and a row whose candidates hold less than
``top_p`` is sorted whole, so that the distribution is exact. The cache is allocated once, at its full length; growing
it token by token would take a third of the time. Rows that have ended go on being computed until the batch is done.

Conditional models are asked under a control token, which the prompt ends in. The other control token is masked; the
wanted one is let through and taken out of the text. Blocking both would leave no way to begin a new segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 64


@dataclass(frozen=True)
class Decoding:
    """How to sample: ``forbidden`` ids are never drawn; ``end`` ends a sample, but not before ``least`` tokens."""

    temperature: float
    top_p: float
    least: int
    most: int
    end: int
    forbidden: tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """New tokens of one sample, the end token excluded, and whether it ended by itself."""

    tokens: list[int]
    ended: bool


@torch.inference_mode()
def sample(model, prompt: list[int], count: int, batch_size: int, decoding: Decoding, seed: int) -> list[Drawn]:
    """``count`` samples after the same prompt. ``model`` is a causal LM of the hub format in eval mode."""
    context = model.config.max_position_embeddings
    if len(prompt) + decoding.most > context:
        raise ValueError(f"{len(prompt)} tokens of prompt and {decoding.most} new ones exceed the context of {context}")
    drawn: list[Drawn] = []
    for number, begin in enumerate(range(0, count, batch_size)):
        rows = min(batch_size, count - begin)
        drawn += _batch(model, prompt, rows, decoding, _generator(model.device, seed, number))
    return drawn


def _batch(model, prompt: list[int], rows: int, decoding: Decoding, generator: torch.Generator) -> list[Drawn]:
    device = model.device
    mask = torch.zeros(model.config.vocab_size, device=device)
    mask[list(decoding.forbidden)] = -torch.inf
    mask_end = mask.clone()
    mask_end[decoding.end] = -torch.inf
    tokens = torch.full((rows, decoding.most), decoding.end, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    inputs = torch.tensor([prompt], device=device).expand(rows, -1)
    cache = _cache(len(prompt) + decoding.most)
    for place in range(decoding.most):
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[:, -1].float() + (mask_end if place < decoding.least else mask)
        uniform = torch.rand(rows, 1, generator=generator, device=device, dtype=torch.float64)
        chosen = choose(logits / decoding.temperature, decoding.top_p, uniform)
        tokens[:, place] = torch.where(running, chosen, decoding.end)
        running &= chosen != decoding.end
        if not running.any():
            break
        inputs = chosen[:, None]
    lengths = (tokens != decoding.end).sum(1).tolist()
    done = (~running).tolist()
    return [Drawn(row[:length], end) for row, length, end in zip(tokens.tolist(), lengths, done, strict=True)]


def choose(logits: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """One token a row from the nucleus of softmax(logits): (rows, vocabulary), (rows, 1) in [0, 1) to (rows,).

    The nucleus is the shortest prefix of the tokens, from the most likely down, that holds at least ``top_p``.
    """
    probabilities = torch.softmax(logits, dim=-1)
    if top_p >= 1:  # every token is in the nucleus: no order is needed
        return _invert(probabilities.double(), None, top_p, uniform)
    best, ids = probabilities.topk(min(CANDIDATES, probabilities.shape[-1]), dim=-1)
    chosen = _invert(best.double(), ids, top_p, uniform)
    lacking = (best.double().sum(-1) < top_p).nonzero().squeeze(-1)
    if len(lacking):
        best, ids = probabilities[lacking].sort(dim=-1, descending=True, stable=True)
        chosen[lacking] = _invert(best.double(), ids, top_p, uniform[lacking])
    return chosen


def _invert(best: Tensor, ids: Tensor | None, top_p: float, uniform: Tensor) -> Tensor:
    """The token at which the distribution function passes ``uniform``; ``ids`` are those of ``best``, in its order."""
    cumulative = best.cumsum(-1)
    if ids is None:
        place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        last = best.shape[-1] - 1 - best.flip(-1).ne(0).to(torch.uint8).argmax(-1, keepdim=True)
        return torch.minimum(place, last).squeeze(-1)
    inside = cumulative - best < top_p
    target = uniform * torch.where(inside, best, 0).sum(-1, keepdim=True)
    place = torch.searchsorted(cumulative, target, right=True)
    return ids.gather(-1, torch.minimum(place, inside.sum(-1, keepdim=True) - 1)).squeeze(-1)


def _cache(most: int):
    """A key-value cache with room for ``most`` positions."""
    from transformers.cache_utils import Cache, DynamicLayer

    class Allocated(DynamicLayer):
        length = 0

        def update(self, key_states: Tensor, value_states: Tensor, *rest, **named) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                rows, heads, _, width = key_states.shape
                self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
                self.keys = key_states.new_empty(rows, heads, most, width)
                self.values = value_states.new_empty(rows, heads, most, width)
            begin, self.length = self.length, self.length + key_states.shape[-2]
            self.keys[:, :, begin : self.length] = key_states
            self.values[:, :, begin : self.length] = value_states
            return self.keys[:, :, : self.length], self.values[:, :, : self.length]

        def get_seq_length(self) -> int:
            return self.length

    return Cache(layer_class_to_replicate=Allocated)


def _generator(device: torch.device, seed: int, number: int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed * 1_000_003 + number)
