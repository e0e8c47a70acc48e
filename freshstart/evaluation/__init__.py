"""Evaluation: what a trained model writes, how bad it is, what it has lost, and how sure we are of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How a model is sampled and measured.

    ``samples`` texts of ``min_new_tokens`` to ``max_new_tokens`` tokens are drawn at ``temperature`` from the nucleus
    ``top_p``, ``batch_size`` at a time (part of the result: a batch has one random stream). A sample counts from
    ``min_characters`` on. ``divergence_samples`` texts of the reference measure the divergence from it; ``reference``
    is ``mle`` (the task's own mle model of the same seed) or a folder or hub name of a model with the same tokens.
    Held-out text is read up to ``heldout_tokens``; samples are looked up in the first ``memory_tokens`` of the
    training stream. ``threads`` is part of the result, as in training. Each snapshot of the training writes
    ``snapshot_samples`` texts, but never more than ``samples``.

    ``judges`` names the held-out judges of the samples (``freshstart.evaluation.judges``); null takes those of the
    scorer's kind and those in the scorer's folder. ``gold`` is a file of marked personal data on which the scorer's
    recall is measured, or null.
    """

    samples: int
    max_new_tokens: int
    min_new_tokens: int = 10
    min_characters: int = 20
    temperature: float = 0.7
    top_p: float = 0.9
    batch_size: int = 256
    divergence_samples: int = 512
    divergence_tokens: int = 64
    reference: str = "mle"
    heldout_tokens: int = 1_000_000
    memory_tokens: int = 5_000_000
    bootstrap: int = 2000
    snapshot_samples: int = 256
    threads: int = 1
    judges: tuple[str, ...] | None = None
    gold: str | None = None

    def __post_init__(self) -> None:
        counts = ("samples", "max_new_tokens", "batch_size", "divergence_samples", "divergence_tokens", "bootstrap")
        for name in (*counts, "snapshot_samples", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(f"min_new_tokens must be from 0 to max_new_tokens, found {self.min_new_tokens}")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("temperature must be above 0, and top_p above 0 and at most 1")
        if self.judges is not None and len(set(self.judges)) < len(self.judges):
            raise ValueError(f"judges names one twice: {', '.join(self.judges)}")
