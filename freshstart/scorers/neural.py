"""What the neural scorers share: a text-classification network, run so that a score depends on its text alone.

**Windows.** A text of more tokens than the network reads is never cut: it is read in windows of the network's limit
that overlap by a quarter, and scores as its worst window.

**Fixed shapes.** A matrix product of another shape may round differently, so a text's score would depend on what shares
its batch. Here the number of a window's tokens alone says to which length it is padded (``lengths``), each length has
one number of rows, and a batch that is not full is filled with the empty text. Every row ends in at least one padding
token: transformers takes another path through attention where a whole batch has none. A score therefore depends
neither on neighbours, order, workers nor on what a cache already knew. On a CPU one thread scores, whatever the process
has. Equal texts of a call are scored once.

Padding to a multiple of 8 and small batches cost little: on a CPU 128 tokens a batch run as many tokens a second as
2,048 do, and attention by ``sdpa`` as many as ``eager`` (BERT-base, fp32, one thread). Bits are the same on one type
of processor; a GPU, whose batches are larger, rounds differently from a CPU.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freshstart import files
from freshstart.errors import InputError
from freshstart.scorers import RECORD, Scored, Scorer, checked, failure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["fp32", "bf16"]
TOKENS = {"cpu": 256, "cuda": 16_384}  # of a batch, padding included
UNKNOWN_LENGTH = 1_000_000  # transformers writes 1e30 where a tokenizer does not know its limit
TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLED_FILES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")


@dataclass(frozen=True)
class Network:
    """A network ready to score, its tokenizer, and how many tokens a row may have, special and padding ones too."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    limit: int

    @property
    def device(self) -> torch.device:
        return self.model.device


class NeuralScorer(Scorer):
    """Base of the scorers that are networks: ``network``, and what its outputs for one window mean.

    A text that can not be read, or whose score is not finite, makes its document an error.
    """

    over = 0.5
    display = "fold"
    on_gpu = True
    sources = ("freshstart.scorers.neural",)
    network: Network

    def badness(self, logits: Sequence[float]) -> float:
        """The score of one window from the network's outputs for it, from 0 to 1."""
        raise NotImplementedError

    def score(self, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
        cut = [[text[a:b] for a, b in zip([0, *ends], ends, strict=False)] for text, ends in documents]
        found = self._scores(segment for segments in cut for segment in segments)
        results = []
        for segments in cut:
            problem = next((found[one] for one in segments if isinstance(found[one], Exception)), None)
            if problem is None:
                results.append(Scored(tuple(found[one] for one in segments)))
            else:
                results.append(Scored((), error=failure(problem)))
        return results

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        found = self._scores(texts)
        for value in found.values():
            if isinstance(value, Exception):
                raise value
        return [found[text] for text in texts]

    def _scores(self, texts: Iterable[str]) -> dict[str, Any]:
        """The score of each different text, or the exception that it caused."""
        unique = list(dict.fromkeys(texts))
        found: dict[str, Any] = {}
        for text, windows in zip(unique, outputs(self.network, unique), strict=True):
            try:
                found[text] = windows if isinstance(windows, Exception) else self._worst(windows)
            except ValueError as error:
                found[text] = error
        return found

    def _worst(self, windows: Sequence[Sequence[float]]) -> float:
        if not all(math.isfinite(value) for window in windows for value in window):
            raise ValueError("the network gave a number that is not finite")
        return max(checked([self.badness(window) for window in windows], len(windows)))


def outputs(network: Network, texts: Sequence[str]) -> list[list[list[float]] | Exception]:
    """The network's outputs (logits) for each text: one row a window, as many numbers as it has labels.

    A text that the tokenizer refuses has its exception instead.
    """
    import torch

    found = read(network, texts)
    windows = [(text, window) for text, ids in enumerate(found) if not isinstance(ids, Exception) for window in ids]
    shapes: dict[int, list[int]] = {}
    steps = lengths(network.limit)
    for number, (_, ids) in enumerate(windows):
        shapes.setdefault(next(step for step in steps if len(ids) < step), []).append(number)
    rows: list[list[float]] = [[]] * len(windows)
    empty = network.tokenizer("")["input_ids"] or [network.tokenizer.pad_token_id]
    with steady(network.device), torch.inference_mode():
        for length in sorted(shapes):
            numbers = shapes[length]
            size = max(TOKENS[network.device.type] // length, 1)
            for begin in range(0, len(numbers), size):
                part = numbers[begin : begin + size]
                filled = [windows[number][1] for number in part] + [empty] * (size - len(part))
                logits = network.model(**_batch(network, filled, length)).logits
                for number, row in zip(part, logits[: len(part)].float().tolist(), strict=True):
                    rows[number] = row
    given: list[list[list[float]] | Exception] = [one if isinstance(one, Exception) else [] for one in found]
    for (text, _), row in zip(windows, rows, strict=True):
        given[text].append(row)
    return given


def read(network: Network, texts: Sequence[str]) -> list[list[list[int]] | Exception]:
    """The token ids of each text, special tokens included, in windows of at most ``limit - 1``."""
    try:
        return _tokenized(network, texts)
    except Exception as error:
        if len(texts) == 1:
            return [error]
    return [one for text in texts for one in read(network, [text])]


def _tokenized(network: Network, texts: Sequence[str]) -> list[list[list[int]]]:
    if not texts:
        return []
    most = network.limit - 1
    given = network.tokenizer(
        list(texts),
        truncation=True,
        max_length=most,
        stride=most // 4,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    windows: list[list[list[int]]] = [[] for _ in texts]
    for ids, text in zip(given["input_ids"], given["overflow_to_sample_mapping"], strict=True):
        windows[text].append(ids)
    return windows


def lengths(limit: int) -> list[int]:
    """To which lengths rows are padded: in steps of 8 to 128, of 16 to 256, of 32 to 512 and so on up to the limit."""
    found, length = [], 8
    while length < limit:
        found.append(length)
        length += max(8, 2 ** (length.bit_length() - 4))
    return [*found, limit]


def _batch(network: Network, rows: Sequence[Sequence[int]], length: int) -> dict[str, torch.Tensor]:
    import torch

    tokenizer = network.tokenizer
    ids = torch.full((len(rows), length), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in tokenizer.model_input_names:
        batch["token_type_ids"] = torch.zeros_like(ids)
    return {name: tensor.to(network.device) for name, tensor in batch.items()}


@contextmanager
def steady(device: torch.device) -> Iterator[None]:
    """One thread on a CPU, and matrix products at their full precision, for as long as it lasts."""
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: Precision, where: str) -> Network:
    """The network on the GPU where there is one, else on the CPU, with its weights in ``precision``."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "bf16" and device.type == "cpu":
        raise InputError(f"{where}: precision: bf16 needs a GPU, and there is none here: write precision: fp32")
    if not tokenizer.is_fast:
        raise InputError(f"{where}: its tokenizer {type(tokenizer).__name__} has no tokenizer.json, so no windows")
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{where}: its tokenizer has no padding token: set one in tokenizer_config.json and config.json"
        )
    if any(tokenizer("a").get("token_type_ids", ())):
        raise InputError(f"{where}: networks whose tokens of one text have several types are not supported")
    refuse_not_finite(model.state_dict(), where)
    model.to(device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32).eval()
    for weight in model.parameters():  # in memory mapped from a file it lies anywhere, and products round by alignment
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    return Network(model, tokenizer, longest(model, tokenizer, where))


def longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """How many tokens the network reads: the smaller of its tokenizer's limit and the positions that it has."""
    from torch import nn

    known = [tokenizer.model_max_length] if tokenizer.model_max_length < UNKNOWN_LENGTH else []
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    if tables:  # RoBERTa's positions begin behind the one of its padding token
        first = 0 if tables[0].padding_idx is None else tables[0].padding_idx + 1
        known.append(tables[0].num_embeddings - first)
    elif getattr(model.config, "max_position_embeddings", None):
        known.append(model.config.max_position_embeddings)
    if not known:
        raise InputError(
            f"{where}: neither tokenizer nor config says how many tokens it reads: set model_max_length in "
            "tokenizer_config.json"
        )
    return int(min(known))


def refuse_not_finite(tensors: dict[str, torch.Tensor], where: str) -> None:
    """Raise InputError where a weight is NaN or infinite."""
    import torch

    broken = [name for name, one in tensors.items() if one.is_floating_point() and not torch.isfinite(one).all()]
    if broken:
        raise InputError(f"{where}: weights that are not finite in {_some(broken)}: its scores would mean nothing")


def refuse_keys(missing: Iterable[str], unexpected: Iterable[str], where: str, hint: str = "") -> None:
    """Raise InputError where a checkpoint lacks weights, which would be random ones, or has weights that no part of
    the network takes."""
    for what, names in (("lacks", sorted(missing)), ("holds what its network does not have:", sorted(unexpected))):
        if names:
            raise InputError(f"{where} {what} {_some(names)}: it is no whole classifier of this architecture{hint}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_hub_format(folder: Path, precision: Precision, where: str) -> Network:
    """The network of a folder in the hub's format; refuses one whose weights do not fill it, or do not fit."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet():
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, output_loading_info=True, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # of many kinds: a missing file, an unknown architecture, another shape
            raise InputError(f"{where} can not be loaded: {failure(error)}") from error
    refuse_keys(report["missing_keys"], report["unexpected_keys"], where)
    return ready(model, tokenizer, precision, where)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers: what they say is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def copy(source: Path, folder: Path, patterns: Sequence[str]) -> list[str]:
    """Copy the files that match into the scorer's folder, on which scoring depends alone; gives their names."""
    names = sorted({path.name for pattern in patterns for path in source.glob(pattern) if path.is_file()})
    for name in names:
        with files.written(folder / name) as temporary:
            shutil.copyfile(source / name, temporary)
    return names


def fetch(name: str, revision: str | None, patterns: Sequence[str], where: str, setting: str) -> Path:
    """The folder of a hub model's files, from the hub or from its cache. ``setting`` takes a local folder instead."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # no network, offline mode, no such repository or revision
        address = f"https://huggingface.co/{name}/tree/{revision or 'main'}"
        raise InputError(
            f"{where}: {name} can not be had from the Hugging Face hub ({failure(error)}). Download "
            f"{', '.join(patterns[:3])} and its other files from {address} into a folder and name it in {setting}, "
            "or use kind: classifier, which learns offline from labelled text"
        ) from error


def facts(folder: Path) -> dict[str, Any]:
    """What ``prepare`` put into the scorer's record; refuses a folder whose files are not those that it names."""
    if not (folder / RECORD).is_file():
        return {}
    record = files.read_json(folder / RECORD, "scorer")
    for name, digest in record.get("files", {}).items():
        if not (folder / name).is_file() or files.sha256(folder / name) != digest:
            raise InputError(
                f"{os.path.join(folder, name)} is not the file that {RECORD} names: run `dvc checkout`, or "
                "`dvc repro -f` the scorer's stage"
            )
    return record.get("model", {})
