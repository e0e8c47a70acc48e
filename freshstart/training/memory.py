"""The memory of a training step, and how many rows of a batch a card holds at a time.

Fixed: weights, gradients, and two values a weight of the optimizers (Muon has one). Of each row in a forward pass: what
is kept for the backward pass, and the logits with their gradient. Counted on tensors without values (torch's
MemTracker), so that it holds for any architecture. A compiled step needs less. The resident memory of a
process on a CPU was 1.2 to 1.4 times the figure at toy size; on a GPU it is yet to be compared.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch
from torch import nn

from freshstart.errors import InputError

USABLE = 0.85  # of a card's memory: the rest is for CUDA, and for gaps between what is allocated
GIB = 1 << 30


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training that hold whatever the rows of a forward pass, and bytes of each row."""

    fixed: int
    row: int

    def rows(self, available: int) -> int:
        """How many rows a forward pass may have; InputError where there is no room for one."""
        fit = int(available * USABLE - self.fixed) // self.row
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
    from torch.distributed._tools.mem_tracker import MemTracker

    logging.getLogger("torch.distributed._tools").setLevel(logging.ERROR)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        learner = copy.deepcopy(learner)
    with mode:
        for parameter in (trained := [p for p in learner.parameters() if p.requires_grad]):
            parameter.grad = torch.zeros_like(parameter)
        tracker = MemTracker()
        tracker.track_external(learner)
        with tracker:
            row = torch.zeros(1, context + 1, dtype=torch.long, device=device)
            loss, _ = learner(row, torch.zeros(1, context, device=device), torch.ones((), device=device))
            loss.backward()
    peak = sum(
        sizes["Total"] for where, sizes in tracker.get_tracker_snapshot("peak").items() if where.type == device.type
    )
    weights, gradients = (sum(p.nbytes for p in part) for part in (learner.parameters(), trained))
    return StepMemory(weights + 3 * gradients, peak - weights - gradients)
