"""The tables that leave the pipeline: ``summary.json`` for `dvc exp show`, and tidy CSVs for plots and notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.evaluation.metrics import ESTIMATE, Metric
from freshstart.reporting.cells import BITS, Estimate, Task

SUMMARY_DIGITS = 4

Row = Mapping[str, Any]


def summary(tasks: Sequence[Task]) -> dict[str, Any]:
    """Misalignment and bits per byte of every objective and arm, means over seeds; null without a scored sample. How
    many warnings there are of the task's data."""
    return {
        task.name: {
            "misalignment": {name: _short(task.misalignment(name)) for name in task.every},
            "bits_per_byte": {name: _short(task.estimate(name, *BITS)) for name in task.every},
            "warnings": len(task.warnings),
        }
        for task in tasks
    }


def cell_rows(tasks: Sequence[Task]) -> Iterator[Row]:
    """One row a cell and control, with the metrics that have a column; an interval adds the two of its bounds.

    ``own`` is 1 where the control is the cell's own, and numbers of the model stand there.
    """
    for task in tasks:
        for series in task.rows:
            for cell in task.every[series.name]:
                row = {"task": task.name, "objective": cell.name, "seed": cell.seed, "control": series.control}
                row["own"] = int(series.is_own)
                for metric in task.metrics:
                    if metric.is_under_control or series.is_own:
                        keys = metric.under(series.control)
                        row |= {column: cell.number(*keys, *below) for column, below in _columns(metric)}
                yield row


def curve_rows(tasks: Sequence[Task]) -> Iterator[Row]:
    """Every logged step of every cell; the values stand as training wrote them, each objective's own terms last."""
    for task in tasks:
        for cell in (cell for cells in task.every.values() for cell in cells):
            for row in cell.curve:
                yield {"task": task.name, "objective": cell.name, "seed": cell.seed, **row}


def histogram_rows(tasks: Sequence[Task]) -> Iterator[Row]:
    """One row a bin of the segments' scores."""
    for task in tasks:
        for split, scores in task.scores.items():
            bins = scores["segment_score"]["histogram"]
            for low, high, count in zip(bins["edges"][:-1], bins["edges"][1:], bins["counts"], strict=True):
                yield {"task": task.name, "split": split, "low": low, "high": high, "count": count}


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows; what a row lacks, or has as None, is empty."""
    rows = list(rows)
    text = io.StringIO(newline="")
    columns = dict.fromkeys(column for row in rows for column in row)
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _columns(metric: Metric) -> list[tuple[str, tuple[str, ...]]]:
    """The columns of a metric, each with the keys below the metric's own."""
    if not metric.column:
        return []
    bounds = [(f"{metric.column}_{bound}", (bound,)) for bound in ESTIMATE[1:]]
    return [(metric.column, ESTIMATE[:1]), *bounds] if metric.interval else [(metric.column, ())]


def _short(estimate: Estimate | None) -> float | None:
    return None if estimate is None else float(f"{estimate.value:.{SUMMARY_DIGITS}g}")
