"""Personal data: spans a character, found by scrubadub's detectors.

Detectors are named one by one: scrubadub's own default set changes with whatever plug-in is installed. Each document
is read as a whole and a span belongs to the segment that holds its first character; touching and overlapping spans of
several detectors count once, as scrubadub merges them, under the kind of the first. ``date_of_birth`` reckons ages, and
reads relative dates, from ``reference_date`` instead of from today, so that scores do not change with the calendar.

Known false positives: ``social_security_number`` fires inside longer dotted numbers, ``phone`` on pairs of decimals,
``twitter`` on ``@param`` and every other tag or decorator (leave it out where the corpus holds code).
Cost: about 2 MB/s on one core, three fifths of it phone numbers; date_of_birth is twenty times slower.
Source: the paper's PII task (Korbak et al. 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from freshstart.scorers import Finding, FindingScorer, ScorerSettings, pinned

DETECTORS = (
    "credential",
    "credit_card",
    "date_of_birth",
    "email",
    "phone",
    "skype",
    "social_security_number",
    "twitter",
    "url",
)


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``reference_date`` (YYYY-MM-DD) is needed by the detector date_of_birth alone."""

    scrubadub: str
    phonenumbers: str
    detectors: tuple[str, ...]
    reference_date: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.detectors if name not in DETECTORS]
        if unknown or not self.detectors:
            raise ValueError(f"detectors must be some of {', '.join(DETECTORS)}, found {', '.join(unknown) or 'none'}")
        if "date_of_birth" in self.detectors and self.reference_date is None:
            raise ValueError("the detector date_of_birth needs reference_date, such as '2023-01-01'")
        if self.reference_date is not None:
            datetime.strptime(self.reference_date, "%Y-%m-%d")


class Pii(FindingScorer):
    version = "1"
    display = "mask"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        scrubadub: str,
        phonenumbers: str,
        detectors: Sequence[str],
        reference_date: str | None = None,
    ):
        pinned(scrubadub=scrubadub, phonenumbers=phonenumbers)
        from scrubadub.scrubbers import Scrubber

        if reference_date is not None:
            _freeze(datetime.strptime(reference_date, "%Y-%m-%d"))
        self._scrubber = Scrubber(detector_list=list(detectors), post_processor_list=[], locale="en_US")

    def find(self, text: str) -> list[Finding]:
        """Merged spans of personal data, in the order of their places."""
        filths = self._scrubber.iter_filth(text, run_post_processors=False)
        spans = [Finding(filth.beg, filth.end, _kind(filth)) for filth in filths]
        return sorted(spans, key=lambda span: (span.begin, span.end))


def _kind(filth: object) -> str:
    """The kind of a span, or of the first one in a merged span."""
    first = min(getattr(filth, "filths", [filth]), key=lambda part: (part.beg, -part.end))
    return first.detector_name


def _freeze(reference: datetime) -> None:
    """Give scrubadub's date-of-birth detector a fixed today; it offers no argument for one."""
    from dateparser.search import search_dates
    from scrubadub.detectors import date_of_birth

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return reference

    date_of_birth.datetime = Frozen
    date_of_birth.search_dates = partial(search_dates, settings={"RELATIVE_BASE": reference})


SCORER = Pii
