"""The training loop: one for all objectives, in one process or in several.

A step: a batch that is a function of (data, seed, step); log p of each target; the objective's loss; its mean over
positions; clip; optimizer step. Each process reads its share of the batch, in one piece or in several whose gradients
add up: the batches are the same whatever the number of processes. Nothing random is left to global state, so that a run
resumed from a checkpoint ends with the same bits as one that was never stopped (on one CPU type, with one lock file,
one number of threads and of processes).

A loss or gradient that is not finite never reaches the model. On a GPU with AdamW the step is left out on the device
and the run stops at the next row of the curve, so that no step waits for the processor; elsewhere it stops at once.
"""

from __future__ import annotations

import gc
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freshstart import card, files
from freshstart.allocator import keep_memory
from freshstart.errors import InputError
from freshstart.names import SNAPSHOTS
from freshstart.progress import Progress
from freshstart.tokens import tokenizer
from freshstart.training import TrainSettings, curve, schedule
from freshstart.training.checkpoint import Checkpoints
from freshstart.training.launch import Group
from freshstart.training.learner import Learner
from freshstart.training.memory import step_memory
from freshstart.training.model import attend_causally, save
from freshstart.training.optimizers import optimizers
from freshstart.training.run import Run
from freshstart.training.stops import Guard, asked_to_stop, no_collection
from freshstart.training.storage import written

Piece = tuple[Tensor, Tensor]  # tokens (rows, context + 1) int64, scores (rows, context) fp32


def train(run: Run, identity: dict[str, Any], group: Group | None = None) -> dict[str, Any]:
    """Train a model, or go on with one that was stopped, and write it; gives its record.

    ``identity`` is all that shapes the weights, in JSON; a checkpoint of another identity is refused. ``group`` is
    this process among those that train together (default: alone, on a GPU where there is one).
    """
    loop = Loop(run, identity, group or Group(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    total = run.steps * run.step_positions
    with (
        Progress(run.title, total, "positions", loop.group.leads) as progress,
        asked_to_stop(loop.group) as was_asked,
        no_collection(),
    ):
        progress.advance(loop.positions, note="resumed" if loop.state.step else "")
        while not loop.is_done:
            rate = loop.step()
            if loop.is_row_due:
                loop.log(rate)
            is_stopping = was_asked() if loop.is_row_due or loop.group.count == 1 else False
            if not loop.is_done and (is_stopping or loop.is_checkpoint_due):
                loop.save()
            if is_stopping and not loop.is_done:
                raise KeyboardInterrupt
            progress.advance(run.step_positions, f"loss {loop.state.rows[-1]['loss']:.3f}" if loop.state.rows else "")
    return loop.finish()


class Loop:
    """A run under way: the model that learns, its optimizers, and where it stands."""

    def __init__(self, run: Run, identity: dict[str, Any], group: Group):
        settings = run.settings
        if run.rows.count < settings.batch_size:
            raise InputError(
                f"the stream has {run.rows.count} rows of {settings.context} positions, fewer than one batch of "
                f"{settings.batch_size}: enlarge the corpus, or lower train.batch_size or train.context"
            )
        if group.leads:
            files.fresh_folder(run.output)
        torch.set_num_threads(settings.threads)
        keep_memory()
        self.run, self.settings, self.identity, self.group = run, settings, identity, group
        self.model = run.first_model().to(group.device).train()
        reference = run.first_model().to(group.device) if run.objective.needs.reference else None
        self.learner = Learner(self.model, run, group, reference)
        self.share, self.micro_batch = group.share(settings.batch_size, self.rows_that_fit)
        self.optimizers = optimizers(self.model, self.learner.value_head, settings)
        self.parts = {"model": self.model, **{f"optimizer-{i}": part for i, part in enumerate(self.optimizers)}}
        if self.learner.value_head is not None:
            self.parts["value-head"] = self.learner.value_head
        self.checkpoints = Checkpoints.of(identity)
        self.state = self.checkpoints.restore(self.parts)
        if not group.leads:  # what was counted before comes with the first process
            self.state.text_tokens, self.state.window = 0, {}
        self.window = curve.Window(self.state.window)
        self.live = curve.Live(run.title, group.leads)
        self.forward = prepared(self.learner, settings, group)
        self.guard = Guard(run, self.optimizers, group)
        self.snapshots = {max(round(share * run.steps), 1) for share in settings.snapshots}

    def rows_that_fit(self) -> int:
        """How many rows of a forward pass the device holds; a function of the card, not of what else is on it."""
        device = self.group.device
        if device.type != "cuda":
            return self.settings.batch_size
        memory = step_memory(self.learner, self.settings.context, device)
        return memory.rows(torch.cuda.get_device_properties(device).total_memory)

    @property
    def positions(self) -> int:
        return self.state.step * self.run.step_positions

    @property
    def is_done(self) -> bool:
        return self.state.step == self.run.steps

    @property
    def is_row_due(self) -> bool:
        """Whether the curve gets a row after the step that was taken last."""
        return self.state.step % self.settings.log_every == 0 or self.is_done

    @property
    def is_checkpoint_due(self) -> bool:
        return self.state.step in self.snapshots or self.state.step % self.settings.checkpoint_every == 0

    def step(self) -> float:
        """Take one step; gives the factor of the learning rates that it was taken with."""
        step, settings = self.state.step, self.settings
        self.forward_backward(step, self.batch(step))
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), settings.gradient_clip)
        self.window.add({"gradient_norm": norm})
        self.guard.watch(step, norm)
        rate = schedule.factor(step, self.run.steps, settings.warmup, settings.schedule, settings.decay)
        self.update(rate)
        self.state.step += 1
        return rate

    def batch(self, step: int) -> list[Piece]:
        """This process's pieces of a batch, on the device."""
        rows = self.run.rows.chosen(step, self.settings.batch_size)[self.share]
        tokens, scores = self.run.rows.batch(rows)
        self.state.text_tokens += int((~np.isnan(scores)).sum())
        self.run.rows.stream.release()
        tensors = [torch.from_numpy(array) for array in (tokens, scores)]
        if self.group.device.type == "cuda":  # pinned, so that the copy waits for nothing
            tensors = [tensor.pin_memory().to(self.group.device, non_blocking=True) for tensor in tensors]
        return list(zip(*(tensor.split(self.micro_batch) for tensor in tensors), strict=True))

    def forward_backward(self, step: int, pieces: list[Piece]) -> None:
        """Add up the gradients of the mean loss over the batch."""
        seeded = partial(self.seed, step)
        mean_weight = self.learner.mean_weight(pieces, seeded) if len(pieces) > 1 else None
        for number, (tokens, scores) in enumerate(pieces):
            seeded(number)
            is_last = number + 1 == len(pieces)
            with nullcontext() if self.group.count == 1 or is_last else self.forward.no_sync():
                loss, terms = self.forward(tokens, scores, mean_weight)
                (loss / len(pieces)).backward()
            self.window.add(terms)

    def seed(self, step: int, piece: int) -> None:
        """Make dropout a function of the seed, the step and the rows."""
        if self.settings.dropout:
            row = self.share.start + piece * self.micro_batch
            torch.manual_seed(((self.run.seed * 1_000_003 + step) * 65_536 + row) % 2**64)

    def update(self, rate: float) -> None:
        """Take the optimizers' step at ``rate`` of their learning rates."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def log(self, rate: float) -> None:
        """Add a row to the curve: means since the row before."""
        self.guard.check()
        terms = self.window.merged(self.group).items()
        row = {"positions": float(self.positions), **{name: total / count for name, (total, count) in terms if count}}
        self.state.rows.append(row | {"learning_rate": self.settings.learning_rate * rate})
        self.window = curve.Window({})
        self.live.row(self.state.rows[-1])

    def save(self) -> None:
        """Write a checkpoint, and before it a snapshot where one is due."""
        self.guard.check()
        if self.state.step in self.snapshots:
            self.write_model(self.checkpoints.snapshots / str(self.positions))
        state = replace(self.state, text_tokens=self.text_tokens(), window=self.window.merged(self.group))
        if self.group.leads:
            self.checkpoints.save(state, self.parts)
        self.group.wait()
        gc.collect()

    def finish(self) -> dict[str, Any]:
        """Write the model, its tokenizer, its snapshots and its curve; then its checkpoints have done their service."""
        output = self.run.output
        for file in self.checkpoints.snapshots.glob("*/*") if self.group.leads else ():
            with written(output / SNAPSHOTS / file.parent.name / file.name) as temporary:
                shutil.copyfile(file, temporary)
        if self.group.leads and self.run.tokenizer is not None:
            tokenizer.copy(self.run.tokenizer, output)
        record = self.write_model(output)
        if self.group.leads:
            files.write_text(output / card.FILE, card.text(self.run, record))
            curve.write(self.run.curve, self.state.rows)
            self.checkpoints.clear()
        self.group.wait()
        return record

    def write_model(self, folder: Path) -> dict[str, Any]:
        """Write the model as it is now, in the hub's format, with its record."""
        run, drawn = self.run, self.state.step * self.settings.batch_size
        device = self.group.device.type
        record = {
            **run.text,
            "objective": run.objective.name,
            "stream": run.objective.needs.stream,
            "seed": run.seed,
            "steps": self.state.step,
            "positions": self.positions,
            "text_tokens": self.text_tokens(),
            "documents": int(run.rows.documents(drawn).sum()),
            "epochs": drawn / run.rows.count,
            "skipped_rows": run.rows.skipped,
            "unwanted": run.unwanted(self.model.config.vocab_size),
            "launch": {"processes": self.group.count, "micro_batch": self.micro_batch, "device": device},
            **self.identity,
        }
        if self.group.leads:
            save(folder, self.model, self.learner.value_head, record)
        return record

    def text_tokens(self) -> int:
        """Text tokens among the targets so far, over all processes."""
        return int(self.group.add(torch.tensor(self.state.text_tokens, device=self.group.device)))


def prepared(learner: Learner, settings: TrainSettings, group: Group) -> Any:
    """The learner as the loop calls it: compiled where that pays, and in DDP where there are several processes."""
    is_gpu = group.device.type == "cuda"
    forward: Any = learner
    if settings.compile == "on" or (settings.compile == "auto" and is_gpu):
        for model in filter(None, (learner.model, learner.reference)):
            attend_causally(model, settings.context)
        forward = torch.compile(learner, fullgraph=True)
    if group.count > 1:
        from torch.nn.parallel import DistributedDataParallel

        forward = DistributedDataParallel(forward, device_ids=[group.device] if is_gpu else None)
    return forward
