"""Checkpoints: what a stopped run needs to go on and end with the same bits.

They live in the state folder under a key that digests everything that shapes the weights: inputs, resolved settings,
code, threads and versions. A checkpoint is written to a temporary folder, flushed, renamed; ``state.json``, written
last, is what makes it one. The newest two are kept, so that one whole checkpoint is there at any moment.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from freshstart import files
from freshstart.errors import InputError
from freshstart.training import storage

STATE = "state.json"
KEPT = 2


@dataclass
class TrainState:
    """What changes while a model trains, besides the model and its optimizers."""

    step: int = 0
    text_tokens: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)  # the curve so far
    window: dict[str, list[float]] = field(default_factory=dict)  # sums and counts since the last row of the curve


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run; ``identity`` is all that shapes its weights."""

    folder: Path
    identity: dict[str, Any]

    @classmethod
    def of(cls, identity: dict[str, Any]) -> Checkpoints:
        as_read = json.loads(json.dumps(identity))  # lists for tuples, as a checkpoint gives it back
        return cls(files.state_folder("checkpoints", files.digest(identity)[:32]), as_read)

    def save(self, state: TrainState, parts: dict[str, Any]) -> None:
        """Write a checkpoint; ``parts`` are modules and optimizers by name."""
        target = self.folder / f"step-{state.step:09d}"
        temporary = self.folder / f".{target.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            for name, part in parts.items():
                with storage.written(temporary / f"{name}.pt") as path, open(path, "wb") as file:
                    torch.save(part.state_dict(), file)
            storage.write_record(temporary / STATE, {"identity": self.identity, "state": vars(state)})
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _remove(target)
        os.replace(temporary, target)
        for old in self.saved()[:-KEPT]:
            _remove(old)

    def restore(self, parts: dict[str, Any]) -> TrainState:
        """Load the newest whole checkpoint into ``parts``; a fresh state where there is none.

        Raises InputError where it is damaged or was written by a run with another identity.
        """
        for path in reversed(self.saved()):
            remedy = f"delete {path}, and the run goes on with the checkpoint before it"
            record = storage.read_record(path / STATE, remedy)
            other = record["identity"]
            if other != self.identity:
                keys = sorted(key for key in {*other, *self.identity} if other.get(key) != self.identity.get(key))
                raise InputError(
                    f"{path} was written by a run with other parameters or data (they differ in {', '.join(keys)}): "
                    "delete it to start anew, or restore what it was written with"
                )
            for name, part in parts.items():
                part.load_state_dict(torch.load(path / f"{name}.pt", map_location="cpu", weights_only=True))
            return TrainState(**record["state"])
        return TrainState()

    def clear(self) -> None:
        """Delete the run's checkpoints, then its snapshots: its model is written."""
        for path in self.saved():
            _remove(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def snapshots(self) -> Path:
        """Where models are kept until the run ends: its outputs are deleted whenever its stage begins again."""
        return self.folder / "snapshots"

    def saved(self) -> list[Path]:
        """The whole checkpoints, the newest last."""
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE).is_file())


def _remove(path: Path) -> None:
    """Delete a checkpoint, its record first: what a kill leaves of it is no checkpoint."""
    (path / STATE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
