"""Ancestral sampling with a key-value cache, temperature and nucleus, after prompts of any length.

A sample is a function of the model, its prompt, the seed and its number: each step of each row draws uniforms by
counter (``uniform.py``), so that what shares its batch changes nothing but the rounding of the model's products.

The nucleus is drawn without sorting. A token is drawn from all; where those more likely than it hold ``top_p`` already
it lies outside, and the next is drawn from those alone, which is exact (rejection, from ever smaller sets that hold the
nucleus) and ends after few draws. The distribution function is inverted in two levels, blocks first.

A batch holds prompts of similar length, the shorter ones padded on the left; where all are of one length there is no
mask. A prompt that several rows share is read once. The cache is allocated once, with room for as many control tokens
as text, and doubled where a model writes more. Rows that have ended are computed until at
most the share ``COMPACT`` of the batch still runs, and are then taken out of it.

Limits count text tokens: control tokens, which a model that is asked under one writes before each segment, come on top
and are taken out of the samples. Where the context ends before the limit, so does the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional

from freshstart.sampling.uniform import below, uniform

BLOCK = 128
COMPACT = 0.5


@dataclass(frozen=True)
class Decoding:
    """How to sample: ``forbidden`` ids are never drawn; ``end`` ends a sample, but not before ``least`` text tokens;
    ids in ``control`` are no text. ``stop`` says after each step which samples end, of all that run, by their text
    tokens."""

    temperature: float
    top_p: float
    least: int
    most: int
    end: int
    forbidden: tuple[int, ...]
    control: tuple[int, ...] = ()
    stop: Callable[[list[list[int]]], list[bool]] | None = None


@dataclass
class Drawn:
    """New text tokens of one sample, the end token excluded, and whether it ended by itself and not by a limit."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False


@torch.inference_mode()
def sample(
    model, prompts: Sequence[Sequence[int]], batch_size: int, decoding: Decoding, seed: int, first: int = 0
) -> list[Drawn]:
    """A sample after each prompt, in their order. ``model`` is a causal LM of the hub format in eval mode; ``first`` is
    the number of the first prompt where they are part of a longer list."""
    longest, context = max(map(len, prompts), default=0), model.config.max_position_embeddings
    if longest >= context:
        raise ValueError(f"{longest} tokens of prompt leave no room in the context of {context}")
    keys = [tuple(prompt) for prompt in prompts]
    order = sorted(range(len(keys)), key=lambda number: (len(keys[number]), keys[number]))
    drawn = [Drawn() for _ in prompts]
    stream = below(torch.zeros((), dtype=torch.long, device=model.device), seed)
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        states = below(stream, torch.tensor(batch, device=model.device) + first)
        _batch(model, [keys[n] for n in batch], decoding, states, [drawn[n] for n in batch])
    return drawn


def _batch(model, prompts: list[tuple[int, ...]], decoding: Decoding, states: Tensor, drawn: list[Drawn]) -> None:
    """Write a sample after each prompt to ``drawn``; the longest prompt is the last, ``states`` are (rows,)."""
    device, context, length = model.device, model.config.max_position_embeddings, len(prompts[-1])
    steps = [context - len(prompt) for prompt in prompts]  # that each row has room for
    forbidden = torch.tensor(decoding.forbidden, dtype=torch.long, device=device)
    cache = _cache(length + min(max(steps), decoding.most * (2 if decoding.control else 1)))

    distinct = list(dict.fromkeys(prompts))
    inputs = torch.tensor([[decoding.end] * (length - len(prompt)) + [*prompt] for prompt in distinct], device=device)
    mask = positions = None
    if len(prompts[0]) < length:
        pads = torch.tensor([length - len(prompt) for prompt in distinct], device=device)[:, None]
        mask = (torch.arange(length + max(steps), device=device) >= pads).long()
        positions = (torch.arange(length, device=device) - pads).clamp_(min=0)
    logits = _logits(model, inputs, cache, mask, positions)
    if len(distinct) < len(prompts):
        place = {prompt: number for number, prompt in enumerate(distinct)}
        rows = torch.tensor([place[prompt] for prompt in prompts], device=device)
        logits, mask, positions = _rows(cache, rows, logits, mask, positions)

    running = list(range(len(drawn)))
    for step in range(max(steps)):
        logits = logits.float().index_fill_(-1, forbidden, -torch.inf)
        if early := [row for row in running if len(drawn[row].tokens) < decoding.least]:
            logits[early, decoding.end] = -torch.inf
        chosen = choose(logits.div_(decoding.temperature), decoding.top_p, below(states, step))
        tokens = chosen.tolist()
        for row in running:
            if tokens[row] == decoding.end:
                drawn[row].ended = True
            elif tokens[row] not in decoding.control:
                drawn[row].tokens.append(tokens[row])
        if decoding.stop is not None:
            for row, stopped in zip(running, decoding.stop([drawn[row].tokens for row in running]), strict=True):
                drawn[row].ended |= stopped
        running = [
            row
            for row in running
            if not drawn[row].ended and len(drawn[row].tokens) < decoding.most and step + 1 < steps[row]
        ]
        if not running:
            return
        if len(running) <= COMPACT * len(drawn):
            rows = torch.tensor(running, device=device)
            chosen, states, mask, positions = _rows(cache, rows, chosen, states, mask, positions)
            drawn, steps = [drawn[row] for row in running], [steps[row] for row in running]
            running = list(range(len(drawn)))
        if positions is not None:
            positions = (positions[:, -1:] + 1).clamp_(max=context - 1)  # rows that have ended go on for a while
        logits = _logits(model, chosen[:, None], cache, mask, positions)


def _logits(model, tokens: Tensor, cache, mask: Tensor | None, positions: Tensor | None) -> Tensor:
    """Logits behind the last of the tokens: (rows, n) to (rows, vocabulary). ``mask`` may hold columns to come."""
    padding = {}
    if mask is not None:
        padding = {"attention_mask": mask[:, : cache.get_seq_length() + tokens.shape[1]], "position_ids": positions}
    return model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **padding).logits[:, -1]


def _rows(cache, rows: Tensor, *tensors: Tensor | None) -> list[Tensor | None]:
    """Those rows of the cache, in place, and of tensors."""
    cache.batch_select_indices(rows)
    return [None if tensor is None else tensor[rows] for tensor in tensors]


def choose(logits: Tensor, top_p: float, states: Tensor) -> Tensor:
    """One token a row from the nucleus of softmax(logits): (rows, vocabulary), random states (rows,) to (rows,).

    The nucleus is the shortest prefix of the tokens, from the most likely down, that holds at least ``top_p``; of
    tokens that are equally likely it holds all or none.
    """
    weights = functional.pad(torch.softmax(logits, dim=-1), (0, -logits.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    sums = weights.sum(-1).double()
    held = top_p * sums.sum(-1)
    rows = torch.arange(len(logits), device=logits.device)
    chosen = torch.empty_like(rows)
    for draw in count():
        ids, likelihoods = _invert(weights, sums, uniform(below(states, draw)))
        chosen[rows] = ids
        if top_p >= 1:
            break
        weights = weights * (weights > likelihoods[:, None, None])
        sums = weights.sum(-1).double()
        outside = (sums.sum(-1) >= held).nonzero().squeeze(-1)
        if not len(outside):
            break
        rows, weights, sums, held, states = (tensor[outside] for tensor in (rows, weights, sums, held, states))
    return chosen


def _invert(weights: Tensor, sums: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The place at which the running sum of the weights passes that share of it, and the weight there.

    (rows, blocks, BLOCK) weights, (rows, blocks) sums of them, (rows,) shares in [0, 1) to (rows,) and (rows,).
    """
    cumulative = sums.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    block = _passed(cumulative, target)
    inside = weights[torch.arange(len(weights), device=weights.device), block]
    target = target - (cumulative - sums).gather(-1, block[:, None])
    place = _passed(inside.double().cumsum(-1), target)
    return block * BLOCK + place, inside.gather(-1, place[:, None]).squeeze(-1)


def _passed(cumulative: Tensor, target: Tensor) -> Tensor:
    """The first place of each row where the sum is above its target; by rounding at most the last that adds to it."""
    return torch.minimum((cumulative <= target).sum(-1), (cumulative < cumulative[:, -1:]).sum(-1))


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
