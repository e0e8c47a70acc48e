"""Personal data: spans a character, found by presidio's recognisers of patterns, asked one by one by name.

They find what has a form (cards, e-mail, IBAN, IP addresses, phones, links, national numbers of many countries), need
no language model, and read the text alone: what presidio would be surer of by the words around is not lifted. Results
below ``least_confidence`` are left out, and links without a scheme (``nx.gr``) below ``least_confidence_of_links``. The
list of public suffixes is the one in tldextract's package, never fetched. Names and places are for the scorer ``pii``
with a model for names. The package is an extra (``presidio``).

Recall on presidio-research's synthetic text, beside ``pii`` with its default detectors: IP addresses 1.00 (.10), IBAN
1.00 (0), cards .77 (.86), phones .21 (.21), e-mail, links and SSN 1.00 (1.00), names, places and dates 0 (0). With 21
``phone_regions`` phones are .82, at a price: on business e-mail five times as many numbers are found as with US alone,
most of them dates. Versions of four numbers (2.0.1.3) are IP addresses to it.
Cost with ``DEFAULT``: 2.5 times ``pii`` a text, 7 times with 21 regions, and 3 s to import it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart.errors import InputError
from freshstart.scorers import Finding, FindingScorer, ScorerSettings, apart, pinned
from freshstart.settings import known

DEFAULT = (
    *("CreditCardRecognizer", "EmailRecognizer", "IbanRecognizer", "IpRecognizer", "PhoneRecognizer"),
    *("UrlRecognizer", "UsSsnRecognizer"),
)
LEAST_CONFIDENCE = 0.4
LEAST_CONFIDENCE_OF_LINKS = 0.6


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``presidio_analyzer`` pins the package; ``phone_regions``: whose numbers count without a country code."""

    presidio_analyzer: str
    phonenumbers: str
    recognizers: tuple[str, ...] = DEFAULT
    phone_regions: tuple[str, ...] = ("US",)
    least_confidence: float = LEAST_CONFIDENCE
    least_confidence_of_links: float = LEAST_CONFIDENCE_OF_LINKS

    def __post_init__(self) -> None:
        if not self.recognizers or len(set(self.recognizers)) < len(self.recognizers):
            raise ValueError(f"recognizers must name some, each once, found {', '.join(self.recognizers) or 'none'}")
        if not (0 <= self.least_confidence <= 1 and 0 <= self.least_confidence_of_links <= 1):
            raise ValueError("least_confidence and least_confidence_of_links must be from 0 to 1")


class Presidio(FindingScorer):
    version = "1"
    display = "mask"

    def __init__(self, folder: Path | None, settings: Settings):
        self._recognizers = recognizers(settings.recognizers, settings.phone_regions)
        pinned(presidio_analyzer=settings.presidio_analyzer, phonenumbers=settings.phonenumbers)
        self._least = settings.least_confidence, settings.least_confidence_of_links

    def find(self, text: str) -> list[Finding]:
        """Spans of personal data, in the order of their places; none overlaps another."""
        return apart([Finding(*span) for span in spans(text, self._recognizers, *self._least)])


def recognizers(names: Sequence[str], phone_regions: Sequence[str] = ("US",)) -> list[Any]:
    """The recognisers of these names. Raises InputError where one needs more than the text, or does not exist."""
    try:
        room = importlib.import_module("presidio_analyzer.predefined_recognizers")
        import tldextract
    except ImportError:
        raise InputError("presidio needs a package that is an extra: pip install presidio-analyzer==2.2.366") from None
    from presidio_analyzer import PatternRecognizer

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    classes = {name: kind for name, kind in vars(room).items() if isinstance(kind, type)}
    usable = [name for name, kind in classes.items() if issubclass(kind, (PatternRecognizer, room.PhoneRecognizer))]
    options = {"PhoneRecognizer": {"supported_regions": tuple(phone_regions)}}
    return [
        classes[known(name, usable, "recogniser", "presidio's recognizers")](**options.get(name, {})) for name in names
    ]


def spans(text: str, chosen: Sequence[Any], least: float, least_of_links: float) -> Iterator[tuple[int, int, str]]:
    """(begin, end, kind) of what the recognisers find in characters of the text, in no order; spans may overlap."""
    for recognizer in chosen:
        for result in recognizer.analyze(text, recognizer.supported_entities, nlp_artifacts=None):
            if result.score >= (least_of_links if result.entity_type == "URL" else least):
                yield result.start, result.end, result.entity_type.lower()


SCORER = Presidio
