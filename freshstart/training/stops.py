"""What stops a run: a signal, a gradient that is not finite; and what must not, Python's collection of garbage."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from freshstart.errors import InputError
from freshstart.training.launch import Group
from freshstart.training.rows import Rows


class Guard:
    """Keeps what is not finite from the model.

    Fused AdamW takes ``found_inf`` and leaves its step out on the device: once set it stays set, so that the model is
    that of the last good step when the host looks.
    """

    def __init__(self, made: list[torch.optim.Optimizer], group: Group):
        self.deferred = group.device.type == "cuda" and len(made) == 1
        self._first = torch.full((), -1.0, device=group.device)
        self._norm = torch.zeros((), device=group.device)
        self._made = made

    def watch(self, step: int, norm: torch.Tensor) -> None:
        bad = ~torch.isfinite(norm) & (self._first < 0)
        self._first = torch.where(bad, float(step), self._first)
        self._norm = torch.where(bad, norm.float(), self._norm)
        if self.deferred:
            self._made[0].found_inf = (self._first >= 0).float()  # type: ignore[attr-defined]

    def check(self, order: Rows, batch_size: int, steps: int) -> None:
        """Raises InputError where a step was not finite, with the step and its rows."""
        step = int(self._first)
        if step < 0:
            return
        rows = order.chosen(step, batch_size)
        raise InputError(
            f"step {step + 1} of {steps}: the gradient's norm is {float(self._norm):.4g} on rows "
            f"{', '.join(map(str, rows))}. The model of the step before is untouched and its last checkpoint "
            "is whole: lower the learning rate, or look at those rows (row r begins at token r x context)"
        )


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's cyclic garbage is collected at checkpoints alone: each sweep would stop the loop for a while."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


class StopFlag:
    """Ctrl-C and SIGTERM ask the loop to stop after the step at hand, so that no step is half done."""

    def __init__(self, group: Group) -> None:
        self.asked = False
        self._group = group
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():  # Ray Train runs this in another one
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process was asked."""
        if self._group.count == 1:
            return self.asked
        return bool(self._group.add(torch.tensor(float(self.asked), device=self._group.device)))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
