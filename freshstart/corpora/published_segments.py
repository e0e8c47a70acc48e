"""From scored segments as the paper published them to ours: where a segment ends, and what its score counts.

The published sets (Korbak et al. 2023: columns ``texts`` and ``scores``) give white space to the segment before it;
ours gives it to the segment after it, and knows fewer boundaries. A document of theirs is read as follows.

- Trailing white space moves to the next segment.
- A segment of white space alone merges with the following one, at the end of a document with the one before.
- A boundary that does not stand between something solid and white space is dropped, and its two segments merge.
- Counts are preserved: ``count = score x length`` of the published segment, and a merged or moved segment scores the
  sum of its counts over its own length. A probability stays what it is; of two segments that merge the greater one is
  kept, since a text is as toxic as the worst of it. White space alone has no probability: what a classifier says of an
  empty text is its noise floor, and would lie above that of many clean sentences.

Whether a set's counts were divided by the length once or twice is read off the numbers: ``score x length`` is a whole
number where it was once, and ``score x length x length`` alone where it was twice. Short segments are left out, since
there both can hold (4 in 2 characters, divided twice, is 1). Where neither holds for nearly all others it stays
undecided, and all that the scores then say is zero or not zero. Cost: about 1 microsecond a segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

Unit = Literal["count_per_character", "probability"]
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)  # c.isspace() and not "\x1c" <= c <= "\x1f", as in scoring/segments.py; a test holds it to that
WHOLE = 1e-3  # how far from a whole number a count may lie: stored as float32, 1e-7 of its size
SHORTEST = 16  # characters; nothing counted here occurs once a character
SAMPLE = 20_000
DECIDED = 0.99  # share of the segments that must agree
ONCE, TWICE, UNDECIDED = "once", "twice", "undecided"


def divided_by_length(segments: Iterable[tuple[float, int]]) -> tuple[str, dict[str, float]]:
    """How often counts were divided by the length, from (score, length in characters) of segments.

    Also gives the shares of segments that speak for once and for twice, and their number. Looks at the first ``SAMPLE``
    segments that can tell: not those of score 0, nor short ones.
    """
    number = dict.fromkeys((ONCE, TWICE, UNDECIDED), 0)
    telling = ((score, length) for score, length in segments if score > 0 and length >= SHORTEST)
    for score, length in islice(telling, SAMPLE):
        is_once, is_twice = _is_count(score * length), _is_count(score * length * length)
        number[ONCE if is_once else TWICE if is_twice else UNDECIDED] += 1
    total = sum(number.values())
    shares = {name: number[name] / max(total, 1) for name in (ONCE, TWICE)}
    verdict = next((name for name, share in shares.items() if share >= DECIDED), UNDECIDED)
    return verdict, {**{name: round(share, 6) for name, share in shares.items()}, "segments": total}


def count(score: float, length: int, divided: str) -> float:
    """What a published score counted; whole where it nearly is."""
    number = score * length * (length if divided == TWICE else 1)
    return float(round(number)) if divided != UNDECIDED and abs(number - round(number)) < WHOLE else number


def resegmented(
    texts: Sequence[str], scores: Sequence[float], unit: Unit, divided: str = ONCE
) -> tuple[str, list[int], list[float]]:
    """The document, our segments' ends (character offsets, the last one the document's length) and their scores.

    ``texts`` and ``scores`` are equally long and not empty; a text of white space alone is one segment.
    """
    text = "".join(texts)
    last = len(text.rstrip(WHITE_SPACE))
    ends: list[int] = []
    amounts: list[float] = []  # counts or probabilities of the segments
    begin, amount = 0, 0.0
    for piece, score in zip(texts, scores, strict=True):
        solid = len(piece.rstrip(WHITE_SPACE))
        if unit == "count_per_character":
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
    if unit == "probability":
        return text, ends, amounts
    begins = [0, *ends[:-1]]
    return text, ends, [amount / max(end - begin, 1) for amount, begin, end in zip(amounts, begins, ends, strict=True)]


def _is_count(value: float) -> bool:
    return value > 0.5 and abs(value - round(value)) < WHOLE
