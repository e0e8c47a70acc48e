"""Personal data by presidio's recognisers of patterns (an optional package): freshstart/scorers/presidio.py.

Its phone numbers come from the library that scrubadub uses too, so that agreement on those says little.
"""

from __future__ import annotations

from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.patterns import UNIT, rates
from freshstart.scorers import Finding, apart
from freshstart.scorers.presidio import DEFAULT, LEAST_CONFIDENCE, LEAST_CONFIDENCE_OF_LINKS, recognizers, spans

try:
    VERSION: str | None = version("presidio-analyzer")
except PackageNotFoundError:
    VERSION = None
SUITS = "pii" if VERSION is not None else None


def judge(folder: Path, task: str) -> Judge:
    _recognizers()  # says what is missing
    title = f"presidio {VERSION}, pattern recognisers"
    return Judge(title, UNIT, "rival", "lower", partial(rates, find=find), find)


def find(text: str) -> list[Finding]:
    """Spans of personal data, in the order of their places; none overlaps another."""
    return apart([Finding(*span) for span in spans(text, _recognizers(), LEAST_CONFIDENCE, LEAST_CONFIDENCE_OF_LINKS)])


@lru_cache(maxsize=1)
def _recognizers() -> list[Any]:
    return recognizers(DEFAULT)
