"""The memory of a training step, and how many rows of a batch a card holds at a time.

Fixed: weights, gradients, two values a weight of the optimizers (Muon has one), and what a backward pass holds whatever
its rows. Of each row: what is kept for the backward pass, and the logits with their gradient. Counted at one row and
at several, on tensors without values (torch's MemTracker), so that it holds for any architecture. A compiled step needs
less. On a GPU it is yet to be compared with the allocator's peak.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch
from torch import nn

from freshstart.errors import InputError

USABLE = 0.85  # of memory: the rest is for gaps between what is allocated, and for CUDA on a card
ROWS = 16  # that are compared with one
GIB = 1 << 30


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training that hold whatever the rows of a forward pass, and bytes of each row."""

    fixed: int
    row: int

    def bytes(self, rows: int) -> int:
        """What a step with so many rows in a forward pass takes."""
        return self.fixed + rows * self.row

    def fit(self, available: float) -> int:
        """How many rows of a forward pass there is room for."""
        return int((available * USABLE - self.fixed) // self.row)

    def rows(self, available: int) -> int:
        """How many rows a forward pass may have; InputError where there is no room for one."""
        fit = self.fit(available)
        if fit < 1:
            raise InputError(
                f"training takes {self.fixed / GIB:.1f} GiB and {self.row / GIB:.2f} GiB for each row of a forward "
                f"pass, the device has {available / GIB:.1f} GiB: set train.loss_chunk to 1024 or less, or lower "
                "train.context"
            )
        return fit


def step_memory(learner: nn.Module, context: int, device: torch.device) -> StepMemory:
    """The memory of a step with this learner on rows of ``context`` positions. Cost: seconds."""
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    logging.getLogger("torch.distributed._tools").setLevel(logging.ERROR)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        learner = copy.deepcopy(learner)
    with mode:
        for parameter in (trained := [p for p in learner.parameters() if p.requires_grad]):
            parameter.grad = torch.zeros_like(parameter)
        one, many = (
            _peak(learner, torch.zeros(rows, context + 1, dtype=torch.long, device=device)) for rows in (1, ROWS)
        )
    row = (many - one) // (ROWS - 1)
    return StepMemory(one - row + 2 * sum(p.nbytes for p in trained), row)


def _peak(learner: nn.Module, tokens: torch.Tensor) -> int:
    """The most bytes that exist at a time in a forward and backward pass, with weights and gradients."""
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker = MemTracker()
    tracker.track_external(learner)
    with tracker:
        loss, _ = learner(tokens, tokens[:, 1:].float(), torch.ones((), device=tokens.device))
        loss.backward()
    sizes = tracker.get_tracker_snapshot("peak")
    return sum(size["Total"] for where, size in sizes.items() if where.type == tokens.device.type)
