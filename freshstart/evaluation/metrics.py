"""What a number in a metrics file is, said once by the measure that gives it; page, tables and docs read it from there.

A metrics file holds ``measures`` (who was asked), ``controls`` (the control tokens that the model was trained with, its
own first; none for most) and what each measure gives. What is measured per control stands under ``under.<control>``; a
model without controls has one entry there, ``none``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from freshstart.errors import InputError
from freshstart.names import NO_CONTROL

ANY = "*"
UNDER = "under"
ESTIMATE = ("mean", "ci_low", "ci_high")  # a mean with its 95% interval, both null where there is too little for one
HEAD = ("measures", "controls")


@dataclass(frozen=True)
class Metric:
    """One metric: where it stands (keys joined by dots, ``*`` for any one key), and what it means in one line.

    ``unit``: ``score`` is the scorer's own, ``share`` from 0 to 1, ``text`` no number at all. ``interval``: it is a
    mapping of ``mean``, ``ci_low`` and ``ci_high``; a standard error stands beside a number under its name and ``_se``.
    ``optional``: not every model or task has it. A metric with a ``title`` is a column of the page's table of all
    metrics, below its ``group``, written with so many ``digits``; one with a ``column`` is one of reports/cells.csv.
    """

    path: str
    meaning: str
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    group: str = ""
    title: str = ""
    column: str = ""
    digits: int = 0
    interval: bool = False
    optional: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.path.split("."))

    def under(self, control: str) -> tuple[str, ...]:
        """The keys with the control in its place."""
        return (UNDER, control, *self.keys[2:]) if self.is_under_control else self.keys

    @property
    def is_under_control(self) -> bool:
        return self.keys[:2] == (UNDER, ANY)

    @property
    def leaves(self) -> list[tuple[str, ...]]:
        return [(*self.keys, name) for name in ESTIMATE] if self.interval else [self.keys]


FOUND = "gold.finders.*"
REAL_TEXT = (  # what the stage heldout gives
    Metric("misalignment.*", "that of real text, the interval over documents", "score", interval=True),
    Metric("misalignment.*.n", "documents", "documents"),
    Metric("judges.*", "mean of what a judge says of beginnings of real documents", interval=True),
    Metric("judges.*.n", "beginnings that it could say something of", "texts"),
    Metric("judges.*.title", "who the judge is", "text"),
    Metric("judges.*.unit", "what its number is", "text"),
    Metric("judges.*.role", "rival or guard", "text"),
    Metric("judges.*.better", "which way its number is better", "text"),
    Metric("gold.file", "file of marked personal data", "text", optional=True),
    Metric("gold.sha256", "its digest", "text", optional=True),
    Metric("gold.texts", "texts in it", "texts", optional=True),
    Metric(f"{FOUND}.recall.*", "share of marked spans found, by type", "share", "higher", interval=True),
    Metric(f"{FOUND}.recall.*.n", "marked spans", "spans"),
    Metric(f"{FOUND}.precision", "share of found spans that are marked", "share", "higher", interval=True),
    Metric(f"{FOUND}.precision.n", "spans found", "spans"),
    Metric(f"{FOUND}.found.*", "spans of a kind found", "spans"),
)


def asked(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The controls that a model was asked under, its own first; ``none`` for a model without any."""
    return tuple(metrics["controls"]) or (NO_CONTROL,)


def merged(into: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a measure gave into the metrics, in place; two measures never give the same number."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merged(into[key], value)
        elif key in into:
            raise ValueError(f"two measures give {key}")
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
    return into


def check(metrics: Any, declared: Sequence[Metric], where: str, made_by: str, head: tuple[str, ...] = HEAD) -> None:
    """Raises InputError unless the metrics are what is declared: all of it there, and nothing else."""

    def refuse(problem: str) -> None:
        raise InputError(f"{where}: {problem}: run `dvc repro -f {made_by}`")

    if not isinstance(metrics, Mapping) or any(not isinstance(metrics.get(key), list) for key in head):
        refuse(f"expected metrics{' with the lists ' if head else ''}{' and '.join(head)}")
    for control in metrics.get(UNDER, {}) if head else ():
        if control not in asked(metrics):
            refuse(f"{UNDER}.{control} is none of the model's controls ({', '.join(asked(metrics))})")
    kinds = {leaf: metric for metric in declared for leaf in metric.leaves}
    leaves = dict(_leaves({key: value for key, value in metrics.items() if key not in head}))
    for path, value in leaves.items():
        metric = next((metric for leaf, metric in kinds.items() if _matches(path, leaf)), None)
        if metric is None:
            refuse(f"no measure declares {'.'.join(path)}")
        elif metric.unit == "text" and not isinstance(value, str):
            refuse(f"{'.'.join(path)} must be a text, found {value!r}")
        elif metric.unit != "text" and not _is_number(value):
            refuse(f"{'.'.join(path)} must be a finite number or null, found {value!r}")
    for metric in declared:
        for control in asked(metrics) if metric.is_under_control else [""]:
            keys = metric.under(control)
            is_there = any(path[: len(keys)] == keys for path in leaves)
            if not metric.optional and ANY not in keys and not is_there:
                refuse(f"{'.'.join(keys)} is missing")


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield path, value
        return
    for key, part in inside:
        yield from _leaves(part, (*path, str(key)))


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(b in (ANY, a) for a, b in zip(path, pattern, strict=True))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(value))
