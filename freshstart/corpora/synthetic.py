"""Synthetic forum comments with known abuse, and a separate labelled set to learn a toxicity scorer from.

Everything is invented and put together from the tables in synthetic.txt: a comment is a frame (an order of roles such
as opening, story, question, abuse), each role is a template, and each ``{slot}`` is drawn from the words of the family
(cooking, cycling, ...) or from those that all families share. ``thing`` and ``name`` are drawn once a comment, the
rest anew, and no slot draws the same option twice running. Comment i is a function of (seed, i) and the share alone.

The abuse is school-yard English at the level of sentences. ``documents`` states where it is; ``find_abuse`` finds it
by the corpus' lexicon and agrees with that truth in every sentence. ``labelled`` draws from other families, other
templates and another lexicon, so that a classifier learned from it is a real and imperfect judge of the corpus. The
table ``words`` (names, times, quantities, people, adjectives for things) is common to both.

Limits. Real abuse is nothing like this: no irony, no hints, no odd spellings, nobody outside the thread. Every
abusive sentence holds a word of a short list, so a lexicon is a perfect judge here and nowhere else. Both lexicons
build their insults in one way (-head, -wit, -brain, -skull), and the tables were tuned until a classifier of word and
character n-grams carried that over from one to the other: a figure of the scorer on this corpus says nothing about
other text. A sentence is grammatical more often than sensible, and a reply shares only family, thing and name with
what it answers.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from freshstart.corpora import CorpusSettings, Document

ONCE_A_COMMENT = frozenset({"thing", "name"})
ABUSIVE_ROLES = frozenset({"abuse", "dismissal"})
KEPT_SHARE = 0.6  # of the roles that may be left out
PARAGRAPH_SHARE = 0.25  # of the comments of four roles and more
LABELLED_ABUSIVE_SHARE = 0.47

Rules = Mapping[str, tuple[str, ...]]
Option = TypeVar("Option")


def _read_tables(path: Path) -> dict[str, Rules]:
    """Section to slot to options, as the head of the file says."""
    tables = {}
    for section in re.split(r"^\[", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, body = section.split("]\n", 1)
        rules = {}
        for entry in re.split(r"\n(?=\w)", body.strip()):
            slot, options = entry.split(":", 1)
            one_a_line = options.startswith("\n")
            rules[slot] = tuple(re.split(r"\n\s+", options.strip()) if one_a_line else re.split(r",\s+", options[1:]))
        if "verbs" in rules:
            rules["do"], rules["did"] = zip(*(verb.split() for verb in rules.pop("verbs")), strict=True)
        tables[heading] = rules
    return tables


def _families(prefix: str, *shared: str) -> dict[str, Rules]:
    """The rules of each family: those of the ``shared`` sections, and the family's own words."""
    common = {slot: options for section in shared for slot, options in _TABLES[section].items()}
    return {
        section.removeprefix(prefix): {**common, **words}
        for section, words in _TABLES.items()
        if section.startswith(prefix)
    }


_TABLES = _read_tables(Path(__file__).with_suffix(".txt"))
_LEXICON, _LABELLED_LEXICON = _TABLES["lexicon"], _TABLES["labelled lexicon"]
FAMILIES = _families("family: ", "words", "lexicon", "templates")
LABELLED_FAMILIES = {
    abusive: _families("labelled family: ", "words", words, "labelled templates")
    for abusive, words in ((False, "labelled friendly"), (True, "labelled lexicon"))
}
FRAMES = {
    abusive: tuple(tuple(frame.split()) for frame in _TABLES["frames"][name])
    for abusive, name in ((False, "plain"), (True, "abusive"))
}
_ABUSE = re.compile(rf"\b(?:(?:{'|'.join(_LEXICON['fool'])})s?|{'|'.join(_LEXICON['slight'])})\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """How many comments, and the share of them that holds abuse (0 to 1)."""

    documents: int
    abusive_share: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.documents < 1:
            raise ValueError(f"documents must be at least 1, found {self.documents}")
        if not 0 <= self.abusive_share <= 1:
            raise ValueError(f"abusive_share must be between 0 and 1, found {self.abusive_share}")


def documents(settings: Settings, seed: int) -> Iterator[Document]:
    """The comments of ``seed``; ``meta["abusive"]`` holds [begin, end) of each abusive sentence, in characters."""
    for index in range(settings.documents):
        yield _comment(_generator("comment", seed, index), settings.abusive_share)


def labelled(count: int, noise: float, seed: int) -> Iterator[tuple[str, int]]:
    """``count`` sentences with label 1 for abuse, each label wrong with probability ``noise`` (0 to 1)."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be between 0 and 1, found {noise}")
    for index in range(count):
        rng = _generator("labelled", seed, index)
        abusive = rng.random() < LABELLED_ABUSIVE_SHARE
        flipped = rng.random() < noise
        rules = _pick(rng, tuple(LABELLED_FAMILIES[abusive].values()))
        yield _Slots(rng, rules).sentence("sentence"), int(abusive != flipped)


def lexicon() -> tuple[str, ...]:
    """The corpus' words of abuse: lower case, nouns in the singular (their plural adds an s)."""
    return _LEXICON["fool"] + _LEXICON["slight"]


def labelled_lexicon() -> tuple[str, ...]:
    """The same for the labelled set; shares no word with ``lexicon()``."""
    return _LABELLED_LEXICON["one"] + _LABELLED_LEXICON["such"]


def find_abuse(text: str) -> list[tuple[int, int]]:
    """Character spans of the words of ``lexicon()`` in ``text``, plurals included, whatever their case."""
    return [match.span() for match in _ABUSE.finditer(text)]


def _generator(purpose: str, seed: int, index: int) -> random.Random:
    key = hashlib.blake2b(f"{purpose} {seed} {index}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(key, "big"))


def _pick(rng: random.Random, options: tuple[Option, ...]) -> Option:
    """One option. Of ``random`` only ``random()`` is promised to draw alike in every Python, ``choice`` is not."""
    return options[int(rng.random() * len(options))]


class _Slots(dict[str, str]):
    """What ``str.format_map`` fills a template from: draws each slot when asked, ``{a_slot}`` with its article."""

    def __init__(self, rng: random.Random, rules: Rules) -> None:
        super().__init__()
        self.rng, self.rules = rng, rules
        self.last: dict[str, str] = {}

    def __missing__(self, slot: str) -> str:
        if slot.startswith("a_"):
            text = self[slot[2:]]
            return f"an {text}" if text[0] in "aeiou" else f"a {text}"
        option = _pick(self.rng, self.rules[slot])
        while option == self.last.get(slot):
            option = _pick(self.rng, self.rules[slot])
        self.last[slot] = option
        text = option.format_map(self) if "{" in option else option
        if slot in ONCE_A_COMMENT:
            self[slot] = text
        return text

    def sentence(self, role: str) -> str:
        text = self[role]
        return text[0].upper() + text[1:]


def _comment(rng: random.Random, abusive_share: float) -> Document:
    frame = _pick(rng, FRAMES[rng.random() < abusive_share])
    roles = [role.rstrip("?") for role in frame if role[-1] != "?" or rng.random() < KEPT_SHARE]
    break_at = 0
    if len(roles) > 3 and rng.random() < PARAGRAPH_SHARE:
        break_at = 2 + int(rng.random() * (len(roles) - 2))
    family = _pick(rng, tuple(FAMILIES))
    slots = _Slots(rng, FAMILIES[family])
    text, abusive = "", []
    for position, role in enumerate(roles):
        if position:
            text += "\n\n" if position == break_at or roles[position - 1].startswith(">") else " "
        if role.startswith(">"):
            text += "> "
        begin = len(text)
        text += slots.sentence(role.lstrip(">"))
        if role.lstrip(">") in ABUSIVE_ROLES:
            abusive.append([begin, len(text)])
    return Document(text, family, {"family": family, "abusive": abusive})
