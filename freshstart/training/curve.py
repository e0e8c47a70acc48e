"""The curve of a run: means over a few steps of what each step says of itself, and where they go.

Sums stay on the device until they are asked for, so that no step waits for the processor.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freshstart import files
from freshstart.errors import InputError
from freshstart.training.launch import Group

TENSORBOARD = "FRESHSTART_TENSORBOARD"


class Window:
    """Sums and counts of each term since the last row of the curve, as float64 on the device.

    A term that is NaN (no bad token in the batch) is not counted.
    """

    def __init__(self, saved: dict[str, list[float]]):
        self._saved = saved
        self._sums: dict[tuple[str, ...], Tensor] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        values = torch.stack([term.detach() for term in terms.values()]).double()
        pairs = torch.stack([values.nan_to_num(), (values == values).double()])
        names = tuple(terms)
        self._sums[names] = self._sums[names] + pairs if names in self._sums else pairs

    def merged(self, group: Group) -> dict[str, list[float]]:
        """Sum and count of each term over all processes."""
        sums = dict(self._saved)
        for names, pairs in self._sums.items():
            for name, pair in zip(names, group.add(pairs.clone()).T.tolist(), strict=True):
                sums[name] = [a + b for a, b in zip(sums.get(name, (0.0, 0.0)), pair, strict=True)]
        return sums


class Live:
    """TensorBoard events in the folder that FRESHSTART_TENSORBOARD names; none unless ``shown``."""

    def __init__(self, title: str, shown: bool):
        self._writer: Any = None
        folder = os.environ.get(TENSORBOARD)
        if folder and shown:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError(f"{TENSORBOARD} is set, but tensorboard is missing: pip install tensorboard") from None
            self._writer = SummaryWriter(str(Path(folder, *title.split()[-1].split("/"))))

    def row(self, row: dict[str, float]) -> None:
        if self._writer is not None:
            for name in row.keys() - {"positions"}:
                self._writer.add_scalar(name, row[name], int(row["positions"]))
            self._writer.flush()


def write(path: Path, rows: list[dict[str, float]]) -> None:
    """A CSV with one column for each term and one row for each ``log_every`` steps, means over those steps.

    A cell is empty where a term had no token to be a mean of.
    """
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    files.write_text(path, text.getvalue())
