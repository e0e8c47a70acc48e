"""KL(reference || model) in nats, a token and a sequence, over the reference's own samples at temperature 1.

Between models that write the same tokens it is Rao-Blackwellised: the exact divergence of the next-token distributions
at every position of the samples (Amini et al. 2025). For a model with control tokens it is the plain Monte Carlo mean
of log p(text) - log q(text and control tokens), an upper bound; for one with another tokenizer that of log p(text) -
log q(text as it tokenises it), an upper bound too, nats a token being tokens of the reference. A sample ends with its
end of text, at ``divergence_tokens`` or at half the context, so that no control token is cut off; there is no padding.
Standard errors are over samples. Vocabularies may be padded to different sizes: padding is never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric
from freshstart.scoring.segments import SEGMENTERS

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject
    from freshstart.sampling.sampler import Drawn

EXACT, BOUND = "rao-blackwell", "monte-carlo upper bound"
COPIES = 5  # of the logits that exist at a time
KL, TABLE, UNIT = "divergence", "Divergence", "nats per token"
METRICS = (
    Metric(f"{KL}.reference", "the model that this one is compared with", "text"),
    Metric(f"{KL}.estimator", "how it is estimated", "text"),
    Metric(f"{KL}.per_token", "KL from the reference", UNIT, "lower", TABLE, UNIT, "divergence_per_token", 3),
    Metric(f"{KL}.per_token_se", "its standard error", UNIT, column="divergence_per_token_se"),
    Metric(f"{KL}.per_sequence", "the same for a whole sample", "nats", "lower"),
    Metric(f"{KL}.per_sequence_se", "its standard error", "nats"),
    Metric(f"{KL}.n", "samples of the reference", "samples"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    from freshstart.evaluation.subject import Sampling

    settings, reference = context.settings, context.reference
    most = min(settings.divergence_tokens, (min(subject.context, reference.context) - 2) // 2)
    sampling = Sampling(most, batch_size=settings.batch_size)
    drawn = reference.generate([""] * settings.divergence_samples, reference.asked[0], sampling, context.seed)
    is_exact = not subject.controls and subject.tokenizer.same_text(reference.tokenizer)
    pieces = list((_exact if is_exact else _bound)(subject, reference, drawn))
    sums, lengths = np.array([total for total, _ in pieces]), np.array([float(length) for _, length in pieces])
    per_token = sums.sum() / lengths.sum()
    residual = (sums - per_token * lengths) / lengths.mean()
    return {
        "divergence": {
            "reference": settings.reference,
            "estimator": EXACT if is_exact else BOUND,
            "per_token": float(per_token),
            "per_token_se": float(residual.std(ddof=1) / np.sqrt(len(sums))),
            "per_sequence": float(sums.mean()),
            "per_sequence_se": float(sums.std(ddof=1) / np.sqrt(len(sums))),
            "n": len(sums),
        }
    }


def _batches(subject: Subject, reference: Subject, drawn: list[Drawn]) -> Iterator[tuple[list[list[int]], list[Drawn]]]:
    """Samples of equal length together, each between ends of text: no padding."""
    end = reference.end_of_text
    rows = [([end, *sample.tokens, *([end] if sample.ended else [])], sample) for sample in drawn]
    for length in sorted({len(row) for row, _ in rows if len(row) > 1}):
        same = [(row, sample) for row, sample in rows if len(row) == length]
        at_once = min(model.rows_at_once(length, COPIES) for model in (subject, reference))
        for begin in range(0, len(same), at_once):
            chosen = same[begin : begin + at_once]
            yield [row for row, _ in chosen], [sample for _, sample in chosen]


def _exact(subject: Subject, reference: Subject, drawn: list[Drawn]) -> Iterator[tuple[float, int]]:
    """For each sample the sum of the divergences at its positions, and their number."""
    import torch

    p_masked, q_masked = reference.forbidden(reference.asked[0]), subject.forbidden(subject.asked[0])
    size = min(subject.model.config.vocab_size, reference.model.config.vocab_size)  # behind it there is padding alone
    for rows, _ in _batches(subject, reference, drawn):
        tokens = torch.tensor(rows, device=reference.model.device)
        logp = reference.log_probabilities(tokens, p_masked)[..., :size]
        logq = subject.log_probabilities(tokens, q_masked)[..., :size]
        p = logp.exp()
        sums = torch.where(p > 0, p * (logp - logq), 0.0).sum(-1).double().sum(1)
        yield from ((total, tokens.shape[1] - 1) for total in sums.tolist())


def _bound(subject: Subject, reference: Subject, drawn: list[Drawn]) -> Iterator[tuple[float, int]]:
    """For each sample the nats by which the reference finds it likelier, and its length in the reference's tokens."""
    import torch

    forbidden = reference.forbidden(reference.asked[0])
    same_tokens = subject.tokenizer.same_text(reference.tokenizer)
    for rows, samples in _batches(subject, reference, drawn):
        likelihoods = reference.log_p(torch.tensor(rows), forbidden).sum(1)
        for likelihood, sample, row in zip(likelihoods.tolist(), samples, rows, strict=True):
            tokens = sample.tokens if same_tokens else None
            yield likelihood - _charged(subject, reference, sample, tokens), len(row) - 1


def _charged(subject: Subject, reference: Subject, sample: Drawn, tokens: list[int] | None) -> float:
    """log q of a sample, as ``tokens`` or as the subject reads its text, with its own control token at each segment."""
    import torch

    own = subject.controls[0] if subject.controls else None
    if tokens is not None and subject.white_space == "leading":
        marked = subject.marked_tokens(tokens, own)
    else:
        text = reference.tokenizer.decode(sample.tokens)
        ends = SEGMENTERS[subject.segments](text)
        marked = subject.marked(text, ends, [own] * len(ends) if own else None).tokens.tolist() if ends else []
    end = subject.end_of_text
    row = torch.tensor([[end, *marked, *([end] if sample.ended else [])]])
    return float(subject.log_p(row, subject.forbidden(subject.asked[0])).sum())
