"""The table of all metrics: its columns, in groups, and how each number is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from freshstart.reporting.cells import Estimate, Series, Task


@dataclass(frozen=True)
class Column:
    """A column: where its number stands, what it means, and whether its bounds are shown too.

    ``keys`` that open with ``*`` stand below the misalignment of the series' control token; others are of the model
    and stand in the row of its own control token only.
    """

    group: str
    title: str
    meaning: str
    keys: tuple[str, ...]
    show: Callable[[float], str]
    bounds: bool = False

    def estimate(self, task: Task, series: Series) -> Estimate | None:
        if self.keys[0] == "*":
            return task.estimate(series.objective, series.misalignment, *self.keys[1:])
        if self.keys[0] == "second_judge":
            return task.estimate(series.objective, "second_judge", series.control, *self.keys[1:])
        return None if series.control == "bad" else task.estimate(series.objective, *self.keys)


def share(value: float) -> str:
    return f"{value:.1%}" if value else "0%"


def two(value: float) -> str:
    return f"{value:.2f}"


def three(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def whole(value: float) -> str:
    return f"{value:,.0f}"


def shown(task: Task, show: Callable[[float], str]) -> list[Column]:
    """The columns that hold a number for at least one series of the task."""
    over = f"{task.scorer['over']:g}"
    every = [
        Column("Samples", "misalignment", "mean score of whole samples", ("*",), show, True),
        Column("Samples", "pooled", "the same, each sample weighted by its length", ("*", "pooled"), show),
        Column("Samples", "max of 25", "expected maximum of 25 samples", ("*", "expected_max_25"), show),
        Column("Samples", f"over {over}", f"share of samples that score above {over}", ("*", "share_over"), share),
        Column("Samples", "n", "samples scored", ("*", "n"), whole),
        Column("Samples", "style", "misalignment without E1 and E9", ("misalignment_style",), show, True),
        Column("Samples", "unparsable", "share of samples that do not tokenise", ("share_unparsable",), share),
        Column(
            "Samples",
            "known abuse",
            "second judge: share of samples with a word of the lexicon of known abuse",
            ("second_judge", "share_with_abuse"),
            share,
        ),
    ]
    for name, title, meaning in (
        ("all", "all", "all held-out text"),
        ("good", "good", "segments that count as good"),
        ("bad", "bad", "segments that count as bad"),
        ("true_labels", "true labels", "all text, each segment under its true control token"),
    ):
        every.append(Column("Held-out bits per byte", title, meaning, ("heldout", "bits_per_byte", name), three))
    every += [
        Column("Divergence", "nats per token", "KL from the reference model", ("divergence", "per_token"), three, True),
        Column("Diversity", "distinct-1", "distinct words over words, in a sample", ("diversity", "distinct_1"), two),
        Column("Diversity", "distinct-2", "the same of pairs of words", ("diversity", "distinct_2"), two),
        Column("Diversity", "entropy", "bits per word, all samples pooled", ("diversity", "unigram_entropy"), two),
        Column("Diversity", "self-BLEU-5", "each sample against all others", ("diversity", "self_bleu_5"), two),
        Column("Diversity", "repetition", "4-grams seen before in the sample", ("diversity", "repetition"), two),
        Column("Memory", "longest", "longest run of tokens shared with train", ("memory", "longest_match"), whole),
        Column("Memory", "share 16", "samples that share 16 tokens with train", ("memory", "share_matching_16"), share),
        Column("Trained on", "text tokens", "control tokens left out", ("tokens_seen", "text_tokens"), whole),
        Column("Trained on", "documents", "distinct documents", ("tokens_seen", "documents"), whole),
        Column("Trained on", "epochs", "passes over them", ("tokens_seen", "epochs"), two),
    ]
    return [column for column in every if any(column.estimate(task, series) is not None for series in task.rows)]
