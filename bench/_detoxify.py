"""The toxicity scorer against the original's way: Detoxify's own predict, sentences in batches of 512 as they come.

    python -m bench._detoxify

The network has the shape of BERT-base and random weights, its head ten times wider than usual so that scores spread.
Sentences are those of Usenet posts, else of the prose of the installed packages, whole documents at a time; the
tokenizer is learned on the same documents. Both ways use this process and one thread; the original pads a batch to its
longest sentence, ours to the next length of a few. Sentences above the network's limit are left out: the original cuts
them.
"""

from __future__ import annotations

import itertools
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench._pii import prose
from freshstart import scorers
from freshstart.scorers import encoder, neural
from freshstart.scoring.segments import sentences

DATA = Path(os.environ.get("FRESHSTART_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"), "text")
POSTS = "20news-bydate-train.tar.gz"
EVERY = 37  # of the posts, which stand in the order of their groups
TEXTS, BATCH = 320, 512
VOCABULARY = 8192
CLASSES = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def measure(count: int = TEXTS) -> list[dict[str, Any]]:
    """One row a way: CPU seconds on one core, how many times ours that is, and the largest difference of a score.

    The original's way runs once, ours twice, of which the faster counts.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            texts = segments(count, prepared(folder))
            ours, theirs = our_scorer(folder), original(folder)
            spent = {"ours": [], "the original's: Detoxify in batches of 512": []}
            mine: list[float] = []
            for _ in range(2):
                begun = time.process_time()
                mine = ours.score_texts(texts)
                spent["ours"].append(time.process_time() - begun)
            begun = time.process_time()
            original_scores = [score for part in batches(texts) for score in theirs(part)]
            spent["the original's: Detoxify in batches of 512"].append(time.process_time() - begun)
            tokens = [len(ids[0]) for ids in neural.read(ours.network, texts)]
    finally:
        torch.set_num_threads(before)
    difference = max(abs(a - b) for a, b in zip(mine, original_scores, strict=True))
    padded = sum(max(part) * len(part) for part in batches(tokens))
    return [
        {
            "scorer": "detoxify, BERT-base shape, fp32",
            "way": way,
            "texts": len(texts),
            "tokens": sum(tokens),
            "tokens_with_padding": padded if way != "ours" else rows_run(tokens, ours.network),
            "cpu_seconds": round(min(seconds), 2),
            "ratio": round(min(seconds) / min(spent["ours"]), 2),
            "largest_difference": difference,
            "spread_of_scores": round(max(mine) - min(mine), 3),
        }
        for way, seconds in spent.items()
    ]


def batches(items: list[Any]) -> list[list[Any]]:
    return [items[begin : begin + BATCH] for begin in range(0, len(items), BATCH)]


def rows_run(tokens: list[int], network: neural.Network) -> int:
    """Tokens that our way computes, padding and empty rows included."""
    steps = neural.lengths(network.limit)
    counts: dict[int, int] = {}
    for count in tokens:
        length = next(step for step in steps if count < step)
        counts[length] = counts.get(length, 0) + 1
    size = {length: max(neural.TOKENS["cpu"] // length, 1) for length in counts}
    return sum(-(-count // size[length]) * size[length] * length for length, count in counts.items())


def prepared(folder: Path) -> Any:
    """A checkpoint in Detoxify's format and its encoder's files; gives the tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = encoder.byte_pairs(list(itertools.islice(documents(), 300)), VOCABULARY, 512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(num_labels=len(CLASSES)))
        with torch.no_grad():
            model.classifier.weight *= 10
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    described = {
        "num_classes": len(CLASSES),
        "model_type": str(folder),
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "PreTrainedTokenizerFast",
    }
    config = {"arch": {"args": described}, "dataset": {"args": {"classes": list(CLASSES)}}}
    torch.save({"state_dict": model.state_dict(), "config": config}, folder / "base.ckpt")
    return tokenizer


def our_scorer(folder: Path) -> Any:
    raw = {
        "kind": "detoxify",
        "segments": "sentences",
        "detoxify": version("detoxify"),
        "transformers": version("transformers"),
        "checkpoint": str(folder / "base.ckpt"),
        "encoder": str(folder),
    }
    scorers.make(scorers.settings(raw, "bench"), folder / "scorer")
    return scorers.load(folder / "scorer", "bench")[0]


def original(folder: Path) -> Any:
    """Toxicity of a batch, as the original asks for it."""
    from detoxify import Detoxify

    model = Detoxify(checkpoint=folder / "base.ckpt")
    return lambda texts: model.predict(texts)["toxicity"]


def segments(count: int, tokenizer: Any) -> list[str]:
    """The first sentences of the documents that the network reads whole."""
    texts: list[str] = []
    for document in documents():
        cut = [document[a:b] for a, b in itertools.pairwise([0, *sentences(document)])]
        texts += [text for text in cut if len(tokenizer(text)["input_ids"]) < tokenizer.model_max_length]
        if len(texts) >= count:
            break
    return texts[:count]


def documents() -> Iterator[str]:
    if not (DATA / POSTS).is_file():
        yield from prose()
        return
    with tarfile.open(DATA / POSTS) as archive:
        posts = (archive.extractfile(member) for member in archive if member.isfile())
        for post in itertools.islice(posts, 0, None, EVERY):
            if post is not None:
                yield post.read().decode("latin-1")


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
