"""The probability that a text is bad, from a transformer encoder finetuned in the scorer stage from labelled text.

``start`` is a folder or hub id of any encoder with a classification head in transformers, or ``scratch``: a small BERT
from random weights, with a lower-casing byte-level BPE of its own, learned on the same rows. One output with a
sigmoid, binary cross-entropy in which both labels weigh the same, AdamW (Loshchilov and Hutter 2019) without decay on
biases and norms, a linear warm-up and decay, gradients clipped to norm 1, rows of like length in a batch. Training
reads the first ``length`` tokens of a text; scoring reads longer ones in windows (``freshstart.scorers.neural``). The
same rows in any order, settings, thread count and type of processor give the same weights, in the hub's format
(``AutoModelForSequenceClassification`` and ``kind: hf_classifier`` load them).
Cost: ``scratch`` at its defaults learns 20,800 tweets and comments in 100 seconds on one core and scores 50,000 tokens
a second; a BERT-base needs a GPU to learn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart.errors import InputError
from freshstart.progress import Progress
from freshstart.scorers import learning, neural, pinned

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCRATCH = "scratch"
LABEL = "toxicity"  # the name of the output in config.json
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
POOL_BATCHES = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Settings(learning.Settings):
    """``layers``, ``width``, ``heads``, ``dropout`` and ``vocabulary`` shape a network from scratch; ``length`` is the
    most tokens that a window has; ``warmup`` a share of the steps; ``precision`` that of scoring. A hub id in ``start``
    needs ``revision``."""

    transformers: str
    start: str = SCRATCH
    revision: str | None = None
    layers: int = 2
    width: int = 128
    heads: int = 2
    dropout: float = 0.1
    vocabulary: int = 8192
    length: int = 128
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    threads: int = 1
    precision: neural.Precision = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, found {self.width} and {self.heads}")
        for name, least in (("layers", 1), ("vocabulary", 300), ("length", 16), ("epochs", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.batch_size < 1 or self.learning_rate <= 0 or not 0 <= self.warmup < 1 or not 0 <= self.dropout < 1:
            raise ValueError("batch_size and learning_rate must be above 0, warmup and dropout from 0 to below 1")


class Encoder(neural.NeuralScorer):
    version = "3"  # 1: learned from the rows in the order of their file; 2: labels not balanced

    def __init__(self, folder: Path, settings: Settings):
        pinned(transformers=settings.transformers)
        super().__init__(folder, LABEL, settings.precision, f"encoder {folder}")


def learn(settings: Settings, labelled: Iterable[tuple[str, int]], folder: Path) -> dict[str, Any]:
    """Learn from (text, 1 where bad), write the encoder to ``folder`` and give its held-out metrics."""
    import torch

    pinned(transformers=settings.transformers)
    learned, heldout = learning.divide(labelled, settings)
    with neural.steady(settings.threads), torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model, tokenizer = begin(settings, learned.texts)
        train(settings, model, tokenizer, learned)
    neural.save(model, tokenizer, [LABEL], folder)
    return learning.metrics(learned, heldout, Encoder(folder, settings).score_texts(heldout.texts))


def begin(settings: Settings, texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The network and its tokenizer before the first step: from random weights, or pretrained with a new head."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
    )

    if settings.start == SCRATCH:
        tokenizer = byte_pairs(texts, settings.vocabulary, settings.length)
        config = BertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=settings.layers,
            hidden_size=settings.width,
            num_attention_heads=settings.heads,
            intermediate_size=4 * settings.width,
            max_position_embeddings=settings.length,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.dropout,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=1,
        )
        model: PreTrainedModel = BertForSequenceClassification(config)
    else:
        where = f"encoder {settings.start}"
        source = neural.model_folder(settings.start, settings.revision, where, "scorer.<task>.start")
        with neural.loading(where):
            model = AutoModelForSequenceClassification.from_pretrained(
                source, local_files_only=True, ignore_mismatched_sizes=True, num_labels=1
            )
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.model_max_length = min(neural.longest(model, tokenizer, where), settings.length)
    return model.float(), tokenizer


def byte_pairs(texts: Sequence[str], vocabulary: int, length: int) -> PreTrainedTokenizerBase:
    """A lower-casing byte-level BPE of at most ``vocabulary`` pieces, learned from the texts: equal texts, equal pieces
    (tokenizers' WordPiece breaks ties by the order of a hash table). Like BERT's: [CLS], text, [SEP]."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer(add_prefix_space=True, lowercase=True, unicode_normalizer="nfkc")
    trained.train_from_iterator(texts, vocabulary, show_progress=False, special_tokens=[*SPECIAL.values()])
    pieces = Tokenizer.from_str(trained.to_str())
    ends = [(name, pieces.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=length, **SPECIAL)


def train(settings: Settings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: learning.Rows) -> None:
    """Finetune in place. Raises InputError at the first step whose loss is not finite."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import get_linear_schedule_with_warmup

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids = tokenizer(rows.texts, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    steps = settings.epochs * math.ceil(len(ids) / settings.batch_size)
    groups = [
        {"params": [weight for weight in model.parameters() if weight.ndim >= 2]},
        {"params": [weight for weight in model.parameters() if weight.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, int(settings.warmup * steps), steps)
    model.to(device).train()
    with Progress("finetuning the encoder", steps, "steps") as progress:
        for numbers in batches([len(text) for text in ids], settings):
            batch = tokenizer.pad({"input_ids": [ids[n] for n in numbers]}, pad_to_multiple_of=8, return_tensors="pt")
            labels = torch.tensor(rows.labels[numbers], dtype=torch.float32, device=device)
            weights = torch.tensor(rows.weights[numbers], dtype=torch.float32, device=device)
            loss = binary_cross_entropy_with_logits(model(**batch.to(device)).logits[:, 0], labels, weights)
            if not math.isfinite(loss.item()):
                raise InputError(
                    f"the loss is {loss.item()} at step {progress.done}: lower scorer.<task>.learning_rate"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(note=f"loss {loss.item():.3f}")
    model.cpu().eval()


def batches(sizes: Sequence[int], settings: Settings) -> Iterator[list[int]]:
    """Rows of each step: every row once an epoch, in an order from the seed, with rows of like size together."""
    generator = random.Random(settings.seed)
    size = settings.batch_size
    for _ in range(settings.epochs):
        order = generator.sample(range(len(sizes)), len(sizes))
        pools = (order[begin : begin + POOL_BATCHES * size] for begin in range(0, len(order), POOL_BATCHES * size))
        sorted_pools = [sorted(pool, key=lambda row: sizes[row]) for pool in pools]
        steps = [pool[begin : begin + size] for pool in sorted_pools for begin in range(0, len(pool), size)]
        generator.shuffle(steps)
        yield from steps


SCORER = Encoder
