"""Ancestral sampling with a key-value cache, temperature and nucleus.

A batch of samples is a function of the model, the prompts and (seed, number of the batch): each batch has a random
stream of its own, and each step takes one uniform number a row, by inversion of the distribution function. The nucleus
needs the most likely tokens in order: the ``CANDIDATES`` first are sorted, and a row whose candidates hold less than
``top_p`` is sorted whole, so that the distribution is exact. The cache is allocated once, with room for as many control
tokens as text, and doubled where a model writes more; growing it token by token would take a third of the time. Rows
that have ended go on being computed until the batch is done.

A batch holds prompts of one length, so that nothing is padded. Limits count text tokens: control tokens, which a model
that is asked under one writes before each segment, come on top and are taken out of the samples. Where the context ends
before the limit, so does the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 64


@dataclass(frozen=True)
class Decoding:
    """How to sample: ``forbidden`` ids are never drawn; ``end`` ends a sample, but not before ``least`` text tokens;
    ids in ``control`` are no text."""

    temperature: float
    top_p: float
    least: int
    most: int
    end: int
    forbidden: tuple[int, ...]
    control: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """New text tokens of one sample, the end token excluded, and whether it ended by itself."""

    tokens: list[int]
    ended: bool


@torch.inference_mode()
def sample(model, prompts: Sequence[Sequence[int]], batch_size: int, decoding: Decoding, seed: int) -> list[Drawn]:
    """A sample after each prompt, in their order. ``model`` is a causal LM of the hub format in eval mode."""
    longest, context = max(map(len, prompts), default=0), model.config.max_position_embeddings
    if longest >= context:
        raise ValueError(f"{longest} tokens of prompt leave no room in the context of {context}")
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    batches = [
        numbers[begin : begin + batch_size]
        for _, numbers in sorted(by_length.items())
        for begin in range(0, len(numbers), batch_size)
    ]
    drawn: dict[int, Drawn] = {}
    for place, numbers in enumerate(batches):
        generator = torch.Generator(device=model.device).manual_seed(seed * 1_000_003 + place)
        rows = torch.tensor([prompts[number] for number in numbers], device=model.device)
        drawn |= zip(numbers, _batch(model, rows, decoding, generator), strict=True)
    return [drawn[number] for number in range(len(prompts))]


def _batch(model, prompts: Tensor, decoding: Decoding, generator: torch.Generator) -> list[Drawn]:
    """A sample after each row of prompts of one length."""
    device, (rows, length) = model.device, prompts.shape
    room = model.config.max_position_embeddings - length
    mask = torch.zeros(model.config.vocab_size, device=device)
    mask[list(decoding.forbidden)] = -torch.inf
    mask_end = mask.index_fill(0, torch.tensor(decoding.end, device=device), -torch.inf)
    control = torch.tensor(decoding.control, dtype=torch.long, device=device)
    tokens = torch.full((rows, room), decoding.end, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    ended, written = torch.zeros_like(running), torch.zeros(rows, dtype=torch.long, device=device)
    inputs, cache = prompts, _cache(length + min(room, decoding.most * (2 if decoding.control else 1)))
    for place in range(room):
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        early = (written < decoding.least)[:, None]
        logits = output.logits[:, -1].float() + torch.where(early, mask_end, mask)
        uniform = torch.rand(rows, 1, generator=generator, device=device, dtype=torch.float64)
        chosen = choose(logits / decoding.temperature, decoding.top_p, uniform)
        tokens[:, place] = torch.where(running, chosen, decoding.end)
        ended |= running & (chosen == decoding.end)
        written += ~torch.isin(chosen, control)
        running &= (chosen != decoding.end) & (written < decoding.most)
        if not running.any():
            break
        inputs = chosen[:, None]
    no_text = {decoding.end, *decoding.control}
    texts = ([token for token in row if token not in no_text] for row in tokens.tolist())
    return [Drawn(text, end) for text, end in zip(texts, ended.tolist(), strict=True)]


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


def _cache(positions: int):
    """A key-value cache with room for so many positions at first."""
    from transformers.cache_utils import Cache, DynamicLayer

    class Allocated(DynamicLayer):
        length = 0

        def update(self, key_states: Tensor, value_states: Tensor, *rest, **named) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                rows, heads, _, width = key_states.shape
                self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
                self.keys = key_states.new_empty(rows, heads, positions, width)
                self.values = value_states.new_empty(rows, heads, positions, width)
            begin, self.length = self.length, self.length + key_states.shape[-2]
            if self.length > self.keys.shape[-2]:
                self.keys, self.values = (torch.cat([held, held], dim=-2) for held in (self.keys, self.values))
            self.keys[:, :, begin : self.length] = key_states
            self.values[:, :, begin : self.length] = value_states
            return self.keys[:, :, : self.length], self.values[:, :, : self.length]

        def get_seq_length(self) -> int:
            return self.length

    return Cache(layer_class_to_replicate=Allocated)
