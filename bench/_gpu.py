"""Training on one GPU: tokens per second and their share of what the card does on a large matrix product."""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import _clock, _nano, _steps
from bench._steps import GPT2, GPT2_VOCABULARY

TURNS, WARM, STEPS = 2, 16, 48
DEVICE = torch.device("cuda")


def rows() -> Iterator[dict[str, Any]]:
    """The card's rate; then one row a way: tokens per second, share of that rate, peak memory, time over mle."""
    rate = matmul_rate()
    yield {"way": "matmul of 8192^3 in bf16", "device": torch.cuda.get_device_name(), "tflops": round(rate / 1e12, 1)}
    steps, tokens = WARM + STEPS, STEPS * GPT2.batch_size * GPT2.context
    same = {"settings": GPT2, "steps": steps, "device": DEVICE}
    full, causal = (_steps.flop_per_token(GPT2, GPT2_VOCABULARY, causal=causal) for causal in (False, True))
    seconds: dict[str, list[float]] = {}
    other: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        stream = _steps.write(Path(name), steps * GPT2.batch_size * GPT2.context + 10_000, GPT2_VOCABULARY)
        file = Path(name, "tokens.npy")
        loops: dict[str, _clock.Loop] = {
            objective: partial(_steps.ours, objective, stream, vocabulary=GPT2_VOCABULARY, **same)
            for objective in _steps.OBJECTIVES
        }
        loops["hand-written, nanoGPT's manner"] = partial(
            _nano.train, file, vocabulary=_steps.padded(GPT2_VOCABULARY), **same
        )
        for turn in range(TURNS):
            for way in list(loops)[:: -1 if turn % 2 else 1]:
                gc.collect()
                torch.compiler.reset()  # else the ninth run finds the compiler's cache of one function full
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                spent, first = _clock.steady(loops[way], WARM, STEPS)
                seconds.setdefault(way, []).append(spent)
                other.setdefault(way, {"seconds_to_first_step": round(first, 1)})
                other[way]["peak_allocated_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                other[way]["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
                print(f"turn {turn + 1}: {way}: {tokens / spent:,.0f} tokens/s", file=sys.stderr, flush=True)
    for way, spent in seconds.items():
        measured = _clock.speed(tokens, spent)
        yield {
            "way": way,
            **measured,
            "share_of_matmul_full_attention": round(measured["tokens_per_second"] * full / rate, 3),
            "share_of_matmul_causal": round(measured["tokens_per_second"] * causal / rate, 3),
            "time_over_mle": _clock.ratio(spent, seconds["mle"]),
            **other[way],
        }


def sizes() -> dict[str, Any]:
    return _steps.shape(GPT2, GPT2_VOCABULARY, turns=TURNS, warm=WARM, steps=STEPS)


def matmul_rate(size: int = 8192, batches: int = 20, products: int = 10) -> float:
    """FLOP per second of a square product in bf16: the best of some batches of products."""
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(left)
    best = float("inf")
    for _ in range(batches + 1):  # the first is slow and so never the best
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(products):
            torch.mm(left, right, out=product)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 * products / best
