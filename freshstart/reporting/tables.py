"""The tables that leave the pipeline: ``summary.json`` for `dvc exp show`, and tidy CSVs for plots and notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.evaluation.metrics import ESTIMATE, Metric
from freshstart.reporting.cells import BITS, Results

SUMMARY_DIGITS = 4
CURVE_COLUMNS = ("task", "objective", "seed", "positions", "loss", "nll")
HISTOGRAM_COLUMNS = ("task", "split", "low", "high", "count")

Row = Mapping[str, Any]


def summary(results: Results) -> dict[str, Any]:
    """Misalignment and bits per byte of every objective and arm, means over seeds; null without a scored sample."""
    return {
        task.name: {
            "misalignment": {name: _short(task.misalignment(name)) for name in task.every},
            "bits_per_byte": {name: _short(task.estimate(name, *BITS)) for name in task.every},
        }
        for task in results.tasks
    }


def cell_columns(results: Results) -> list[str]:
    """Which cell a row is of, and the metrics that have a column; an interval adds the two of its bounds."""
    named = {name: None for task in results.tasks for metric in task.metrics for name, _ in _columns(metric)}
    return ["task", "objective", "seed", "control", "own", *named]


def cell_rows(results: Results) -> Iterator[Row]:
    """One row a cell and control; ``own`` is 1 where it is the cell's own, and numbers of the model stand there."""
    for task in results.tasks:
        for series in task.rows:
            metrics = [metric for metric in task.metrics if metric.is_under_control or series.own]
            for cell in task.every[series.name]:
                yield {
                    "task": task.name,
                    "objective": cell.name,
                    "seed": cell.seed,
                    "control": series.control,
                    "own": int(series.own),
                    **{
                        name: cell.number(*metric.under(series.control), *below)
                        for metric in metrics
                        for name, below in _columns(metric)
                    },
                }


def curve_rows(results: Results) -> list[Row]:
    """Every logged step of every cell; the values stand as training wrote them."""
    return [
        {**row, "task": task.name, "objective": cell.name, "seed": cell.seed}
        for task in results.tasks
        for cells in task.every.values()
        for cell in cells
        for row in cell.curve
    ]


def curve_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """The shared columns, then every objective's own terms, by name."""
    return (*CURVE_COLUMNS, *sorted({name for row in rows for name in row} - set(CURVE_COLUMNS)))


def histogram_rows(results: Results) -> Iterator[Row]:
    """One row a bin of the segments' scores."""
    for task in results.tasks:
        for split, scores in task.scores.items():
            bins = scores["segment_score"]["histogram"]
            for low, high, count in zip(bins["edges"][:-1], bins["edges"][1:], bins["counts"], strict=True):
                yield {"task": task.name, "split": split, "low": low, "high": high, "count": count}


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Row]) -> None:
    """Write the rows; what a row lacks, or has as None, is empty."""
    text = io.StringIO(newline="")
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


def _short(estimate: Any) -> float | None:
    return None if estimate is None else float(f"{estimate.value:.{SUMMARY_DIGITS}g}")
