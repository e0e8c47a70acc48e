"""The probability that a text is bad, from a transformer encoder finetuned in the scorer stage from labelled text.

``start`` is a folder or hub id of any encoder with a classification head in transformers, or ``scratch``: a small BERT
from random weights, with a lower-casing byte-level BPE of its own, learned on the same rows. One output with a
sigmoid, binary cross-entropy, AdamW (Loshchilov and Hutter 2019) without decay on biases and norms, a linear warm-up
and a linear decay, gradients clipped to norm 1. Batches hold rows of like length. Training reads the first ``length``
tokens of a text; scoring reads longer ones in windows (``freshstart.scorers.neural``). The same rows, settings, thread
count and type of processor give the same weights.

The scorer's folder is in the hub's format (``AutoModelForSequenceClassification`` and ``kind: hf_classifier`` load it)
and holds ``detoxify.ckpt`` beside it, for the Detoxify package and ``kind: detoxify`` (checkpoint: that file, encoder:
that folder). Nothing here is read from a pickle.
Cost: ``scratch`` at its defaults learns 20,800 tweets and comments in 100 seconds on one core and scores 50,000 tokens
a second; a BERT-base needs a GPU to learn.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.progress import Progress
from freshstart.scorers import ScorerSettings, failure, learning, neural, pinned
from freshstart.scorers.hf_classifier import sigmoid

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCRATCH = "scratch"
LABEL = "toxicity"  # how the output is called in config.json and in detoxify.ckpt
DETOXIFY = "detoxify.ckpt"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POOL_BATCHES = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``labelled`` to ``share_heldout`` as for ``kind: classifier``; a hub id in ``start`` needs ``revision``.

    ``layers``, ``width``, ``heads``, ``dropout`` and ``vocabulary`` shape a network from scratch; ``length`` is the
    most tokens that a window has; ``warmup`` a share of the steps; ``precision`` that of scoring.
    """

    transformers: str
    labelled: str
    text: str = "text"
    label: str = "label"
    bad: tuple[str, ...] = ("1",)
    rows: int = 8_000
    noise: float = 0.0
    seed: int = 0
    share_heldout: float = 0.2
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
        if not 0 < self.share_heldout < 1 or not 0 <= self.noise < 0.5:
            raise ValueError("share_heldout must be between 0 and 1, and noise from 0 to below 0.5")
        if self.rows < learning.LEAST_ROWS:
            raise ValueError(f"rows must be at least {learning.LEAST_ROWS}, found {self.rows}")
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, found {self.width} and {self.heads}")
        for name, least in (("layers", 1), ("vocabulary", 300), ("length", 16), ("epochs", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.batch_size < 1 or self.learning_rate <= 0 or not 0 <= self.warmup < 1 or not 0 <= self.dropout < 1:
            raise ValueError("batch_size and learning_rate must be above 0, warmup and dropout from 0 to below 1")


class Encoder(neural.NeuralScorer):
    version = "1"
    sources = ("freshstart.scorers.neural", "freshstart.scorers.hf_classifier")

    def __init__(self, folder: Path, settings: Settings):
        pinned(transformers=settings.transformers)
        neural.facts(folder)
        self.network = neural.load_hub_format(folder, settings.precision, f"encoder {folder}")

    def badness(self, logits: Sequence[float]) -> float:
        return sigmoid(logits[0])


def learn(settings: Settings, labelled: Iterable[tuple[str, int]], folder: Path) -> dict[str, Any]:
    """Learn from (text, 1 where bad), write the encoder to ``folder`` and give its held-out metrics."""
    pinned(transformers=settings.transformers)
    rows = learning.divide(labelled, settings)
    texts, labels = rows.learned
    with seeded(settings.seed, settings.threads):
        model, tokenizer = begin(settings, texts)
        train(settings, model, tokenizer, texts, labels.tolist())
    save(model, tokenizer, folder)
    return learning.metrics(rows, Encoder(folder, settings).score_texts(rows.measured[0]))


@contextmanager
def seeded(seed: int, threads: int) -> Iterator[None]:
    """torch's random numbers from ``seed`` and its threads, for as long as it lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def begin(settings: Settings, texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The network and its tokenizer before the first step: from random weights, or pretrained with a new head."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
    )

    head = {"num_labels": 1, "id2label": {0: LABEL}, "label2id": {LABEL: 0}}
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
            **head,
        )
        model: PreTrainedModel = BertForSequenceClassification(config)
    else:
        where = f"encoder {settings.start}"
        source = Path(settings.start)
        if not source.is_dir():
            if settings.revision is None:
                raise InputError(f"{where} is no folder here: for a hub id write in revision the full hash of a commit")
            wanted = (*neural.TEXT_FILES, *neural.WEIGHT_FILES)
            source = neural.fetch(settings.start, settings.revision, wanted, where, "scorer.<task>.start")
        try:
            with neural.quiet():
                model = AutoModelForSequenceClassification.from_pretrained(
                    source, local_files_only=True, ignore_mismatched_sizes=True, **head
                )
                tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:  # of many kinds: a missing file, an unknown architecture
            raise InputError(f"{where} can not be loaded: {failure(error)}") from error
        tokenizer.model_max_length = min(neural.longest(model, tokenizer, where), settings.length)
    model.config.problem_type = "multi_label_classification"  # a sigmoid for whoever loads it elsewhere
    return model.float(), tokenizer


def byte_pairs(texts: Sequence[str], vocabulary: int, length: int) -> PreTrainedTokenizerBase:
    """A lower-casing byte-level BPE of at most ``vocabulary`` pieces, learned from the texts: equal texts, equal pieces
    (tokenizers' WordPiece breaks ties by the order of a hash table). Like BERT's: [CLS], text, [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned.train_from_iterator(texts, trainer)
    ends = [(name, learned.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    learned.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=learned,
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def train(
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[int],
) -> None:
    """Finetune in place. Raises InputError at the first step whose loss is not finite."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids = tokenizer(list(texts), truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    steps = settings.epochs * math.ceil(len(ids) / settings.batch_size)
    plain = [weight for weight in model.parameters() if weight.ndim < 2]
    decayed = [weight for weight in model.parameters() if weight.ndim >= 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, steps, settings.warmup))
    model.to(device).train()
    with Progress("finetuning the encoder", steps, "steps") as progress:
        for rows in batches([len(one) for one in ids], settings):
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, pad_to_multiple_of=8, return_tensors="pt")
            wanted = torch.tensor([float(labels[row]) for row in rows], device=device)
            loss = binary_cross_entropy_with_logits(model(**batch.to(device)).logits[:, 0], wanted)
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
    pool = POOL_BATCHES * settings.batch_size
    for _ in range(settings.epochs):
        order = generator.sample(range(len(sizes)), len(sizes))
        found = []
        for begin_at in range(0, len(order), pool):
            part = sorted(order[begin_at : begin_at + pool], key=lambda row: sizes[row])
            found += [part[at : at + settings.batch_size] for at in range(0, len(part), settings.batch_size)]
        generator.shuffle(found)
        yield from found


def share_of_rate(step: int, steps: int, warmup: float) -> float:
    """Linear from 0 to 1 over the warm-up, then linear to 0 at the last step."""
    warm = max(int(warmup * steps), 1)
    return (step + 1) / warm if step < warm else max(steps - step, 0) / max(steps - warm, 1)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the hub's format, and the same weights in Detoxify's checkpoint format."""
    import torch

    with neural.quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    described = {
        "num_classes": 1,
        "model_type": str(folder),
        "model_name": type(model).__name__,
        "tokenizer_name": "AutoTokenizer",
    }
    config = {"arch": {"args": described}, "dataset": {"args": {"classes": [LABEL]}}}
    kept = io.BytesIO()  # torch.save to a path writes the file's name into it
    torch.save(
        {"state_dict": {name: one.contiguous() for name, one in model.state_dict().items()}, "config": config}, kept
    )
    with files.written(folder / DETOXIFY) as temporary:
        temporary.write_bytes(kept.getvalue())


SCORER = Encoder
