"""Personal data by patterns of our own, which share no code with scrubadub.

They look for what has a form (e-mail addresses, links, phone, card and social security numbers, IP addresses), not for
names or places, and leave out what they can not be sure of: a phone number needs separators or a country code, a card
number its check digit (Luhn 1960), a link its scheme or ``www``, an IP address two numbers above 9, lest it be a
version. Overlapping spans count once. Cost: about 3 MB/s on one core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from freshstart.evaluation.judges import Find, Judge
from freshstart.scorers import Finding, apart

SUITS = "pii"
UNIT = "pieces of personal data per character"

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


def judge(folder: Path, task: str) -> Judge:
    score = partial(rates, find=find)
    return Judge("own patterns of personal data", UNIT, "rival", "lower", score, find)


def find(text: str) -> list[Finding]:
    """Spans of personal data, in the order of their places; none overlaps another."""
    findings = [
        Finding(match.start(), match.end(), kind)
        for kind, form in FORMS
        for match in form.finditer(text)
        if _sure(kind, match[0])
    ]
    return apart(findings)


def rates(texts: Sequence[str], find: Find) -> list[float]:
    """Pieces of personal data per character of each text: the unit of the scorer pii."""
    return [len(find(text)) / len(text) for text in texts]


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
