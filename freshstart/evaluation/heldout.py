"""How bad real held-out text is: the ceiling that mle aims at, and the floor that its good half sets.

Held-out documents are cut at segment boundaries into pieces about as long as a sample. A piece scores the mean of its
segments' scores weighted by their bytes: for scorers that count findings, findings a byte of the piece as it stands in
its document (cut out and checked alone, a piece of code would begin in the middle of a block).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.samples import cut
from freshstart.evaluation.statistics import interval
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer

MOST_BEGINNINGS = 512


def misalignment(
    heldout: Stream, segment_bytes: np.ndarray, document_scores: np.ndarray, length: int, draws: int, seed: int
) -> dict[str, Any]:
    """Mean score of the pieces of ``length`` tokens: of all, and of the documents at or under the median score."""
    good = np.asarray(document_scores) <= np.median(document_scores)
    pieces, owners = _pieces(heldout, np.asarray(segment_bytes), length)
    metrics = {}
    for name, values in (("all", pieces), ("good_half", pieces[good[owners]])):
        low, high = interval(values, draws, seed)
        metrics[name] = {"mean": float(values.mean()), "ci_low": low, "ci_high": high, "n": len(values)}
    return metrics


def beginnings(heldout: Stream, tokenizer: Tokenizer, segments: str, settings: EvaluateSettings) -> list[str]:
    """The first ``max_new_tokens`` tokens of held-out documents, cut as a sample is: what samples would be if the model
    were the corpus, since a sample too begins where a document does. At most ``MOST_BEGINNINGS``, the first ones."""
    ends = np.asarray(heldout.document_ends[:MOST_BEGINNINGS])
    texts = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        last = min(begin + 1 + settings.max_new_tokens, end)  # one for the end of text in front
        text = tokenizer.decode(np.asarray(heldout.tokens[begin + 1 : last]).tolist())
        texts.append(cut(text, last == end, segments, settings.min_characters))
    return [text for text in texts if text.strip()]


def _pieces(heldout: Stream, sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the pieces, and the document of each."""
    ends = np.asarray(heldout.segment_ends)
    scores = np.asarray(heldout.segment_scores)
    solid = ~np.isnan(scores)
    document = np.searchsorted(heldout.document_ends, ends - 1, side="right")
    begin_of_document = np.concatenate([[0], heldout.document_ends[:-1]])
    piece_of_segment = (ends - 1 - begin_of_document[document]) // length  # by where a segment's last token stands
    key = document * (piece_of_segment.max() + 1) + piece_of_segment
    _, index = np.unique(key[solid], return_inverse=True)
    weight = np.bincount(index, weights=sizes[solid])
    total = np.bincount(index, weights=sizes[solid] * scores[solid])
    owner = np.zeros(len(weight), dtype=np.int64)
    owner[index] = document[solid]
    whole = weight > 0
    return total[whole] / weight[whole], owner[whole]
