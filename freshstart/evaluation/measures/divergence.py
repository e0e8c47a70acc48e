"""Kullback-Leibler divergence in nats, a token and a sequence, between a reference and a model, in both directions.

Forward, KL(reference || model), is a mean over texts of the reference that all cells share; ``good`` is the same over
the segments that are good by the threshold of the task's mle: a model pays nothing for having unlearned bad text.
``reverse``, KL(model || reference), is a mean over texts of the model, drawn alike. Between models that write the same
tokens both are Rao-Blackwellised: the exact divergence of the next-token distributions at every position (Amini et al.
2025). Else they are the plain Monte Carlo mean of log p(text) - log q(text), where a model is charged for one way to
write a text: with control tokens, or in its own tokens. That makes the forward one an upper bound, and for a model with
control tokens the reverse one a lower bound. Tokens are those of the writer. Standard errors are over texts.
Vocabularies may be padded to different sizes: padding is never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.reference import Text
    from freshstart.evaluation.subject import Subject

EXACT, BOUND = "rao-blackwell", "monte-carlo upper bound"
COPIES = 5  # of the logits that exist at a time
KL, TABLE, UNIT = "divergence", "Divergence", "nats per token"
GOOD, REVERSE = f"{KL}.good", f"{KL}.reverse"


def _declared(path: str, meaning: str, title: str, column: str, texts: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{path}.per_token", meaning, UNIT, "lower", TABLE, title, column, 3),
        Metric(f"{path}.per_token_se", "its standard error", UNIT, column=f"{column}_se"),
        Metric(f"{path}.per_sequence", "the same for a whole text", "nats", "lower"),
        Metric(f"{path}.per_sequence_se", "its standard error", "nats"),
        Metric(f"{path}.n", texts, "texts"),
    )


PAPER = (
    "forward alone, from GPT-3 over 4,096 of its samples; padding is scored and control tokens are charged by accident"
)
METRICS = (
    Metric(f"{KL}.reference", "the model that this one is compared with", "text"),
    Metric(f"{KL}.estimator", "how it is estimated", "text"),
    *_declared(KL, "KL from the reference", UNIT, "divergence_per_token", "texts of the reference"),
    *_declared(GOOD, "KL from it in its good segments", "on good text", "divergence_good", "texts with a good one"),
    *_declared(REVERSE, "KL of the reference from the model", "reverse", "divergence_reverse", "texts of the model"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    from freshstart.evaluation.reference import charged, drawn, lengths
    from freshstart.evaluation.subject import Subject as Model

    reference, how = context.reference, context.settings
    own = drawn(subject, len(reference.texts), reference.most, how.batch_size, context.seed)
    reader = reference.reader
    is_exact = isinstance(reader, Model) and not subject.controls and subject.tokenizer.same_text(reader.tokenizer)
    if not isinstance(reader, Model):  # an endpoint does not say how likely an end of text is
        own = [replace(text, ended=False) for text in own]
    if is_exact:
        forward, reverse = exact(reader, subject, reference.texts), exact(subject, reader, own)
    else:
        read = charged(subject, reference.texts, reader.tokenizer if isinstance(reader, Model) else None)
        forward = list(map(np.subtract, reference.log_p, read))
        by_subject = charged(subject, own, subject.tokenizer)
        reverse = list(map(np.subtract, by_subject, reference.charged(own, subject.tokenizer)))
    everything = [np.full(len(sums), True) for sums in forward]
    good = [np.append(np.float32(scores) <= np.float32(context.threshold), False) for scores in reference.scores]
    own_lengths = [lengths(text, subject.tokenizer) for text in own]
    return {
        KL: {
            "reference": reference.settings.model,
            "estimator": EXACT if is_exact else BOUND,
            **estimates(forward, reference.lengths, everything),
            "good": estimates(forward, reference.lengths, good),
            "reverse": estimates(reverse, own_lengths, [np.full(len(sums), True) for sums in reverse]),
        }
    }


def estimates(
    by_segment: Sequence[np.ndarray], tokens: Sequence[np.ndarray], chosen: Sequence[np.ndarray]
) -> dict[str, float | int | None]:
    """What the chosen segments of texts cost a token and a text, with standard errors over texts; null below two."""
    pairs = zip(zip(by_segment, tokens, strict=True), chosen, strict=True)
    kept = [(values[mask].sum(), counts[mask].sum()) for (values, counts), mask in pairs if mask.any()]
    names = ("per_token", "per_token_se", "per_sequence", "per_sequence_se")
    sums, sizes = np.array(kept).T if kept else np.zeros((2, 0))
    if len(sums) < 2 or not sizes.sum():
        return {**dict.fromkeys(names), "n": len(sums)}
    per_token, root = sums.sum() / sizes.sum(), np.sqrt(len(sums))
    residual = (sums - per_token * sizes) / sizes.mean()
    values = per_token, residual.std(ddof=1) / root, sums.mean(), sums.std(ddof=1) / root
    return {**dict(zip(names, map(float, values), strict=True)), "n": len(sums)}


def exact(writer: Subject, reader: Subject, texts: Sequence[Text]) -> list[np.ndarray]:
    """The divergence of the reader's next-token distributions from the writer's own at each position of the writer's
    texts, summed by segment, the end of text last."""
    import torch

    from freshstart.evaluation.reference import by_length, owners, summed

    p_masked, q_masked = writer.forbidden(writer.asked[0]), reader.forbidden(reader.asked[0])
    size = min(writer.model.config.vocab_size, reader.model.config.vocab_size)  # behind it there is padding alone
    end = writer.end_of_text
    rows = [[end, *(text.tokens or ()), *([end] if text.ended else [])] for text in texts]
    found = [np.zeros(0)] * len(rows)
    for places in by_length(rows, lambda length: min(model.rows_at_once(length, COPIES) for model in (writer, reader))):
        if len(rows[places[0]]) > 1:
            tokens = torch.tensor([rows[place] for place in places], device=writer.model.device)
            logp = writer.log_probabilities(tokens, p_masked)[..., :size]
            logq = reader.log_probabilities(tokens, q_masked)[..., :size]
            p = logp.exp()
            sums = torch.where(p > 0, p * (logp - logq), 0.0).sum(-1).double().cpu().numpy()
            for place, values in zip(places, sums, strict=True):
                found[place] = values
    where = [owners(text, text.tokens or [], writer.tokenizer) for text in texts]
    return [summed(text, values, places) for text, values, places in zip(texts, found, where, strict=True)]
