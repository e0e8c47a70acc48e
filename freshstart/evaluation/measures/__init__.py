"""Measures: what is asked of a subject. One file each (``Kind``), found by its name.

A file may import torch and what stands on it in functions alone, so that the page can read what it declares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

KIND = "def measure("  # what the file of a measure defines


class Kind(Protocol):
    """The module of a measure: what it declares, and how it asks. It gives all that it declares and nothing else.

    Its docstring defines it (formula, source), and ``PAPER``, if it has one, says what Korbak et al. (2023) measured:
    both stand in docs/evaluation.md.
    """

    METRICS: tuple[Metric, ...]
    measure: Callable[[Subject, Context], dict[str, Any]]
