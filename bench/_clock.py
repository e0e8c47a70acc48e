"""The time of training steps, read in the same way for every loop: at the end of an optimizer's step.

A hook of torch that every optimizer calls stamps the clock after step ``warm`` and after the last one, the device
waited for at both; a loop needs no change, and what it does to start (imports, compilation, first steps) and to end
(writing a model) is left out. Everything between two steps is inside: batches, logging, bookkeeping.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

Loop = Callable[[], object]


def steady(loop: Loop, warm: int, steps: int) -> tuple[float, float]:
    """Seconds that ``steps`` steps take after ``warm`` steps, and seconds until the first was done.

    ``loop`` must take ``warm + steps`` steps. Where a loop has two optimizers, the one that steps first is counted.
    """
    counted: list[int] = []  # the id of the optimizer, once a step
    stamps: dict[int, float] = {}

    def stamp(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if counted and counted[0] != id(optimizer):
            return
        counted.append(id(optimizer))
        if len(counted) in (1, warm, warm + steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            stamps[len(counted)] = time.perf_counter()

    gc.collect()
    handle = register_optimizer_step_post_hook(stamp)
    begun = time.perf_counter()
    try:
        loop()
    finally:
        handle.remove()
    if len(counted) != warm + steps:
        raise RuntimeError(f"the loop took {len(counted)} steps of its optimizer, expected {warm + steps}")
    return stamps[warm + steps] - stamps[warm], stamps[1] - begun


def in_turns(loops: Mapping[str, Loop], turns: int, warm: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each loop's steps, turn by turn; every other turn runs backwards.

    On a CPU each runs in a process forked from this one, which computes nothing itself: what a loop sets for its whole
    process (threads, the allocator) is its own.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns):
        for name in list(loops)[:: -1 if turn % 2 else 1]:
            run = steady if torch.cuda.is_available() else _apart
            seconds[name].append(run(loops[name], warm, steps)[0])
    return seconds


def _apart(loop: Loop, warm: int, steps: int) -> tuple[float, float]:
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(steady(loop, warm, steps)))
    child.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise RuntimeError("a loop ended without its times: see above") from None
    finally:
        child.join()


def speed(tokens: int, seconds: list[float]) -> dict[str, Any]:
    """Tokens per second over the turns: the median, the least and the most."""
    return {
        "tokens_per_second": round(tokens / statistics.median(seconds)),
        "least": round(tokens / max(seconds)),
        "most": round(tokens / min(seconds)),
    }


def ratio(seconds: list[float], reference: list[float]) -> float:
    """The median over turns of seconds over the reference's seconds of the same turn."""
    return round(statistics.median(a / b for a, b in zip(seconds, reference, strict=True)), 3)
