"""Names by a spaCy pipeline and United States addresses by pyap: what scrubadub finds through packages of its own.

Names: the pipeline runs whole and as saved, one document at a time: its parser's sentences limit its entities, and a
batch's neighbours must not touch a result. spaCy refuses a text of more than a million characters, which then counts as
a document without a score.

Addresses: pyap's pattern for the United States, as the original used it, without libpostal's second opinion (a street
number, a street's type, a city, a state). Every match begins with digits or a number word, so that it is tried there
alone. pyap joins white space and line ends; places are mapped back to the document, so that each address counts where
it stands, with a hyphen too (the original looks the joined address up in the text). Cost: 1.5 to 3 MB/s on one core.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from freshstart import files
from freshstart.errors import InputError

NAME_LABELS = ("PERSON", "PER")  # the same thing, named by different models
KINDS = {"PERSON": "name", "PER": "name", "ORG": "organization"}
RELEASES = "https://github.com/explosion/spacy-models/releases/download"
STRIPPED = " ,;:"  # what pyap takes off the ends of an address
IGNORED = "coverage"  # the original's: an insurer's "10 000 ... COVERAGE" reads as an address

_NUMBER_BEGINS = re.compile(
    r"\d|(?ai:and|thousand|hundred|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|fou?r|fif|six|seven|eigh|nine)ty) "
)


@dataclass(frozen=True, kw_only=True)
class Names:
    """``model`` is the folder of a spaCy pipeline (the one that holds ``config.cfg``) or the name of an installed
    package of one; ``sha256`` the digest it must have, where that is to be pinned; ``entities`` the labels that
    count."""

    model: str
    sha256: str | None = None
    entities: tuple[str, ...] = ("PERSON", "PER", "ORG")

    def __post_init__(self) -> None:
        if not self.model or not self.entities:
            raise ValueError("names needs a model, and at least one of entities")


def model_folder(names: Names) -> Path:
    """The folder of the pipeline; raises InputError where it is not to be had."""
    folder = Path(names.model)
    if (folder / "config.cfg").is_file():
        return folder
    if names.model.isidentifier() and (package := importlib.util.find_spec(names.model)) and package.origin:
        configs = list(Path(package.origin).parent.glob("*/config.cfg"))
        if len(configs) == 1:
            return configs[0].parent
    what = "holds no config.cfg, so it is no spaCy pipeline" if folder.is_dir() else "is neither a folder nor installed"
    wheel = f"{RELEASES}/en_core_web_sm-3.8.0/en_core_web_sm-3.8.0-py3-none-any.whl"
    raise InputError(
        f"scorer pii: the spaCy model {names.model} {what}: install one (for example `pip install {wheel}`), or put "
        "its folder anywhere and set scorer.<task>.names.model to its path; or set scorer.<task>.names to null, "
        "and the scores count no names"
    )


def model_digest(names: Names) -> str:
    """SHA-256 over the files of the pipeline; raises InputError where it is not the pinned one."""
    folder = model_folder(names)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = files.digest({path.relative_to(folder).as_posix(): files.sha256(path) for path in paths})
    if names.sha256 not in (None, digest):
        raise InputError(
            f"scorer pii: the spaCy model in {folder} has the digest {digest}, scorer.<task>.names.sha256 pins "
            f"{names.sha256}: put the pinned model there, or pin this one and score again"
        )
    return digest


def name_finder(folder: Path, names: Names) -> Callable[[str], Iterable[tuple[int, int, str]]]:
    """Load the pipeline in ``folder``. The result gives (begin, end, kind) of each entity of a text."""
    import spacy

    pipeline = spacy.load(folder)
    labels = set(chain.from_iterable(getattr(component, "labels", ()) for _, component in pipeline.pipeline))
    asked = {"/".join(NAME_LABELS) if label in NAME_LABELS else label for label in names.entities}
    missing = [label for label in sorted(asked) if not labels.intersection(label.split("/"))]
    if missing:
        raise InputError(
            f"scorer pii: the spaCy model {names.model} has no entity {', '.join(missing)} of "
            f"scorer.<task>.names.entities; take them out, or take a model that has them"
        )

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        for entity in pipeline(text).ents:
            if entity.label_ in names.entities:
                yield entity.start_char, entity.end_char, KINDS.get(entity.label_, entity.label_.lower())

    return find


def address_finder() -> Callable[[str], list[tuple[int, int]]]:
    """The reader of United States addresses; it gives the spans of a text."""
    from pyap.parser import AddressParser

    pattern = re.compile(AddressParser(country="US").rules, re.VERBOSE | re.UNICODE)

    def find(text: str) -> list[tuple[int, int]]:
        joined = AddressParser._normalize_string(text)
        spans, end = [], 0
        for begins in _NUMBER_BEGINS.finditer(joined):
            if begins.start() >= end and (match := pattern.match(joined, begins.start())):
                end = match.end()
                if IGNORED not in match[0].lower():
                    address = match[0].rstrip(STRIPPED)
                    spans.append((match.start(), match.start() + len(address)))
        return _places(text, spans) if spans else []

    return find


def _places(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of the joined text as spans of the text itself."""
    places = list(range(len(text) + 1))
    for pattern, joint in ((r"\r*(\n\r*)+", ", "), (r"\s*(\,\s*)+", ", "), (r"\s+", " ")):
        pieces, kept, end = [], [], 0
        for match in re.finditer(pattern, text):
            pieces += [text[end : match.start()], joint]
            kept += places[end : match.start()] + [places[match.start()]] * len(joint)
            end = match.end()
        text = "".join([*pieces, text[end:]])
        places = kept + places[end:]
    return [(places[begin], places[end - 1] + 1) for begin, end in spans]
