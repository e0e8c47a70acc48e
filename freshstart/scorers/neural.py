"""What the neural scorers share: a text-classification network, run so that a score depends on its text alone.

**Windows.** A text of more tokens than the network reads is never cut: it is read in windows of the network's limit
that overlap by a quarter, and scores as its worst window.

**Fixed shapes.** A matrix product of another shape may round differently, so a text's score would depend on what shares
its batch. Here the number of a window's tokens alone says to which length it is padded (``lengths``), each length has
one number of rows, and a batch that is not full is filled with the empty text. Every row ends in at least one padding
token: transformers takes another path through attention where a whole batch has none. One thread scores,
whatever the process has. A score therefore depends on its text alone; bits are the same on one type of processor, and
a GPU, whose batches are larger, rounds differently. It costs little: on a CPU batches of 128 tokens run as fast as
those of 2,048 (BERT-base, fp32, one thread).
"""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freshstart import files
from freshstart.errors import InputError
from freshstart.scorers import Scored, Scorer, checked, failure, pieces

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["fp32", "bf16"]
TOKENS = {"cpu": 256, "cuda": 16_384}  # of a batch, padding included
UNKNOWN_LENGTH = 1_000_000  # transformers writes 1e30 where a tokenizer does not know its limit
TEXT_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model"),
)
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLED_FILES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")  # where there are no others


@dataclass(frozen=True)
class Network:
    """A network ready to score, its tokenizer, and how many tokens a row may have, special and padding ones too."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    limit: int

    @property
    def labels(self) -> list[str]:
        """The names of its outputs, in order."""
        return [name for _, name in sorted(self.model.config.id2label.items())]


class NeuralScorer(Scorer):
    """The network in a folder of the hub's format; scores the probability (sigmoid) of the output named ``label``. A
    text that can not be read, or whose score is not finite, makes its document an error."""

    over = 0.5
    display = "fold"
    on_gpu = True
    sources = ("freshstart.scorers.neural",)

    def __init__(self, folder: Path, label: str, precision: Precision, where: str):
        self.network = load(folder, precision, where)
        self.output = numbered(self.network.labels, label, where)

    def badness(self, logits: Sequence[float]) -> float:
        """The score of one window from the network's outputs for it, from 0 to 1."""
        from scipy.special import expit

        return float(expit(logits[self.output]))

    def score(self, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
        values = iter(self._values([segment for text, ends in documents for segment in pieces(text, ends)]))
        results = []
        for scores in ([next(values) for _ in ends] for _, ends in documents):
            problem = next((score for score in scores if isinstance(score, Exception)), None)
            results.append(Scored((), error=failure(problem)) if problem else Scored(tuple(scores)))
        return results

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        values = self._values(texts)
        for problem in (value for value in values if isinstance(value, Exception)):
            raise problem
        return values

    def _values(self, texts: Sequence[str]) -> list[Any]:
        """The score of each text, or the exception that it caused."""
        unique = list(dict.fromkeys(texts))
        values = dict(zip(unique, map(self._value, outputs(self.network, unique)), strict=True))
        return [values[text] for text in texts]

    def _value(self, windows: Sequence[Sequence[float]] | Exception) -> float | Exception:
        if isinstance(windows, Exception):
            return windows
        if not all(math.isfinite(value) for window in windows for value in window):
            return ValueError("the network gave a number that is not finite")
        try:
            return max(checked([self.badness(window) for window in windows], len(windows)))
        except ValueError as error:
            return error


def outputs(network: Network, texts: Sequence[str]) -> list[list[list[float]] | Exception]:
    """The network's outputs (logits) for each text, one row a window; or the tokenizer's exception."""
    import torch

    texts_read = read(network, texts)
    results: list[Any] = [ids if isinstance(ids, Exception) else [[]] * len(ids) for ids in texts_read]
    by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)  # text and window
    steps = lengths(network.limit)
    for text, windows in enumerate(texts_read):
        for number, ids in enumerate(windows if isinstance(windows, list) else ()):
            by_length[next(step for step in steps if len(ids) < step)].append((text, number))
    empty = network.tokenizer("")["input_ids"] or [network.tokenizer.pad_token_id]
    with steady(1), torch.inference_mode():
        for length, places in sorted(by_length.items()):
            size = max(TOKENS[network.model.device.type] // length, 1)
            for part in (places[begin : begin + size] for begin in range(0, len(places), size)):
                rows = [texts_read[text][number] for text, number in part] + [empty] * (size - len(part))
                logits = network.model(**_batch(network, rows, length)).logits.float().tolist()
                for (text, number), row in zip(part, logits, strict=False):
                    results[text][number] = row
    return results


def read(network: Network, texts: Sequence[str]) -> list[list[list[int]] | Exception]:
    """The token ids of each text, special tokens included, in windows of at most ``limit - 1``."""
    most = network.limit - 1
    options = {"max_length": most, "stride": most // 4, "truncation": True, "return_overflowing_tokens": True}
    try:
        encoded = network.tokenizer(list(texts), **options) if texts else {}
    except Exception as error:  # of odd text: found out one by one
        return [error] if len(texts) == 1 else [read(network, [text])[0] for text in texts]
    windows: list[Any] = [[] for _ in texts]
    for ids, text in zip(encoded.get("input_ids", ()), encoded.get("overflow_to_sample_mapping", ()), strict=True):
        windows[text].append(ids)
    return windows


def lengths(limit: int) -> list[int]:
    """To which lengths rows are padded: in steps of 8 to 128, of 16 to 256, of 32 to 512 and so on up to the limit."""
    steps, length = [], 8
    while length < limit:
        steps.append(length)
        length += max(8, 2 ** (length.bit_length() - 4))
    return [*steps, limit]


def _batch(network: Network, rows: Sequence[Sequence[int]], length: int) -> dict[str, torch.Tensor]:
    import torch

    ids = torch.full((len(rows), length), network.tokenizer.pad_token_id)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    mask = (torch.arange(length) < torch.tensor([[len(row)] for row in rows])).long()
    return {"input_ids": ids.to(network.model.device), "attention_mask": mask.to(network.model.device)}


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """So many threads, and matrix products at their full precision, for as long as it lasts."""
    import torch

    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def load(folder: Path, precision: Precision, where: str) -> Network:
    """The network of a folder in the hub's format, on the GPU where there is one. Raises InputError where its weights
    do not fill or fit it or are not finite, or where it can not be run as said at the top of this module."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = whole(AutoModelForSequenceClassification, folder, where)
    with loading(where):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    problem = None
    if precision == "bf16" and device.type == "cpu":
        problem = "precision: bf16 needs a GPU, and there is none here: write precision: fp32"
    elif not tokenizer.is_fast:
        problem = f"its tokenizer {type(tokenizer).__name__} has no tokenizer.json, so no windows"
    elif tokenizer.pad_token_id is None:
        problem = "its tokenizer has no padding token: set one in tokenizer_config.json and config.json"
    elif any(tokenizer("a").get("token_type_ids", ())):
        problem = "networks whose tokens of one text have several types are not supported"
    elif broken:
        problem = f"weights that are not finite in {_some(broken)}: its scores would mean nothing"
    if problem is not None:
        raise InputError(f"{where}: {problem}")
    model.to(device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32).eval()
    for weight in model.parameters():  # in memory mapped from a file it lies anywhere, and products round by alignment
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    return Network(model, tokenizer, longest(model, tokenizer, where))


def whole(kind: Any, source: Path | None, where: str, hint: str = "", **options: Any) -> PreTrainedModel:
    """``kind.from_pretrained``; raises InputError where weights are missing, which would be random, or left over."""
    with loading(where):
        model, report = kind.from_pretrained(
            source, output_loading_info=True, local_files_only=True, dtype="float32", **options
        )
    for what, keys in (("lacks", "missing_keys"), ("holds what its network does not have:", "unexpected_keys")):
        if report[keys]:
            names = _some(sorted(report[keys]))
            raise InputError(f"{where} {what} {names}: it is no whole classifier of this architecture{hint}")
    return model


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """How many tokens the network reads: the smaller of its tokenizer's limit and the positions that it has."""
    from torch import nn

    known = [tokenizer.model_max_length] if tokenizer.model_max_length < UNKNOWN_LENGTH else []
    modules = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    tables = [module for module in modules if isinstance(module, nn.Embedding)]
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


def numbered(names: Sequence[str], label: str, where: str) -> int:
    """The number of the output that a label names, or is."""
    if label not in names and label.isdigit() and int(label) < len(names):
        return int(label)
    if names.count(label) != 1:
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        raise InputError(f"{where} has no label {label!r}; it has {listed}")
    return names.index(label)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], folder: Path) -> None:
    """Write the hub's format, in which each output is named, and a sigmoid for whoever loads it elsewhere."""
    model.config.id2label, model.config.label2id = dict(enumerate(labels)), {name: n for n, name in enumerate(labels)}
    model.config.problem_type = "multi_label_classification"
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Load with transformers, whose errors are of many kinds: a missing file, an unknown architecture or class, weights
    of another shape. Each becomes an InputError."""
    try:
        with quiet():
            yield
    except Exception as error:
        raise InputError(f"{what} could not be loaded: {failure(error)}") from error


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


def model_folder(name: str, revision: str | None, where: str, setting: str, with_weights: bool = True) -> Path:
    """The folder of a model in the hub's format: one here, or that of a hub model, from the hub or from its cache;
    weights are those of a commit. ``setting`` is the parameter that takes a folder."""
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return Path(name)
    if revision is None and with_weights:
        raise InputError(f"{where} is no folder here: give one, or a hub id and in revision the full hash of a commit")
    try:
        with quiet():
            wanted = [*TEXT_FILES, *(WEIGHT_FILES if with_weights else ())]
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
            if with_weights and not any(folder.glob(WEIGHT_FILES[0])):
                snapshot_download(name, revision=revision, allow_patterns=list(PICKLED_FILES))
            return folder
    except Exception as error:  # no network, offline mode, no such repository or revision
        address = f"https://huggingface.co/{name}/tree/{revision or 'main'}"
        raise InputError(
            f"{where}: {name} could not be fetched from the Hugging Face hub ({failure(error)}). Download "
            f"{', '.join(TEXT_FILES[:3])} and its other files from {address} into a folder and set {setting} to it, "
            "or use kind: classifier, which learns offline from labelled text"
        ) from error


def copy(source: Path, folder: Path) -> None:
    """Copy a model into the scorer's folder, on which scoring depends alone."""
    weights = WEIGHT_FILES if any(source.glob(WEIGHT_FILES[0])) else PICKLED_FILES
    for pattern in (*TEXT_FILES, *weights):
        for path in source.glob(pattern):
            with files.written(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
