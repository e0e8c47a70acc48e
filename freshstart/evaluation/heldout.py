"""What depends on the task alone: how bad real held-out text is, to the scorer and to the judges, and what they find.

The beginnings of held-out documents are cut as a sample is: what samples would be if the model were the corpus, since a
sample too begins where a document does. They are what judges read, and what a scorer of whole texts scores. A scorer
that counts findings has read all of the documents, cut at segment boundaries into pieces about as long as a sample:
what it found in a piece as it stands in its document counts as in a sample, over its words (cut out and checked alone,
a piece of code would begin in the middle of a block). Intervals are over documents, since pieces of one are alike. All
documents are the ceiling that mle aims at; those at or under the median score, the floor that the good half sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freshstart.evaluation import EvaluateSettings, gold, judge
from freshstart.evaluation.samples import beginnings, counted
from freshstart.evaluation.statistics import estimate, rate
from freshstart.scorers import FindingScorer, load, of_texts
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer

SCORER = "scorer"  # the training scorer among those that find marked spans


@dataclass(frozen=True)
class Task:
    """A task, its settings, and where its parts lie: the scorer, the tokenizer, the held-out token stream."""

    name: str
    settings: EvaluateSettings
    seed: int
    scorer: Path
    tokenizer: Path
    tokens: Path


def measured(task: Task) -> dict[str, Any]:
    """``misalignment`` of real text, what the judges say of it, and recall on the gold file where one is named."""
    settings = task.settings
    scorer, record = load(task.scorer, task.name)
    stream = Stream.open(task.tokens, task.name)
    document_scores = np.load(task.tokens / "document_scores.npy", mmap_mode="r")
    good = np.asarray(document_scores) <= np.median(document_scores)
    halves = {"all": np.ones(len(good), bool), "good_half": good}
    tokenizer = Tokenizer.open(task.tokenizer)
    if isinstance(scorer, FindingScorer):
        found, words = by_document(stream, settings.max_new_tokens, tokenizer)
        sides = {name: (found[chosen & (words > 0)], words[chosen & (words > 0)]) for name, chosen in halves.items()}
    else:
        begun = {
            name: beginnings(stream, tokenizer, record["segments"], settings, half) for name, half in halves.items()
        }
        answers = {name: of_texts(scorer, texts) for name, texts in begun.items()}
        sides = {name: ([said.scores[0] for said in of if said.scores], None) for name, of in answers.items()}
    panel = {name: judge(name).judge(task.scorer, task.name) for name in settings.judges or ()}
    texts = beginnings(stream, tokenizer, record["segments"], settings)
    metrics: dict[str, Any] = {
        "misalignment": {
            name: rate(values, sizes, settings.bootstrap, task.seed) for name, (values, sizes) in sides.items()
        },
        "judges": {
            name: {about: getattr(member, about) for about in ("title", "unit", "role", "better")}
            | estimate(member.score(texts), settings.bootstrap, task.seed)
            for name, member in panel.items()
        },
    }
    if settings.gold is not None:
        finders = {name: gold.by_text(member.find) for name, member in panel.items() if member.find is not None}
        metrics["gold"] = gold.recall(settings.gold, {SCORER: gold.by_scorer(scorer), **finders})
    return metrics


def by_document(heldout: Stream, length: int, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """The sum over each document's pieces of about ``length`` tokens of their findings, and that of their words."""
    ends = np.asarray(heldout.segment_ends)
    scores = np.asarray(heldout.segment_scores)
    solid = np.flatnonzero(~np.isnan(scores))
    document = np.searchsorted(heldout.document_ends, ends - 1, side="right")
    begin_of_document = np.concatenate([[0], heldout.document_ends[:-1]])
    piece_of_segment = (ends - 1 - begin_of_document[document]) // length  # by where a segment's last token stands
    key = document * (piece_of_segment.max() + 1) + piece_of_segment
    first = np.unique(key[solid], return_index=True)[1]
    owner = document[solid][first]
    begins = np.concatenate([[0], ends[:-1]])
    texts = tokenizer.decode_many([heldout.tokens[begins[place] : ends[place]] for place in solid])
    found = [round(float(score) * len(text)) for score, text in zip(scores[solid], texts, strict=True)]
    parts = np.split(np.arange(len(solid)), first[1:])  # the segments of a piece follow one another
    pairs = [counted([texts[place] for place in part], [found[place] for place in part]) for part in parts]
    documents = len(heldout.document_ends)
    findings, words = (np.bincount(owner, np.array(side, np.float64), documents) for side in zip(*pairs, strict=True))
    return findings, words
