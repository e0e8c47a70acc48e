"""What stops a run: a signal, a gradient that is not finite; and what must not, Python's collection of garbage."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from freshstart.errors import InputError
from freshstart.training.launch import Group, on_signal
from freshstart.training.run import Run


class Guard:
    """Keeps what is not finite from the model.

    Fused AdamW takes ``found_inf`` and leaves its step out on the device: once set it stays set, so that the model is
    that of the last good step when the host looks.
    """

    def __init__(self, run: Run, optimizers: list[torch.optim.Optimizer], group: Group):
        self.is_deferred = group.device.type == "cuda" and len(optimizers) == 1
        self._first = torch.full((), -1.0, device=group.device)
        self._norm = torch.zeros((), device=group.device)
        self._run, self._optimizers = run, optimizers

    def watch(self, step: int, norm: torch.Tensor) -> None:
        """Look at the gradient's norm at a step, at once or when the host looks next."""
        bad = ~torch.isfinite(norm) & (self._first < 0)
        self._first = torch.where(bad, float(step), self._first)
        self._norm = torch.where(bad, norm.float(), self._norm)
        if not self.is_deferred:
            return self.check()
        self._optimizers[0].found_inf = (self._first >= 0).float()  # type: ignore[attr-defined]

    def check(self) -> None:
        """Raises InputError where a step was not finite, with the step and its rows."""
        step = int(self._first)
        if step < 0:
            return
        rows = self._run.rows.chosen(step, self._run.settings.batch_size)
        raise InputError(
            f"step {step + 1} of {self._run.steps}: the gradient's norm is {float(self._norm):.4g} on rows "
            f"{', '.join(map(str, rows))}. The model of the step before is untouched and its last checkpoint "
            "is whole: lower the learning rate, or look at those rows (row r begins at token r x context)"
        )


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's cyclic garbage is collected at checkpoints alone: each sweep would stop the loop for a while."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def asked_to_stop(group: Group) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to stop after the step at hand, so that no step is half done.

    Gives what says whether any process was asked.
    """
    signals: list[int] = []

    def was_asked() -> bool:
        if group.count == 1:
            return bool(signals)
        return bool(group.add(torch.tensor(float(bool(signals)), device=group.device)))

    with on_signal(signals.append):
        yield was_asked
