"""How well a model predicts: bits per byte on held-out text, and the divergence of the model from a reference.

Both use log q over what the model may write: unwanted ids (the bad control token, the padding, and the good one where
it is never trained) are masked and the rest renormalised. A conditional model is charged for text *and* control
tokens: log p of the text with ``<|good|>`` before each of its segments. That is the probability of one way to write
the text, hence an upper bound on the bits, and on the divergence, of the text alone. Left uncharged, a control token
would give away where a segment ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freshstart.sampling.sampler import Decoding, Drawn, sample
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer

ROWS_AT_ONCE = 64
NATS_PER_BIT = float(np.log(2))


@dataclass(frozen=True)
class Judged:
    """A model with what it may not write, and whether it is asked under ``<|good|>``."""

    model: Any
    unwanted: tuple[int, ...]
    conditional: bool


@torch.inference_mode()
def log_probabilities(model: Any, tokens: Tensor, unwanted: Sequence[int]) -> Tensor:
    """log q(. | what came before) at each position but the last, fp32: (rows, n) to (rows, n - 1, vocabulary)."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
    logits[..., list(unwanted)] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


# Bits per byte


def bits_per_byte(
    judged: Judged, heldout: Stream, segment_bytes: np.ndarray, most: int, threshold: float, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Bits per byte of held-out text: of all of it, and of its good and bad segments apart.

    The first ``most`` tokens of the stream, whole documents, are cut into rows of the model's context, as in training.
    A control token is charged to the segment behind it; the end of text is charged to ``all``. A conditional model
    gets ``<|good|>`` throughout; ``true_labels`` is the same with the segments' own labels, none of them masked.
    """
    documents = max(int(np.searchsorted(heldout.document_ends, most, side="right")), 1)
    tokens = np.asarray(heldout.tokens[: heldout.document_ends[documents - 1]]).astype(np.int64)
    spans = int(np.searchsorted(heldout.segment_ends, len(tokens), side="right"))
    ends = np.asarray(heldout.segment_ends[:spans])
    scores, sizes = np.asarray(heldout.segment_scores[:spans]), np.asarray(segment_bytes[:spans]).astype(np.float64)
    labels = np.where(scores <= np.float32(threshold), tokenizer.good, tokenizer.bad)

    def measured(control: np.ndarray | None, unwanted: Sequence[int]) -> dict[str, float]:
        stream, stream_ends = (tokens, ends) if control is None else _with_control(tokens, ends, scores, control)
        nats = _nats(judged.model, stream, unwanted)
        total = np.concatenate([[0.0], np.cumsum(nats)])  # total[i]: nats of the first i tokens
        cost = np.diff(total[stream_ends], prepend=0.0)
        good, bad = scores <= np.float32(threshold), scores > np.float32(threshold)  # both false at end of text
        chosen = {"all": slice(None), "good": good, "bad": bad}
        return {name: _ratio(cost[mask].sum(), sizes[mask].sum()) for name, mask in chosen.items()}

    if not judged.conditional:
        return measured(None, judged.unwanted)
    metrics = measured(np.full(spans, tokenizer.good), judged.unwanted)
    padding = [token for token in judged.unwanted if token != tokenizer.bad]
    return {**metrics, "true_labels": measured(labels, padding)["all"]}


def _with_control(
    tokens: np.ndarray, ends: np.ndarray, scores: np.ndarray, control: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The stream with a control token before each scored segment that has a token, and its segments' ends."""
    lengths = np.diff(ends, prepend=0)
    marked = np.flatnonzero(~np.isnan(scores) & (lengths > 0))
    stream = np.insert(tokens, (ends - lengths)[marked], control[marked])
    lengths[marked] += 1
    return stream, np.cumsum(lengths)


def _nats(model: Any, stream: np.ndarray, unwanted: Sequence[int]) -> np.ndarray:
    """-log q of each token of the stream, in rows of the context; 0 for the first, which nothing predicts."""
    context = model.config.max_position_embeddings
    nats = [np.zeros(1)]
    for begin in range(0, len(stream) - 1, context * ROWS_AT_ONCE):
        piece = stream[begin : begin + context * ROWS_AT_ONCE + 1]
        whole = (len(piece) - 1) // context * context
        rows = [piece[i : i + context + 1] for i in range(0, whole, context)]
        for batch in ([np.stack(rows)] if rows else []) + ([piece[None, whole:]] if len(piece) - whole > 1 else []):
            batch = torch.from_numpy(np.ascontiguousarray(batch)).to(model.device)
            logq = log_probabilities(model, batch, unwanted)
            nats.append(-logq.gather(-1, batch[:, 1:, None]).flatten().double().cpu().numpy())
    return np.concatenate(nats)


def _ratio(nats: float, size: float) -> float | None:
    return float(nats / NATS_PER_BIT / size) if size else None


# Divergence


def divergence(
    judged: Judged,
    reference: Any,
    reference_unwanted: Sequence[int],
    tokenizer: Tokenizer,
    segments: str,
    count: int,
    batch_size: int,
    length: int,
    seed: int,
) -> dict[str, Any]:
    """KL(reference || model) in nats, a token and a sequence, over the reference's own samples at temperature 1.

    Between models that write the same tokens it is Rao-Blackwellised: the exact divergence of the next-token
    distributions at every position of the samples (Amini et al. 2025). For a conditional model it is the plain Monte
    Carlo mean of log p(text) - log q(text and control tokens). A sample ends with its end of text, at ``length`` tokens
    or at half the context, so that no control token is cut off; there is no padding. ``se`` are standard errors over
    samples.
    """
    most = min(length, (judged.model.config.max_position_embeddings - 2) // 2)
    decoding = Decoding(1.0, 1.0, 0, most, tokenizer.end_of_text, tuple(reference_unwanted))
    drawn = sample(reference, [tokenizer.end_of_text], count, batch_size, decoding, seed)
    pieces = list(_divergences(judged, reference, reference_unwanted, tokenizer, segments, drawn))
    sums, lengths = np.array([total for total, _ in pieces]), np.array([float(length) for _, length in pieces])
    per_token = sums.sum() / lengths.sum()
    residual = (sums - per_token * lengths) / lengths.mean()
    return {
        "per_token": float(per_token),
        "per_token_se": float(residual.std(ddof=1) / np.sqrt(len(sums))),
        "per_sequence": float(sums.mean()),
        "per_sequence_se": float(sums.std(ddof=1) / np.sqrt(len(sums))),
        "estimator": "monte-carlo upper bound" if judged.conditional else "rao-blackwell",
        "n": len(sums),
    }


def _divergences(
    judged: Judged,
    reference: Any,
    reference_unwanted: Sequence[int],
    tokenizer: Tokenizer,
    segments: str,
    drawn: Sequence[Drawn],
) -> Iterator[tuple[float, int]]:
    """For each sample the nats by which the reference finds it likelier, and its length in text tokens."""
    end = tokenizer.end_of_text
    texts = [[end, *one.tokens, *([end] if one.ended else [])] for one in drawn]
    for length in sorted({len(text) for text in texts}):  # equal lengths together: no padding
        if length < 2:
            continue
        same = [text for text in texts if len(text) == length]
        for begin in range(0, len(same), ROWS_AT_ONCE):
            rows = same[begin : begin + ROWS_AT_ONCE]
            tokens = torch.tensor(rows, device=reference.device)
            logp = log_probabilities(reference, tokens, reference_unwanted)
            if judged.conditional:
                chosen = logp.gather(-1, tokens[:, 1:, None]).squeeze(-1).double().sum(1)
                for row, likelihood in zip(rows, chosen.tolist(), strict=True):
                    yield likelihood - _charged(judged, tokenizer, segments, row), length - 1
            else:
                logq = log_probabilities(judged.model, tokens, judged.unwanted)
                p = logp.exp()
                exact = torch.where(p > 0, p * (logp - logq), 0.0).sum(-1).double().sum(1)
                yield from ((total, length - 1) for total in exact.tolist())


@torch.inference_mode()
def _charged(judged: Judged, tokenizer: Tokenizer, segments: str, row: Sequence[int]) -> float:
    """log q of a row (end of text, text) with ``<|good|>`` before each segment, every step renormalised."""
    body = [token for token in row[1:] if token != tokenizer.end_of_text]
    starts = set(segment_starts(body, tokenizer, segments))
    marked = [row[0]]
    for place, token in enumerate(body):
        marked += [tokenizer.good, token] if place in starts else [token]
    marked += [tokenizer.end_of_text] * (len(row) - 1 - len(body))
    tokens = torch.tensor([marked], device=judged.model.device)
    logq = log_probabilities(judged.model, tokens, judged.unwanted)
    return float(logq.gather(-1, tokens[:, 1:, None]).double().sum())


def segment_starts(tokens: Sequence[int], tokenizer: Tokenizer, segments: str) -> list[int]:
    """Places of the tokens that begin a segment of the text that the tokens make.

    A token begins where the text of those before it ends; that holds for the bytes of any byte-level tokenizer, and
    a boundary has white space behind it, which is never half a character.
    """
    begins = [len(text) for text in tokenizer.decode_many([tokens[:i] for i in range(len(tokens))])]
    bounds = [0, *SEGMENTERS[segments](tokenizer.decode(tokens))[:-1]]
    starts = np.searchsorted(begins, bounds, side="left")
    return sorted({int(start) for start in starts if start < len(tokens)})
