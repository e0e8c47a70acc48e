"""From scored segments as the paper published them to ours: where a segment ends, and what its score counts.

The published sets (Korbak et al. 2023: columns ``texts`` and ``scores``) give white space to the segment before it;
ours gives it to the segment behind it, and knows fewer boundaries. A document of theirs is read as follows.

- Trailing white space moves to the next segment.
- A segment of white space alone merges with the following one, at the end of a document with the one before.
- A boundary that does not stand between something solid and white space is dropped, and its two segments merge.
- Counts are preserved: ``count = score x length`` of the published segment, and a merged or moved segment scores the
  sum of its counts over its own length. A probability stays what it is; of two segments that merge the greater one is
  kept, since a text is as toxic as the worst of it. White space alone has no probability: what a classifier says of an
  empty text is its noise floor, and would lie above that of many clean sentences.

Whether a set's counts were divided by the length once or twice is read off the numbers: ``score x length`` is a whole
number where it was once, and ``score x length x length`` alone where it was twice. Short segments are not asked, since
there both can hold (4 in 2 characters, divided twice, is 1). Where neither holds for nearly all others it stays
undecided, and of the scores only zero and not zero can be trusted. Cost: about 1 microsecond a segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["count_per_character", "probability"]
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)  # c.isspace() and not "\x1c" <= c <= "\x1f", as in scoring/segments.py; a test holds it to that
WHOLE = 1e-3  # how far from a whole number a count may lie: stored as float32, 1e-7 of its size
SHORTEST = 16  # characters; nothing counted here occurs once a character
DECIDED = 0.99  # share of the segments that must agree
ONCE, TWICE, UNDECIDED = "once", "twice", "undecided"


@dataclass(frozen=True, slots=True)
class Divided:
    """How often counts were divided by the length, and the shares of ``segments`` that speak for once and for twice."""

    verdict: str
    once: float
    twice: float
    segments: int

    def record(self) -> dict[str, Any]:
        shares = {ONCE: round(self.once, 6), TWICE: round(self.twice, 6), "segments": self.segments}
        return {"divided_by_length": self.verdict, "share_supporting": shares}


def divided_by_length(segments: Iterable[tuple[float, int]]) -> Divided:
    """Decide from (score, length in characters) of segments; those of score 0 or too short are passed over."""
    once = twice = seen = 0
    for score, length in segments:
        if score <= 0 or length < SHORTEST:
            continue
        seen += 1
        if _is_count(score * length):
            once += 1
        elif _is_count(score * length * length):
            twice += 1
    if not seen:
        return Divided(UNDECIDED, 0.0, 0.0, 0)
    shares = {ONCE: once / seen, TWICE: twice / seen}
    verdict = next((name for name, share in shares.items() if share >= DECIDED), UNDECIDED)
    return Divided(verdict, shares[ONCE], shares[TWICE], seen)


def count(score: float, length: int, divided: str) -> float:
    """What a published score counted; whole where it nearly is."""
    found = score * length * (length if divided == TWICE else 1)
    return float(round(found)) if divided != UNDECIDED and abs(found - round(found)) < WHOLE else found


def resegmented(
    texts: Sequence[str], scores: Sequence[float], unit: Unit, divided: str = ONCE
) -> tuple[str, list[int], list[float]]:
    """The document, our segments' ends (character offsets, the last one the document's length) and their scores.

    ``texts`` and ``scores`` are equally long and not empty; a text of white space alone is one segment.
    """
    text = "".join(texts)
    counts = unit == "count_per_character"
    last = len(text.rstrip(WHITE_SPACE))
    ends: list[int] = []
    amounts: list[float] = []
    begin, amount = 0, 0.0
    for piece, score in zip(texts, scores, strict=True):
        solid = len(piece.rstrip(WHITE_SPACE))
        if counts:
            amount += count(score, len(piece), divided) if piece else 0.0
        elif solid:
            amount = max(amount, score)
        end, begin = begin + solid, begin + len(piece)
        if solid and end < last and text[end] in WHITE_SPACE:
            ends.append(end)
            amounts.append(amount)
            amount = 0.0
    ends.append(len(text))
    amounts.append(amount)
    if not counts:
        return text, ends, amounts
    begins = [0, *ends[:-1]]
    return text, ends, [amount / max(end - begin, 1) for amount, begin, end in zip(amounts, begins, ends, strict=True)]


def _is_count(value: float) -> bool:
    return value > 0.5 and abs(value - round(value)) < WHOLE
