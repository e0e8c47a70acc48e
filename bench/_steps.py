"""What is trained where training is measured: shapes, random tokens, and our loop asked for some steps.

Work of a token, forward and backward (``flop_per_token``). A weight of a matrix product costs a multiplication and an
addition forward, and the same twice backward (the gradients of input and weight): 6 FLOP a token. A block has 12 d^2
such weights (3 d^2 in, d^2 out, 8 d^2 in the two of the MLP), the head V d; the embedding is a look-up. Attention adds,
in each of L layers, products of length d with T keys and with T values: 4 d T forward, 12 d T in all; a causal mask
needs half of that. So 6 (12 L d^2 + V d) + 12 L d T by the convention of full attention (Chowdhery et al. 2022, app.
B; nanoGPT), and + 6 L d T for causal attention. V is the vocabulary asked for: padding it is no use to anybody.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freshstart import objectives
from freshstart.objectives import Good, TrainScores
from freshstart.tokens import CONTROLS, Control
from freshstart.tokens.store import Stream, StreamWriter
from freshstart.training import TrainSettings, Vocabulary

SEGMENT, DOCUMENT = 10, 1000  # tokens
BYTES_PER_TOKEN = 2 + (8 + 4) / SEGMENT + 8 / DOCUMENT
NEVER = 1_000_000_000  # steps: no way writes checkpoints while it is timed

SMALL_VOCABULARY = 4096
SMALL = TrainSettings(
    layers=4, width=128, heads=4, context=128, batch_size=16, learning_rate=0.001, log_every=16, checkpoint_every=NEVER
)
QUICK_VOCABULARY = 1024
QUICK = TrainSettings(  # train.every and tokenizer.every of conf/scale/quick.yaml
    layers=2,
    width=128,
    heads=4,
    context=128,
    dropout=0.0,
    batch_size=16,
    optimizer="muon",
    learning_rate=0.005,
    muon_learning_rate=0.02,
    beta1=0.9,
    beta2=0.95,
    weight_decay=0.0,
    gradient_clip=1.0,
    schedule="linear",
    warmup=0.04,
    precision="fp32",
    compile="auto",
    threads=1,
    log_every=16,
    checkpoint_every=NEVER,
)
OBJECTIVES: dict[str, dict[str, Any]] = {  # shards.every of conf/scale/quick.yaml; good is that of pep8
    "mle": {},
    "unlikelihood": {"alpha": 1.0},
    "rwr": {"rewards": "standardized", "beta": 1.0, "most": 20.0, "normalize": True},
    "awr": {"rewards": "rank", "beta": 1.0, "most": 20.0, "normalize": True, "alpha": 0.5, "detach": False},
}
GPT2_VOCABULARY = 50257 + 2
GPT2 = TrainSettings(
    layers=12,
    width=768,
    heads=12,
    context=1024,
    batch_size=64,
    learning_rate=0.0006,
    precision="bf16",
    log_every=16,
    checkpoint_every=NEVER,
)


def ours(
    objective: str, stream: Stream, settings: TrainSettings, vocabulary: int, steps: int, device: torch.device
) -> dict[str, Any]:
    """Our loop, from an empty state folder; gives the record of the run."""
    from freshstart.training.launch import Group
    from freshstart.training.loop import train
    from freshstart.training.rows import Rows
    from freshstart.training.run import Run

    positions = steps * settings.batch_size * settings.context
    loaded = objectives.load(objective)
    asked = loaded.settings(good=Good(score=0.0), positions=positions, **OBJECTIVES[objective])
    scores = np.asarray(stream.segment_scores[:100_000])
    good, bad = (Control(name, string, vocabulary - 2 + i) for i, (name, string) in enumerate(CONTROLS.items()))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FRESHSTART_STATE"] = folder
        run = Run(
            title=objective,
            settings=settings,
            objective=loaded,
            numbers=loaded.resolve(asked, TrainScores(scores, np.full(len(scores), SEGMENT), scores)),
            rows=Rows(stream=stream, context=settings.context, digest="bench", seed=0),
            vocabulary=Vocabulary(size=vocabulary, end_of_text=vocabulary - 3, controls=(good, bad)),
            positions=positions,
            seed=0,
            output=Path(folder, "model"),
            curve=Path(folder, "curve.csv"),
        )
        return train(run, {"bench": objective}, Group(rank=0, count=1, device=device))


def write(folder: Path, tokens: int, vocabulary: int) -> Stream:
    """Write a stream of random tokens in documents of 1,000, and open it."""
    rng = np.random.default_rng(0)
    tokens -= tokens % DOCUMENT
    with StreamWriter(folder, np.dtype("u2")) as stream:
        for begin in range(0, tokens, 10_000 * DOCUMENT):
            length = min(10_000 * DOCUMENT, tokens - begin)
            ids = rng.integers(0, vocabulary - 3, length, dtype=np.uint16)
            segments, documents = length // SEGMENT, length // DOCUMENT
            scores = np.where(rng.random(segments) < 0.2, rng.random(segments), 0)
            stream.append(ids, np.full(segments, SEGMENT), scores, np.full(documents, DOCUMENT))
    return Stream.open(folder, "bench")


def padded(vocabulary: int) -> int:
    """The vocabulary as our model has it: rounded up to a multiple of 128."""
    return -(-vocabulary // 128) * 128


def parameters(settings: TrainSettings, vocabulary: int) -> int:
    """Of a GPT-2: matrices, biases and norms of its blocks, the last norm, the embeddings (one is the head too)."""
    layers, width = settings.layers, settings.width
    return layers * (12 * width**2 + 13 * width) + 2 * width + (padded(vocabulary) + settings.context) * width


def flop_per_token(settings: TrainSettings, vocabulary: int, *, causal: bool) -> int:
    """FLOP of a token, forward and backward; the derivation stands at the top."""
    weights = 12 * settings.layers * settings.width**2 + vocabulary * settings.width
    attention = (6 if causal else 12) * settings.layers * settings.width * settings.context
    return 6 * weights + attention


def shape(settings: TrainSettings, vocabulary: int, **more: int) -> dict[str, Any]:
    """What a document says of the model and of how it was measured."""
    names = ("layers", "width", "heads", "context", "batch_size", "optimizer", "log_every")
    described = {name: getattr(settings, name) for name in names}
    return {"parameters": parameters(settings, vocabulary), "vocabulary": vocabulary, **described, **more}
