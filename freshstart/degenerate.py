"""What of a task's data leaves models little to learn, or makes its numbers say little: one warning a sign.

The signs are read from what the stages before training have written, so that they show before hours are spent. Four
epochs are where repeated text begins to be worth less than fresh text (Muennighoff et al. 2023, arXiv 2305.16264).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from freshstart import files

LEAST_SEGMENTS = 1.05  # a document
LEAST_SHARE_GOOD, MOST_SHARE_GOOD = 0.01, 0.99  # of the segments
LEAST_SHARE_BAD, MOST_SHARE_BAD = 0.2, 0.8  # of the labelled rows
LONG = 2_000  # characters of a document that has line breaks where it is written text
MOST_UNBROKEN = 0.9  # share of the long documents
LEAST_PIECES = 64  # of a vocabulary, beyond the 256 bytes and the special tokens
MOST_EPOCHS = 4.0


def unbroken(parts: Sequence[Path]) -> tuple[int, int]:
    """Documents of ``LONG`` characters and more in the first part, and how many of them have no line break."""
    text = files.read_table(parts[0], "corpus", ["text"])["text"]
    long = text.filter(pc.greater_equal(pc.utf8_length(text), LONG))
    return len(long), int(pc.sum(pc.invert(pc.match_substring_regex(long, r"[\r\n]"))).as_py() or 0)


def warnings(
    tokens: Mapping[str, Any], mle: Mapping[str, Any], learned: Mapping[str, Any], long: int, without_breaks: int
) -> list[str]:
    """A sentence for each sign; ``tokens`` and ``mle`` are the manifests of the token stream and of mle's shards,
    ``learned`` the metrics of a scorer that was learned here."""
    found = []
    if tokens["segments"] < LEAST_SEGMENTS * tokens["documents"]:
        found.append(
            f"{tokens['documents']:,} documents have {tokens['segments']:,} segments, one each: nothing tells the bad "
            f"of a document from its rest. Choose the other of lines and sentences in scorer.<task>.segments, or look "
            "whether the corpus has lost its line breaks."
        )
    good = mle["share_segments_good"]
    if not LEAST_SHARE_GOOD <= good <= MOST_SHARE_GOOD:
        found.append(
            f"{good:.2%} of the segments are good: objectives that tell good from bad have almost nothing of one of "
            f"them to learn from. Segments are good up to a score of {mle['good_threshold']:g}: change "
            "shards.<task>.good, the reward or the corpus."
        )
    if long and without_breaks > MOST_UNBROKEN * long:
        found.append(
            f"{without_breaks:,} of {long:,} documents of {LONG:,} characters and more have no line break: the corpus "
            "has lost them, perhaps where its files were written."
        )
    pieces = tokens["vocabulary"] - 256 - 1 - len(tokens["controls"])
    if pieces < LEAST_PIECES:
        found.append(
            f"The vocabulary holds {max(pieces, 0)} pieces beside the bytes, and a token is "
            f"{tokens['characters_per_token']:.2f} characters: a model spends its positions on spelling. Raise "
            "tokenizer.<task>.vocabulary, or add text for the tokenizer to learn from."
        )
    if mle["repetition"] > MOST_EPOCHS:
        found.append(
            f"Models read the text {mle['repetition']:.1f} times (filtered: its part of it more often): beyond "
            f"{MOST_EPOCHS:g} times they learn it by heart. Add text, or lower shards.<task>.positions."
        )
    bad = learned.get("share_bad")
    if bad is not None and not LEAST_SHARE_BAD <= bad <= MOST_SHARE_BAD:
        found.append(
            f"The scorer is learned from rows of which {bad:.0%} are bad: it has seen few of the others. Add such rows."
        )
    return found
