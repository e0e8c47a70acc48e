"""scrubadub's detectors over a whole document without their slow searches: the same spans, many times sooner.

Every shortcut rests on something that the detector's own pattern can not do without, found by a faster search; the
detector's own pattern, or its own code, then decides:

- ``credential`` begins with ``username``, ``login`` or ``u:``, ``twitter`` with ``@``: the pattern is tried there and
  nowhere else. That of ``url`` is fast as it is.
- ``email`` has ``@`` or the word ``at`` between white space, then a domain with a dot or the word ``dot``. What stands
  before is one run of at most 64 characters that can hold neither.
- ``phone``, ``credit_card``, ``social_security_number``: only *runs* are read, the longest stretches of characters that
  may stand in a phone number, and of these the ones with seven digits close together, a plus before a digit, the prefix
  011, an extension, or digits other than 0-9. A number without a plus and without 011 is read as one of +1, where none
  has fewer than seven digits. Within a run ``phonenumbers`` decides, told at once where the digits alone rule a number
  of +1 out. It gives up on a text after 65,535 tries; a text that may come near is left to the detector's own way.
- ``date_of_birth`` needs a context word and ``skype`` the word itself. Texts that hold one are read by the detector's
  own code, for ``skype`` written again here for the sake of its spelling check, which is its whole cost.

``tests/test_pii.py`` holds each to scrubadub's own way, on real text with planted positives and on fuzzed text. The
shortcuts were checked against the versions in ``CHECKED``; with others every detector goes its own way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any

CHECKED = {"scrubadub": ("2.0.1",), "phonenumbers": ("9.0.43",)}
Spans = Iterable[tuple[int, int]]

# What matches an ASCII letter where case is ignored, besides the letter itself
_ODD_LETTERS = (("\u0130", "i"), ("\u0131", "i"), ("\u017f", "s"), ("\u212a", "k"))
_CREDENTIAL_BEGINS = ("username", "login", "u:")
_CREDENTIAL_GOES_ON = ("password", "pw", "p:")
_BIRTH_WORDS = ("birth", "born", "dob", "d.o.b.")

_EMAIL_MIDDLE = re.compile(
    r"[@\s](?:(?<=@)(?=[a-z0-9][a-z0-9-]*(?:\.|\sdot\s))|(?=at\s[a-z0-9][a-z0-9-]*(?:\.|\sdot\s)))", re.IGNORECASE
)
_EMAIL_LOCAL = re.compile(
    r"\b[a-z0-9!#$%&'*+\/=?^_`{|}~-](?:[\.a-z0-9!#$%&'*+\/=?^_`{|}~-]{0,62}[a-z0-9!#$%&'*+\/=?^_`{|}~-])?\Z",
    re.IGNORECASE,
)
_LONGEST_LOCAL = 64

_LONGEST_LEAD = 10  # characters of a phone number before its first digit
_EXTENSION_CHARACTERS = (
    ";ext= \u00a0\t,nsio\u0301\u00f3\uff45\uff58\uff54\uff4e\u0434\u043e\u0431a#\uff03~\uff5e\uff49:."
)
_PLAIN = re.compile(r"\+?[-0-9 .()\[\]/]*")


class Reading:
    """A text with what several detectors need to know of it, worked out once and when first asked for."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def folded(self) -> str:
        """The text in lower case, as patterns that ignore case see ASCII letters; as long as the text."""
        text = self.text
        if not text.isascii():
            for odd, plain in _ODD_LETTERS:
                text = text.replace(odd, plain)
        return text.lower()

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """The runs that may hold a phone, card or social security number."""
        return list(_phones().runs(self.text))


def finder(detector: Any, plain: Callable[[Reading], Spans]) -> Callable[[Reading], Spans]:
    """The fast way of one of scrubadub's detectors, given its own way: the same spans of a reading, in order."""
    if detector.name == "phone":
        return _phones().find
    if detector.name == "date_of_birth":
        return lambda reading: plain(reading) if any(word in reading.folded for word in _BIRTH_WORDS) else ()
    if detector.name == "skype":
        return lambda reading: _skype_names(detector, reading.text) if "skype" in reading.folded else ()
    search = {
        "credential": _credentials,
        "credit_card": _in_runs,
        "email": _emails,
        "social_security_number": _in_runs,
        "twitter": lambda pattern, reading: _tried(pattern, reading.text, _places(reading.text, "@")),
        "url": lambda pattern, reading: pattern.finditer(reading.text),
    }[detector.name]

    def find(reading: Reading) -> Iterator[tuple[int, int]]:
        for match in search(detector.regex, reading):
            if detector.filth_cls(match=match).is_valid():
                yield match.span()

    return find


def own_way(detector: Any) -> Callable[[Reading], Spans]:
    """The detector's own way over the whole text."""

    def find(reading: Reading) -> list[tuple[int, int]]:
        return [(filth.beg, filth.end) for filth in detector.iter_filth(reading.text) if filth.is_valid()]

    return find


def merged(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans of all detectors, touching and overlapping ones joined under the kind of the first, as scrubadub joins
    them: the first is the one that begins first, the longest of those, and the first detector's of those."""
    joined: list[tuple[int, int, str]] = []
    for begin, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if joined and begin <= joined[-1][1]:
            first_begin, last_end, first_kind = joined[-1]
            joined[-1] = (first_begin, max(last_end, end), first_kind)
        else:
            joined.append((begin, end, kind))
    return joined


def _places(text: str, *words: str) -> list[int]:
    """Where the words begin in the text, in order."""
    places = []
    for word in words:
        place = text.find(word)
        while place >= 0:
            places.append(place)
            place = text.find(word, place + 1)
    return sorted(places)


def _tried(pattern: re.Pattern[str], text: str, places: Iterable[int]) -> Iterator[re.Match[str]]:
    """What ``pattern.finditer(text)`` gives, for a pattern that can begin at one of these places alone."""
    end = 0
    for place in places:
        if place >= end and (match := pattern.match(text, place)):
            end = match.end()
            yield match


def _credentials(pattern: re.Pattern[str], reading: Reading) -> Iterable[re.Match[str]]:
    folded = reading.folded
    if not any(word in folded for word in _CREDENTIAL_GOES_ON):
        return ()
    return _tried(pattern, reading.text, _places(folded, *_CREDENTIAL_BEGINS))


def _emails(pattern: re.Pattern[str], reading: Reading) -> Iterator[re.Match[str]]:
    text, end = reading.text, 0
    for middle in _EMAIL_MIDDLE.finditer(text):
        place = middle.start()
        local = _EMAIL_LOCAL.search(text, max(end, place - _LONGEST_LOCAL), place) if place > end else None
        if local and (match := pattern.match(text, local.start())):
            end = match.end()
            yield match


def _in_runs(pattern: re.Pattern[str], reading: Reading) -> Iterator[re.Match[str]]:
    for begin, end in reading.runs:
        yield from pattern.finditer(reading.text, begin, end)


def _skype_names(detector: Any, text: str) -> list[tuple[int, int]]:
    """The detector's own way, but that a word is looked up once."""
    tokens = re.findall(detector.SKYPE_TOKEN, text)
    named: list[str] = []
    for index, token in enumerate(tokens):
        if "skype" in token.lower():
            begin = max(index - detector.word_radius, 0)
            near = tokens[begin:index] + tokens[index + 1 : index + detector.word_radius + 1]
            names = [other for other in near if detector.SKYPE_USERNAME.match(other)]
            named += filter(_is_misspelled, (name.lower() if name.isupper() else name for name in names))
    return [match.span() for match in re.finditer("|".join(named), text)] if named else []


@lru_cache(maxsize=1 << 16)
def _is_misspelled(word: str) -> bool:
    """Whether ``textblob.Word(word).spellcheck()`` gives its first suggestion less than a half.

    Where no known word is one edit away textblob tries every edit of every edit. Two words one edit apart are equal
    once a letter at most is taken from each, so that of the first edits only those are gone on with that a known word
    meets in this way.
    """
    spelling, shortened = _spelling()
    edited = spelling._edit1(word)
    if len(word) < 2 or word in spelling or any(edit in spelling for edit in edited):
        return spelling.suggest(word)[0][1] < 0.5
    known = set()
    for edit in edited:
        if edit in shortened or any(edit[:i] + edit[i + 1 :] in shortened for i in range(len(edit))):
            known.update(other for other in spelling._edit1(edit) if other in spelling)
    counts = [spelling[other] for other in known]
    return max(counts, default=0) / (sum(counts) or 1) < 0.5


@lru_cache(maxsize=1)
def _spelling() -> tuple[Any, frozenset[str]]:
    """textblob's known words, and these with up to one letter taken out."""
    from textblob.en import spelling

    if not spelling:
        spelling.load()
    return spelling, frozenset(word[:i] + word[i + 1 :] for word in spelling for i in range(len(word))) | set(spelling)


@lru_cache(maxsize=1)
def _phones() -> Any:
    """The reader of phone numbers of the United States' plan."""
    from phonenumbers import phonenumbermatcher, phonenumberutil
    from phonenumbers.phonemetadata import PhoneMetadata

    number = phonenumbermatcher._PATTERN
    second_number = phonenumberutil._SECOND_NUMBER_START_PATTERN
    punctuation = phonenumberutil._VALID_PUNCTUATION
    extension = phonenumberutil._EXTN_PATTERNS_FOR_MATCHING
    lead = phonenumbermatcher._LEAD_CLASS_CHARS
    plus = phonenumberutil._PLUS_CHARS
    flags = phonenumberutil._REGEX_FLAGS
    characters = rf"{punctuation}{lead}{plus}\d{re.escape(_EXTENSION_CHARACTERS)}"
    outside = re.compile(f"[^{characters}]", flags)
    up_to_outside = re.compile(f"(?s:.*)[^{characters}]", flags)
    digit = re.compile(r"\d")
    between = f"[{punctuation}X]{{0,4}}"
    separated = f"[{punctuation.replace('x', '', 1)}]{{0,4}}"
    promising = re.compile(
        rf"[{plus}\d](?<![0-9][0-9])(?:"
        rf"(?<=[2-9])(?:{between}\d){{9}}(?!\d)|(?<=3)(?:{between}\d){{6}}(?!\d)"
        rf"|(?<=1)(?:{between}1){{0,20}}{between}(?:[2-9](?:{between}\d){{9}}|3(?:{between}\d){{6}})(?!\d)"
        rf"|(?<=0){between}1{between}1"
        rf"|(?<=\d)(?={separated}(?:[\dxX]{separated}){{6}})(?:{separated}\d)*+{separated}[xX]"
        rf"|(?<=\d)(?:{between}\d)*+(?i:{extension})"
        rf"|(?<=[{plus}])(?!{separated}(?:[{lead}]{separated})?0){between}(?:[{lead}]{between})?\d"
        rf"|(?<=[0-9])[0-9]{{20}}"
        rf"|(?<=[0-9])[0-9]{{2,}}+[-. ][0-9]{{2}}[-. ][0-9]{{4}}|(?<=\s[1-6])[0-9]{{12}}"
        rf"|(?<![0-9{plus}]))"
    )
    piece = re.compile(
        rf"[{lead}\d](?:(?<=\d)\d*(?:[{punctuation}X]{{1,4}}(?=\d)|(?i:{extension}))?"
        rf"|(?<!\d){between}(?:[{lead}]{between})?(?=\d))"
    )
    plan = [PhoneMetadata.metadata_for_region(region) for region in phonenumberutil.COUNTRY_CODE_TO_REGION_CODE[1]]
    national = re.compile("|".join(sorted({region.general_desc.national_number_pattern for region in plan})))

    def may_be_number(candidate: str) -> bool:
        """Whether phonenumbers could read the candidate as a number: false only where its digits rule that out."""
        if not _PLAIN.fullmatch(candidate):
            return True
        digits = "".join(filter(str.isdigit, candidate))
        if candidate.startswith("+") and not digits.startswith("0"):
            return True
        return digits.startswith("011") or national.fullmatch(digits.lstrip("1")) is not None

    class Matcher(phonenumbermatcher.PhoneNumberMatcher):
        def _parse_and_verify(self, candidate: str, offset: int) -> Any:
            return super()._parse_and_verify(candidate, offset) if may_be_number(candidate) else None

    def most_tries(text: str) -> int:
        """At least as many as the tries that phonenumbers makes in the text without success.

        One a candidate; and where it looks for a number inside one, at most four a character that may part two.
        """
        tries = 0
        for match in piece.finditer(text):
            digits = sum(map(str.isdecimal, match[0]))
            tries += 1 + digits // 20 + 4 * (len(match[0]) - digits)
        return tries

    class Phones:
        @staticmethod
        def runs(text: str) -> Iterator[tuple[int, int]]:
            """The runs that may hold a phone number, in order."""
            end = 0
            while hit := promising.search(text, end):
                before = up_to_outside.match(text, end, hit.start())
                after = outside.search(text, hit.start())
                begin, end = before.end() if before else end, after.start() if after else len(text)
                yield begin, end

        @staticmethod
        def find(reading: Reading) -> list[tuple[int, int]]:
            text = reading.text
            matcher = Matcher(text, "US")
            limit = matcher._max_tries
            spans = []
            for index, end in reading.runs:
                while (first := digit.search(text, index, end)) and matcher._max_tries > 0:
                    hit = number.search(text, max(index, first.start() - _LONGEST_LEAD), end)
                    start = hit.start()
                    candidate = matcher._trim_after_first_match(second_number, hit[0])
                    match = matcher._extract_match(candidate, start)
                    if match is None:
                        matcher._max_tries -= 1
                        index = start + len(candidate)
                    else:
                        spans.append((match.start, match.end))
                        index = match.end
            left = matcher._max_tries
            if 5 * len(text) >= left and (left <= 0 or most_tries(text) >= left):
                plain = phonenumbermatcher.PhoneNumberMatcher(text, "US", max_tries=limit)
                return [(match.start, match.end) for match in plain]
            return spans

    return Phones
