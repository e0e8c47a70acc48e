"""Personal data by presidio's pattern recognisers (an optional package), asked one by one: no language model is needed.

What it is unsure of without the words around is left out: below ``LEAST_CONFIDENCE``, and links without a scheme
(``nx.gr``). The list of public suffixes is the one in its package, never fetched. Its phone numbers come from the
library that scrubadub uses too, so that agreement on those says little; versions of four numbers (2.0.1.3) are IP
addresses to it. Cost: about 0.4 MB/s on one core, besides 3 s to import it.
"""

from __future__ import annotations

from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from freshstart.errors import InputError
from freshstart.evaluation.judges import Judge
from freshstart.evaluation.judges.patterns import UNIT, apart, rates
from freshstart.scorers import Finding

try:
    VERSION: str | None = version("presidio-analyzer")
except PackageNotFoundError:
    VERSION = None
SUITS = "pii" if VERSION is not None else None
LEAST_CONFIDENCE = 0.4
LEAST_CONFIDENCE_OF_LINKS = 0.6
RECOGNIZERS = (
    "CreditCardRecognizer",
    "EmailRecognizer",
    "IbanRecognizer",
    "IpRecognizer",
    "PhoneRecognizer",
    "UrlRecognizer",
    "UsSsnRecognizer",
)


def judge(folder: Path, task: str) -> Judge:
    if VERSION is None:
        raise InputError(
            "the judge presidio needs the package presidio-analyzer: install it (pip install presidio-analyzer), or "
            "name the judge patterns in evaluate.judges"
        )
    title = f"presidio {VERSION}, pattern recognisers"
    return Judge(title, UNIT, "rival", "lower", partial(rates, find=find), find)


def find(text: str) -> list[Finding]:
    """Spans of personal data, in the order of their places; none overlaps another."""
    results = [
        result
        for recognizer in _recognizers()
        for result in recognizer.analyze(text, recognizer.supported_entities, nlp_artifacts=None)
    ]
    least = {"URL": LEAST_CONFIDENCE_OF_LINKS}
    sure = [result for result in results if result.score >= least.get(result.entity_type, LEAST_CONFIDENCE)]
    return apart([Finding(result.start, result.end, result.entity_type.lower()) for result in sure])


@lru_cache(maxsize=1)
def _recognizers() -> list:
    import tldextract
    from presidio_analyzer import predefined_recognizers

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    options = {"PhoneRecognizer": {"supported_regions": ("US",)}}
    return [getattr(predefined_recognizers, name)(**options.get(name, {})) for name in RECOGNIZERS]
