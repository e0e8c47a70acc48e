"""The pii scorer against scrubadub: the original's way, which reads a sentence at a time, and its own over documents.

All ways read the same documents with the same detectors in this process, with the same fixed today; sentences are cut
beforehand and for nobody's account. Documents are real mail, synthetic text with planted data and the prose of the
installed packages, an equal share of characters each, one in twenty-five with a planted span of each kind. Counts of a
sentence at a time differ a little from those of documents: a span may cross the end of a sentence, and a card number
needs white space before it.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import sysconfig
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from freshstart.scorers import Finding, pii_fast
from freshstart.scorers.pii import Pii, Settings, today
from freshstart.scoring.segments import sentences

DATA = Path(os.environ.get("FRESHSTART_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"), "pii")
REFERENCE = "2023-01-01"
DEFAULT = ("credential", "credit_card", "email", "phone", "social_security_number", "url")
FULL = (*DEFAULT, "twitter", "date_of_birth", "skype")
SIZES = {"default": (DEFAULT, 3_000_000), "with twitter, dates of birth and skype": (FULL, 200_000)}
PLANTED = (
    "\nusername: root password: hunter2\n",
    " 4111111111111111 ",
    " joe@example.com ",
    " call 212-555-0123 ",
    " 123-45-6789 ",
    " http://example.com/a ",
    " by @joe_bloggs ",
    "\nShe was born on 12 March 1967.\n",
    " my skype name is {name}. ",
)
PLANTED_EVERY = 25
Find = Callable[[str], list[Finding]]


def measure() -> list[dict[str, Any]]:
    """One row a way and set of detectors: CPU seconds on one core (the best of three for ours, of two for the
    others'), how many times ours that is, and spans by kind."""
    rows = []
    for name, (detectors, characters) in SIZES.items():
        texts = documents(characters)
        cut = [[text[a:b] for a, b in itertools.pairwise([0, *sentences(text)])] for text in texts]
        plain = scrubadub_way(detectors)
        settings = Settings(
            kind="pii",
            segments="sentences",
            scrubadub=version("scrubadub"),
            phonenumbers=version("phonenumbers"),
            detectors=detectors,
            reference_date=REFERENCE,
        )
        ways = {
            "ours": (Pii(None, settings).find, texts, 3),
            "scrubadub, a document at a time": (plain, texts, 2),
            "the original's: scrubadub, a sentence at a time": (plain, [*itertools.chain(*cut)], 2),
        }
        measured = {way: best(*arguments) for way, arguments in ways.items()}
        for way, (seconds, counts) in measured.items():
            rows.append(
                {
                    "scorer": f"pii, {name}",
                    "way": way,
                    "characters": sum(map(len, texts)),
                    "cpu_seconds": round(seconds, 3),
                    "ratio": round(seconds / measured["ours"][0], 2),
                    "counts": dict(sorted(counts.items())),
                }
            )
    return rows


def best(find: Find, texts: list[str], times: int) -> tuple[float, Counter[str]]:
    """CPU seconds of the fastest of ``times`` readings of all texts, and the spans by kind."""
    find(texts[0])  # imports and first compilations are nobody's speed
    spent = []
    for _ in range(times):
        pii_fast._is_misspelled.cache_clear()
        begun = time.process_time()
        counts = Counter(finding.kind for text in texts for finding in find(text))
        spent.append(time.process_time() - begun)
    return min(spent), counts


def scrubadub_way(detectors: tuple[str, ...]) -> Find:
    """scrubadub as it comes: every detector over the text that it is given."""
    from scrubadub.scrubbers import Scrubber

    scrubber = Scrubber(detector_list=list(detectors), post_processor_list=[], locale="en_US")
    reference = datetime.fromisoformat(REFERENCE)

    def find(text: str) -> list[Finding]:
        with today(reference):
            filths = list(scrubber.iter_filth(text, run_post_processors=False))
        return [
            Finding(filth.beg, filth.end, getattr(filth, "filths", [filth])[0].detector_name)
            for filth in sorted(filths, key=lambda filth: filth.beg)
        ]

    return find


def documents(characters: int) -> list[str]:
    """At least ``characters`` of text, from each source in turn until it has given its share."""
    sources = [source for source in (*mail(), synthetic(), prose()) if source is not None]
    texts = []
    for source in sources:
        held = 0
        for text in source:
            planted = PLANTED if len(texts) % PLANTED_EVERY == 0 else ()
            name = f"jx{hashlib.sha256(text.encode()).hexdigest()[:6]}qz"  # no name twice: ours looks each up once
            texts.append("".join([text, *planted]).replace("{name}", name))
            held += len(text)
            if held >= characters / len(sources):
                break
    return texts


def mail() -> list[Iterator[str] | None]:
    names = ("enron1_ham", "enron5_ham", "enron6_ham", "spamassassin_easy-ham-1", "spamassassin_spam-1")
    return [members(DATA / f"{name}.tar.gz") if (DATA / f"{name}.tar.gz").is_file() else None for name in names]


def members(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.size < 40_000:
                yield archive.extractfile(member).read().decode("latin-1")


def synthetic() -> Iterator[str] | None:
    path = DATA / "presidio_synth_v2.json.gz"
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return iter([row["full_text"] for row in json.load(file)])


def prose() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info/METADATA")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if 200 < len(text) < 40_000:
            yield text


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
