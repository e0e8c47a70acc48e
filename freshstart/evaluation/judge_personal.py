"""Judges of personal data that share no code with scrubadub: presidio's pattern recognisers, or patterns of our own.

Both look for what has a form (e-mail addresses, links, phone, card and social security numbers, IP addresses), not for
names or places. Both give spans; overlapping spans count once.

``presidio`` (an optional package) is asked recogniser by recogniser, so that it needs no language model. What it is
unsure of without the words around is left out: below ``LEAST_CONFIDENCE``, and links without a scheme (``nx.gr``). The
list of public suffixes is the one in its package, never fetched. Its phone numbers come from the library that scrubadub
uses too, so that agreement on those says little; versions of four numbers (2.0.1.3) are IP addresses to it.

``patterns`` leaves out what it can not be sure of: a phone number needs separators or a country code, a card number its
check digit (Luhn 1960), a link its scheme or ``www``, an IP address two numbers above 9, lest it be a version.
Cost: patterns about 3 MB/s, presidio about 0.4 MB/s on one core, besides 3 s to import it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from freshstart.errors import InputError
from freshstart.scorers import Finding

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
Finder = Callable[[str], list[Finding]]

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])")
LINK = re.compile(r"(?<![\w@])(?:(?:https?|ftp)://|www\.)[^\s<>\"'`{}|\\^\[\]]{3,}", re.IGNORECASE)
IP = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\.?[\w])")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
SOCIAL = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.,:/+-])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"  # +44 20 7946 0958
    r"|(?:1[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[.-]|\d{3}[ ])\d{3}[ .-]\d{4}"  # (212) 555-0123
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,4}"  # 020 7946 0958
    r")(?:[ ]?(?:x|ext\.?)[ ]?\d{1,5})?(?![\w-]|\.\d)"
)
FORMS = (("email", EMAIL), ("link", LINK), ("ip", IP), ("card", CARD), ("social_security", SOCIAL), ("phone", PHONE))


def patterns(text: str) -> list[Finding]:
    """Spans of personal data by our own patterns, in the order of their places; none overlaps another."""
    found = [
        Finding(match.start(), match.end(), kind)
        for kind, form in FORMS
        for match in form.finditer(text)
        if _sure(kind, match[0])
    ]
    return apart(found)


def presidio() -> Finder:
    """Spans by presidio's pattern recognisers; InputError where the package is not there."""
    if presidio_version() is None:
        raise InputError(
            "the judge presidio needs the package presidio-analyzer: install it (pip install presidio-analyzer), or "
            "name the judge patterns in evaluate.judges"
        )
    asked = _recognizers()

    def find(text: str) -> list[Finding]:
        results = [
            result
            for recognizer in asked
            for result in recognizer.analyze(text, recognizer.supported_entities, nlp_artifacts=None)
        ]
        least = {"URL": LEAST_CONFIDENCE_OF_LINKS}
        sure = [one for one in results if one.score >= least.get(one.entity_type, LEAST_CONFIDENCE)]
        return apart([Finding(one.start, one.end, one.entity_type.lower()) for one in sure])

    return find


def presidio_version() -> str | None:
    """The installed version, None where presidio is not installed."""
    try:
        return version("presidio-analyzer")
    except PackageNotFoundError:
        return None


def rates(texts: Sequence[str], find: Finder) -> list[float]:
    """Pieces of personal data per character of each text: the unit of the scorer pii."""
    return [len(find(text)) / len(text) for text in texts]


def apart(found: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of their places; of those that overlap, the one that begins first, then the longer."""
    kept: list[Finding] = []
    for one in sorted(found, key=lambda one: (one.begin, -one.end)):
        if not kept or one.begin >= kept[-1].end:
            kept.append(one)
    return kept


@lru_cache(maxsize=1)
def _recognizers() -> list:
    import tldextract
    from presidio_analyzer import predefined_recognizers

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    options = {"PhoneRecognizer": {"supported_regions": ("US",)}}
    return [getattr(predefined_recognizers, name)(**options.get(name, {})) for name in RECOGNIZERS]


def _sure(kind: str, span: str) -> bool:
    digits = re.sub(r"\D", "", span)
    if kind == "card":
        return _luhn(digits) and len(set(digits)) > 1
    if kind == "ip":
        return sum(int(number) > 9 for number in span.split(".")) >= 2
    if kind == "phone":
        return 7 <= len(digits) <= 20
    return True


def _luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0
