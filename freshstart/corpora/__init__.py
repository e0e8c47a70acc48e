"""Where documents come from: one file a kind (``Kind``), found by its name.

``build`` turns a kind's stream of documents into the corpus parts. Those of a kind whose documents come with scores
have three more columns (``schema.PUBLISHED``), and whose scores they are in their metadata.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from freshstart.settings import build as build_settings  # this room has a build of its own
from freshstart.settings import kind

KIND = "def documents("  # what the file of a kind defines
LEAST_ROW = 1 << 24


@dataclass(frozen=True, slots=True)
class Document:
    """One text, with the source that it shares with its relatives (a package, a file, a template family).

    Where scores were published with it: the segments' ends (character offsets, the last one ``len(text)``), one score
    a segment, and whether they are in doubt and the document is to be scored again.
    """

    text: str
    source: str
    meta: Mapping[str, Any]
    segment_ends: Sequence[int] | None = None
    scores: Sequence[float] | None = None
    check_again: bool | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What cannot be a document: where it is, and why not."""

    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class QualityRules:
    """What a document must keep to stay (``quality``): ``words`` and ``word_length`` are the least and most words and
    mean characters of a word, ``repeated_lines`` and ``repeated_words`` the most of it (0 to 1) that may be repeated,
    ``languages`` the codes (ISO 639-1) of which one is its language. What is None or empty is not looked at."""

    words: tuple[int, int] | None = None
    word_length: tuple[float, float] | None = None
    repeated_lines: float | None = None
    repeated_words: float | None = None
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, bounds in (("words", self.words), ("word_length", self.word_length)):
            if bounds is not None and not 0 <= bounds[0] <= bounds[1]:
                raise ValueError(f"{name} must be [least, most], found {list(bounds)}")
        for name, share in (("repeated_lines", self.repeated_lines), ("repeated_words", self.repeated_words)):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, found {share}")
        if unknown := [code for code in self.languages if not re.fullmatch("[a-z]{2,3}", code)]:
            raise ValueError(f"languages are codes such as en, found {unknown[0]}")


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """What the settings of every kind of corpus hold.

    ``train_characters`` and ``heldout_characters`` bound the two splits; documents are chosen by the hash of their
    content. ``heldout`` names the sources that are held out; without it sources are drawn by hash. With ``skip_bad``
    what cannot be a document is left out and counted; without it the first such item stops the stage.

    Documents that break a rule of ``quality`` are left out, and counted by it.

    ``benchmarks`` names files of evaluation items that documents are compared with (``overlap``). Documents that share
    text with one, and near-duplicates of others (``near_duplicates``), are counted or left out.
    """

    kind: str
    train_characters: int
    heldout_characters: int
    part_characters: int
    heldout: tuple[str, ...] = ()
    max_document_characters: int = 1_000_000
    skip_bad: bool = False
    benchmarks: tuple[str, ...] = ()
    overlap: Literal["count", "drop"] = "count"
    near_duplicates: Literal["none", "count", "drop"] = "count"
    quality: QualityRules = QualityRules()

    def __post_init__(self) -> None:
        for name in ("train_characters", "heldout_characters", "part_characters", "max_document_characters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    @property
    def longest_row(self) -> int:
        """Bytes or characters of a row that are held while it is read: a document in escapes, and other columns."""
        return max(LEAST_ROW, 16 * self.max_document_characters)


class Kind(Protocol):
    """The module of a kind of corpus.

    ``documents(settings, seed)`` yields documents and, for what cannot be one, refusals. It may be called more than
    once and must yield the same each time; it holds one document in memory, not a corpus. A kind whose documents come
    with scores also has ``published(settings)``: JSON that says whose scores they are.
    """

    Settings: type[CorpusSettings]
    documents: Callable[[Any, int], Iterator[Document | Refusal]]


def load(name: str, where: str) -> Kind:
    return kind("freshstart.corpora", name, "kind", where)


def settings(block: Mapping[str, Any], where: str) -> CorpusSettings:
    """The settings of one task's corpus, read by the module of its kind."""
    return build_settings(load(str(block.get("kind")), where).Settings, block, where)


def published(module: Kind, settings: CorpusSettings) -> dict[str, Any] | None:
    """Whose scores a kind's documents bring along; None where they bring none."""
    describe = getattr(module, "published", None)
    return describe(settings) if describe is not None else None


def document_id(text: str) -> str:
    """blake2b-128 of the UTF-8 text, in hex. Raises UnicodeEncodeError on a lone surrogate."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
