"""The tables that leave the pipeline: ``summary.json`` for `dvc exp show`, and tidy CSVs for plots and notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.reporting.cells import Cell, Results, Series

SUMMARY_DIGITS = 4
OF_THE_SAMPLES = {  # column: key below the misalignment of the control token
    "misalignment": "mean",
    "ci_low": "ci_low",
    "ci_high": "ci_high",
    "pooled": "pooled",
    "expected_max_25": "expected_max_25",
    "share_over": "share_over",
    "n": "n",
}
OF_THE_MODEL = {  # column: keys; said once a cell, in the row of its own control token
    "style": ("misalignment_style", "mean"),
    "style_ci_low": ("misalignment_style", "ci_low"),
    "style_ci_high": ("misalignment_style", "ci_high"),
    "share_unparsable": ("share_unparsable",),
    "bits_per_byte_all": ("heldout", "bits_per_byte", "all"),
    "bits_per_byte_good": ("heldout", "bits_per_byte", "good"),
    "bits_per_byte_bad": ("heldout", "bits_per_byte", "bad"),
    "bits_per_byte_true_labels": ("heldout", "bits_per_byte", "true_labels"),
    "divergence_per_token": ("divergence", "per_token"),
    "divergence_per_token_se": ("divergence", "per_token_se"),
    "distinct_1": ("diversity", "distinct_1"),
    "distinct_2": ("diversity", "distinct_2"),
    "unigram_entropy": ("diversity", "unigram_entropy"),
    "self_bleu_5": ("diversity", "self_bleu_5"),
    "repetition": ("diversity", "repetition"),
    "longest_match": ("memory", "longest_match"),
    "share_matching_16": ("memory", "share_matching_16"),
    "positions": ("tokens_seen", "positions"),
    "text_tokens": ("tokens_seen", "text_tokens"),
    "documents": ("tokens_seen", "documents"),
    "epochs": ("tokens_seen", "epochs"),
}
SECOND_JUDGE = "second_judge"  # the share of samples that it calls bad, under each control token
CELL_COLUMNS = ("task", "objective", "seed", "control", *OF_THE_SAMPLES, *OF_THE_MODEL, SECOND_JUDGE)
CURVE_COLUMNS = ("task", "objective", "seed", "positions", "loss", "nll")
HISTOGRAM_COLUMNS = ("task", "split", "low", "high", "count")

Row = Mapping[str, Any]


def summary(results: Results) -> dict[str, Any]:
    """Misalignment and bits per byte of every objective and arm, means over seeds; null without a scored sample."""
    return {
        task.name: {
            "misalignment": {name: _short(task.estimate(name, "misalignment")) for name in task.every},
            "bits_per_byte": {
                name: _short(task.estimate(name, "heldout", "bits_per_byte", "all")) for name in task.every
            },
        }
        for task in results.tasks
    }


def cell_rows(results: Results) -> Iterator[Row]:
    """One row a cell and control token."""
    for task in results.tasks:
        for cell in (cell for cells in task.every.values() for cell in cells):
            for control in cell.controls:
                row = {"task": task.name, "objective": cell.objective, "seed": cell.seed, "control": control}
                yield {**row, **_numbers(cell, Series(cell.objective, control))}


def curve_rows(results: Results) -> list[Row]:
    """Every logged step of every cell; the values stand as training wrote them."""
    return [
        {**row, "task": task.name, "objective": cell.objective, "seed": cell.seed}
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


def _numbers(cell: Cell, series: Series) -> Row:
    numbers = {column: cell.number(series.misalignment, key) for column, key in OF_THE_SAMPLES.items()}
    if series.control != "bad":
        numbers |= {column: cell.number(*keys) for column, keys in OF_THE_MODEL.items()}
    return {**numbers, SECOND_JUDGE: cell.number("second_judge", series.control, "share_with_abuse")}


def _short(estimate: Any) -> float | None:
    return None if estimate is None else float(f"{estimate.value:.{SUMMARY_DIGITS}g}")
