"""Personal data: spans a character, found by scrubadub's detectors, and names and addresses where they are asked for.

Each document is read as a whole and a span belongs to the segment that holds its first character; touching and
overlapping spans of several detectors count once, as scrubadub merges them, under the kind of the first.

Detectors are named one by one: scrubadub's default set changes with its plug-ins. ``DETECTORS`` are all of scrubadub
2.0.1 that can fire in en_US, but for ``text_blob_name`` (takes proper nouns for names, needs a download of NLTK's),
``tagged`` and ``user_supplied`` (look up what is known already). ``address`` is pyap's, and ``names`` a spaCy
pipeline's (``pii_names``). All together are the original's list. ``date_of_birth`` counts dates near a word such as
born, of ages from 18 to 100, reckoned from ``reference_date``, so that scores do not change with the calendar.

Much personal data is missed, and some of what is found is none: docs/scoring.md says what, with recall by type.
Cost on one core: 8 to 18 MB/s with the default detectors, 3.5 to 6.4 times as fast as scrubadub on whole documents and
10 times as fast as a sentence at a time (``pii_fast``); 1 to 3 MB/s with date_of_birth and skype, as documents with a
word for birth are read by dateparser at 0.1 MB/s; addresses 1.5 to 3 MB/s. `python -m bench._pii` measures it.
Source: the paper's PII task (Korbak et al. 2023, section 3).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from freshstart.scorers import Finding, FindingScorer, ScorerSettings, pii_fast, pii_names, pinned
from freshstart.scorers.pii_names import Names

SCRUBADUB_DETECTORS = (
    *("credential", "credit_card", "date_of_birth", "email", "phone", "skype", "social_security_number"),
    *("twitter", "url"),
)
DETECTORS = ("address", *SCRUBADUB_DETECTORS)
DATE = "%Y-%m-%d"
NAMES = "names"  # the folder of the model that finds names, below the scorer's


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``reference_date`` (YYYY-MM-DD) is needed by the detector date_of_birth alone.

    The version of ``pyap`` must be pinned for the detector address and that of ``spacy`` for names; those of
    ``dateparser`` (date_of_birth) and ``textblob`` (skype) may be.
    """

    scrubadub: str
    phonenumbers: str
    detectors: tuple[str, ...]
    reference_date: str | None = None
    names: Names | None = None
    pyap: str | None = None
    spacy: str | None = None
    dateparser: str | None = None
    textblob: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.detectors if name not in DETECTORS]
        if unknown or not self.detectors:
            raise ValueError(f"detectors must be some of {', '.join(DETECTORS)}, found {', '.join(unknown) or 'none'}")
        if len(set(self.detectors)) < len(self.detectors):
            raise ValueError(f"detectors names one twice: {', '.join(self.detectors)}")
        if self.reference_date is not None:
            datetime.strptime(self.reference_date, DATE)
        elif "date_of_birth" in self.detectors:
            raise ValueError("the detector date_of_birth needs reference_date, such as '2023-01-01'")
        if "address" in self.detectors and self.pyap is None:
            raise ValueError("the detector address needs pyap, the version of the package to score with")
        if self.names is not None and self.spacy is None:
            raise ValueError("names needs spacy, the version of the package to score with")


class Pii(FindingScorer):
    version = "2"  # 1: the ages of dates of birth were checked a second time against today
    display = "mask"
    sources = ("freshstart.scorers.pii_fast", "freshstart.scorers.pii_names")

    def __init__(self, folder: Path | None, settings: Settings):
        packages = ("scrubadub", "phonenumbers", "pyap", "spacy", "dateparser", "textblob")
        pinned(**{package: getattr(settings, package) for package in packages})
        fast = all(getattr(settings, package) in versions for package, versions in pii_fast.CHECKED.items())
        self._finders = [(name, _finder(name, settings.reference_date, fast)) for name in settings.detectors]
        self._names: Callable[[str], Iterable[tuple[int, int, str]]] | None = None
        if settings.names is not None:
            self._names = pii_names.name_finder(Path(folder or "", NAMES), settings.names)

    def find(self, text: str) -> list[Finding]:
        """Merged spans of personal data, in the order of their places."""
        return [Finding(*span) for span in pii_fast.merged(self._spans(text))]

    def _spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        reading = pii_fast.Reading(text)
        for name, find in self._finders:
            for begin, end in find(reading):
                yield begin, end, name
        if self._names is not None:
            yield from self._names(text)


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Copy the model that finds names into ``folder``; gives its digest."""
    if settings.names is None:
        return {}
    digest = pii_names.model_digest(settings.names)
    shutil.copytree(pii_names.model_folder(settings.names), folder / NAMES)
    Pii(folder, settings)  # refuses a model without the entities
    return {"names_sha256": digest}


def _finder(name: str, reference_date: str | None, fast: bool) -> Callable[[pii_fast.Reading], pii_fast.Spans]:
    if name == "address":
        find = pii_names.address_finder()
        return lambda reading: find(reading.text)
    from scrubadub.detectors.catalogue import detector_catalogue

    detector = detector_catalogue.get(name)(locale="en_US")
    plain = pii_fast.own_way(detector)
    if name == "date_of_birth" and reference_date is not None:
        plain = today(datetime.strptime(reference_date, DATE))(plain)
    return pii_fast.finder(detector, plain) if fast else plain


@contextmanager
def today(reference: datetime) -> Iterator[None]:
    """Give scrubadub's date-of-birth detector a fixed today, for finding dates and for checking them; it offers no
    argument for one."""
    import dateparser
    from dateparser.search import search_dates
    from scrubadub.detectors import date_of_birth as finding
    from scrubadub.filth import date_of_birth as checking

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return reference

        @classmethod
        def today(cls) -> datetime:
            return reference

    base = {"RELATIVE_BASE": reference}
    changes = {
        (finding, "datetime"): Frozen,
        (finding, "search_dates"): partial(search_dates, settings=base),
        (checking, "datetime"): SimpleNamespace(date=Frozen),
        (checking, "dateparser"): SimpleNamespace(parse=partial(dateparser.parse, settings=base)),
    }
    before = {place: getattr(*place) for place in changes}
    try:
        for place, value in changes.items():
            setattr(*place, value)
        yield
    finally:
        for place, value in before.items():
            setattr(*place, value)


SCORER = Pii
