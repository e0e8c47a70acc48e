"""Which documents share text with the items of a benchmark: n-gram overlap as in Brown et al. 2020 (appendix C).

A benchmark is a file or folder that ``local`` reads, or a tar archive of such files. Each row is an item, and each
string in it a text of its own, whatever its column. A document overlaps with an item where they share LENGTH words in a
row (see ``ngrams`` for what a word is), or the whole of a text that has from LEAST to LENGTH - 1 words. GPT-3 took n as
the 5th percentile of a benchmark's lengths, but at least 8, below which hits are spurious, and at most 13, which the
lm-evaluation-harness uses throughout. Texts below LEAST words are not compared; items that have no longer text are
counted as too short.

N-grams without a word of two letters or more are not compared: runs such as 1, 2, ..., 13 and lists of zeros or primes
made up all 26 hits of HumanEval in 118 MB of clean Python and English. Without them there is none, of HumanEval,
LAMBADA or BLiMP. Hits that are left may be of what many texts hold, such as licences and quotations. GPT-3 left out
n-grams found in more than ten documents; here a document is judged as it streams by, and some hits are listed for a
look.

What this does not find: paraphrases, translations, items of which fewer than LENGTH words in a row are left, and text
in scripts without spaces between words.

Memory: 12 bytes an n-gram, 16 MiB for the sieve, and the items' places in their files.
"""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freshstart.corpora import Refusal, local
from freshstart.corpora.ngrams import BASE, hashes, ngrams, words
from freshstart.errors import InputError
from freshstart.names import SPLITS

LENGTH, LEAST = 13, 8  # words
SIEVE_BITS = np.uint64(24)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """The n-grams of all items, sorted by their hashes; ``sieve`` knows by LEAST words that most others are none."""

    items: dict[str, range]  # those of each benchmark that are compared
    too_short: dict[str, int]  # and the number of those that are not
    places: list[str]  # of each item, as file:row
    grams: np.ndarray  # uint64, sorted
    owners: np.ndarray  # int32, the item of each
    sieve: np.ndarray

    def shared(self, hashed: np.ndarray) -> dict[int, slice]:
        """The items that a text of these word hashes overlaps with, each with the words of one n-gram they share."""
        shared: dict[int, slice] = {}
        grams = ngrams(hashed, LEAST)
        at = np.flatnonzero(self.sieve[_sieved(grams)])  # where one may begin
        grams = grams[at]
        for n in range(LEAST, LENGTH + 1):
            if n > LEAST:
                inside = at + n <= len(hashed)
                at, grams = at[inside], grams[inside]
                grams = grams * BASE + hashed[at + n - 1]
            if not len(at):
                break
            first, last = (np.searchsorted(self.grams, grams, side) for side in ("left", "right"))
            for index in np.flatnonzero(first < last):
                for item in self.owners[first[index] : last[index]]:
                    shared.setdefault(int(item), slice(int(at[index]), int(at[index]) + n))
        return shared

    def names_of(self, items: Iterable[int]) -> list[str]:
        return [name for name, own in self.items.items() if any(item in own for item in items)]

    def report(self, overlaps: Mapping[int, Sequence[int]], split: np.ndarray) -> dict[str, Any]:
        """By benchmark: its items, and for each split the documents that overlap with any and the items that they do.

        ``overlaps`` holds the items of the documents that have any, ``split`` the split of every document.
        """
        report: dict[str, Any] = {}
        for name, own in self.items.items():
            report[name] = {"items": len(own), "items_too_short": self.too_short[name]}
            for index, part in enumerate(SPLITS):
                found = [set(own).intersection(items) for row, items in overlaps.items() if split[row] == index]
                report[name][part] = {"documents": sum(map(bool, found)), "items": len(set().union(*found))}
        return report


def load(patterns: Sequence[str]) -> Benchmarks:
    """Read the benchmarks, each named by its file. Raises InputError where one is missing, can not be read as a whole,
    has no item to compare, or shares its name with another."""
    items: dict[str, range] = {}
    too_short: dict[str, int] = {}
    places: list[str] = []
    heads, grams, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for pattern in patterns:
        name, first, short = Path(pattern).name.split(".")[0], len(places), 0
        if name in items:
            raise InputError(f"corpus.<task>.benchmarks: two are named {name}: rename one of the files")
        for place, texts in _items(pattern):
            cut = [pair for text in texts for pair in _cut(text)]
            if cut:
                heads += [head for head, _ in cut]
                grams.append(np.unique(np.concatenate([whole for _, whole in cut])))
                owners.append(np.full(len(grams[-1]), len(places), np.int32))
                places.append(place)
            else:
                short += 1
        items[name], too_short[name] = range(first, len(places)), short
        if not items[name]:
            raise InputError(
                f"{pattern}: none of its {short:,} items has a text of {LEAST} words, so that there is nothing to "
                "compare: take it out of corpus.<task>.benchmarks"
            )
    flat = np.concatenate(grams)
    order = np.argsort(flat, kind="stable")
    sieve = np.zeros(1 << int(SIEVE_BITS), bool)
    sieve[_sieved(np.concatenate(heads))] = True
    return Benchmarks(items, too_short, places, flat[order], np.concatenate(owners)[order], sieve)


def _cut(text: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The n-grams by which a text is found (all with a word of letters), after the first LEAST words of each."""
    separate = words(text)
    if len(separate) >= LEAST:
        hashed, n = hashes(separate), min(LENGTH, len(separate))
        telling = np.convolve([len(word) > 1 and word.isalpha() for word in separate], np.ones(n), "valid")
        chosen = np.flatnonzero(telling > 0.5)
        if len(chosen):
            yield ngrams(hashed, LEAST)[chosen], ngrams(hashed, n)[chosen]


def _sieved(grams: np.ndarray) -> np.ndarray:
    return grams >> (np.uint64(64) - SIEVE_BITS)


def _items(pattern: str) -> Iterator[tuple[str, Iterator[str]]]:
    """Each item's place and texts."""
    if pattern.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory() as folder:
            try:
                with tarfile.open(pattern) as archive:
                    archive.extractall(folder, filter="data")
            except FileNotFoundError:
                raise InputError(f"{pattern}: no file found; corpus.<task>.benchmarks must name files") from None
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                raise InputError(f"{pattern} is not a whole tar archive ({error})") from None
            for place, texts in _items(folder):
                yield place.replace(folder, pattern, 1), texts
        return
    for path, is_document in local.matching(pattern):
        rows = [(str(path), local.whole(path, local.LEAST_ROW))] if is_document else local.rows(path, ())
        for place, row in rows:
            if isinstance(row, Refusal):
                detail = f" ({row.detail})" if row.detail else ""
                raise InputError(f"{place}: {row.reason}{detail}. Every item of a benchmark must be readable")
            yield place, _strings(row if isinstance(row, dict) else row.text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
