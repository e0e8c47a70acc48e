"""The probability that a text is toxic, by Detoxify: the released weights, or a checkpoint in its format.

The network, its weights and the meaning of its outputs are Detoxify's own (``get_model_and_tokenizer``, one sigmoid a
class, classes renamed as it does). What it leaves open is closed here, when the scorer is described and again when it
is loaded: the file is held to its SHA-256 and read without running anything in it; weights that are missing, left over,
of another shape or not finite are refused, and so is a number of classes that is not the number of outputs. Detoxify
cuts a text at the encoder's limit, and not at all where the tokenizer names none; here longer texts are read in windows
and the worst counts. Windows and batches, in which a score depends on its text alone: ``freshstart.scorers.neural``.

Named weights are downloaded once, into ``.state/weights``; a download that broke off goes on where it stopped. Their
file names end in the first 8 digits of their SHA-256, which are checked (for ``original`` the whole is known); the
scorer's record holds the whole digest. A local checkpoint, and the encoder's config and tokenizer, are copied into the
scorer's folder, so that scoring needs no network.
Cost: about 500 tokens a second on one core for ``original`` (BERT-base, 440 MB of weights).
Source: Hanu and Unitary team 2020, https://github.com/unitaryai/detoxify; the paper's toxicity task (section 3).
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freshstart import files
from freshstart.errors import InputError
from freshstart.scorers import RECORD, ScorerSettings, failure, neural, pinned
from freshstart.scorers.hf_classifier import sigmoid

if TYPE_CHECKING:
    import torch

Variant = Literal["original", "unbiased", "multilingual", "original-small", "unbiased-small"]
CHECKPOINT = "checkpoint.ckpt"
ARCHITECTURE = ("model_name", "model_type", "num_classes", "tokenizer_name")
RENAMED = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}
BUFFERS = r"(^|\.)(position_ids|token_type_ids)$"  # saved by old versions of transformers; no weights
PREFIX = re.compile(r"-([0-9a-f]{8,})\.ckpt$")  # of the SHA-256, as torch.hub reads file names
PUBLISHED = {"original": "c1212f89ac23307ab33932ce29dc446a6e030fb3f384a500890bbe662b7b544a"}  # 438,021,897 bytes
CHUNK = 1 << 20
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``variant`` names released weights; ``checkpoint`` is a file in their format instead. ``encoder`` is a folder
    with config.json and the tokenizer of the checkpoint's encoder, in the place of the hub. ``sha256`` is what the
    weights must hash to; ``label`` the class to read."""

    detoxify: str
    transformers: str
    variant: Variant = "original"
    checkpoint: str | None = None
    encoder: str | None = None
    sha256: str | None = None
    label: str = "toxicity"
    precision: neural.Precision = "fp32"

    def __post_init__(self) -> None:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, found {self.sha256!r}")

    @property
    def trusted(self) -> bool:
        """Whether the checkpoint may be a program: released weights, or a file whose digest was written down."""
        return self.checkpoint is None or self.sha256 is not None


class Detoxify(neural.NeuralScorer):
    version = "1"
    sources = ("freshstart.scorers.neural", "freshstart.scorers.hf_classifier")

    def __init__(self, folder: Path, settings: Settings):
        pinned(detoxify=settings.detoxify, transformers=settings.transformers)
        known = neural.facts(folder).get("weights_sha256", settings.sha256)
        path = released(settings.variant, known) if settings.checkpoint is None else folder / CHECKPOINT
        where = f"checkpoint {settings.checkpoint or path}"
        self.weights_sha256 = held_to(path, known, where)
        loaded = unpacked(path, settings.trusted, where)
        self.network, self.classes = build(loaded, folder, settings.precision, where)
        if settings.label not in self.classes:
            raise InputError(f"{where} has no class {settings.label!r}; it has {', '.join(self.classes)}")
        self._label = self.classes.index(settings.label)

    def badness(self, logits: Sequence[float]) -> float:
        return sigmoid(logits[self._label])


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Get the weights and the encoder's files, check them whole, and give what belongs to the scorer's record."""
    pinned(detoxify=settings.detoxify, transformers=settings.transformers)
    path = _copied(settings, folder) if settings.checkpoint else released(settings.variant, settings.sha256)
    where = f"checkpoint {settings.checkpoint or path}"
    encoder = settings.encoder or architecture(unpacked(path, settings.trusted, where), where)["model_type"]
    source = Path(encoder)
    if settings.encoder is None and not source.is_dir():
        source = neural.fetch(encoder, None, neural.TEXT_FILES, where, "scorer.<task>.encoder")
    if not (source / "config.json").is_file():
        raise InputError(f"encoder {source} holds no config.json: name a folder with an encoder's config and tokenizer")
    neural.copy(source, folder, neural.TEXT_FILES)
    scorer = Detoxify(folder, settings)
    return {"weights_sha256": scorer.weights_sha256, "limit": scorer.network.limit, "classes": scorer.classes}


def _copied(settings: Settings, folder: Path) -> Path:
    source = Path(settings.checkpoint or "")
    if not source.is_file():
        raise InputError(f"checkpoint {source} is missing: write where it is into scorer.<task>.checkpoint")
    held_to(source, settings.sha256, f"checkpoint {source}")
    with files.written(folder / CHECKPOINT) as temporary:
        shutil.copyfile(source, temporary)
    return folder / CHECKPOINT


def unpacked(path: Path, trusted: bool, where: str) -> dict[str, Any]:
    """The checkpoint's content. One that is more than tensors and plain values is a program: it is run only where
    its digest is known."""
    import torch

    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if not trusted:
                raise InputError(
                    f"{where} holds more than tensors and plain values, which loading would run: write its SHA-256 "
                    f"into scorer.<task>.sha256 if you trust it ({failure(error)})"
                ) from None
            loaded = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise InputError(f"{where} is not a whole checkpoint ({failure(error)}): get it anew") from error
    state = loaded.get("state_dict") if isinstance(loaded, dict) and "config" in loaded else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise InputError(f"{where} is not in Detoxify's format: expected a dictionary of config and state_dict")
    return loaded


def architecture(loaded: dict[str, Any], where: str) -> dict[str, Any]:
    """Detoxify's description of the network: model_name, model_type, num_classes, tokenizer_name."""
    try:
        described = dict(loaded["config"]["arch"]["args"])
    except (KeyError, TypeError):
        described = {}
    if set(described) != set(ARCHITECTURE):
        raise InputError(
            f"{where}: config.arch.args must hold {', '.join(ARCHITECTURE)}; it holds "
            f"{', '.join(map(str, described)) or 'nothing'}"
        )
    return described


def build(
    loaded: dict[str, Any], folder: Path, precision: neural.Precision, where: str
) -> tuple[neural.Network, list[str]]:
    """The network and the names of its outputs, made by Detoxify itself from the encoder's files in ``folder``."""
    from detoxify.detoxify import get_model_and_tokenizer

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json: run `dvc repro -f` the scorer's stage")
    described = architecture(loaded, where)
    state = loaded["state_dict"]
    classes = class_names(loaded, described["num_classes"], where)
    neural.refuse_not_finite(state, where)
    try:
        with neural.quiet():
            model, tokenizer = get_model_and_tokenizer(**{**described, "model_type": str(folder)}, state_dict=state)
    except Exception as error:  # of many kinds: an unknown architecture, weights of another shape, a missing tokenizer
        raise InputError(f"{where} can not be loaded with the encoder's files in {folder}: {failure(error)}") from error
    refuse_misfit(model, state, where)
    return neural.ready(model, tokenizer, precision, where), classes


def class_names(loaded: dict[str, Any], count: int, where: str) -> list[str]:
    """The names of the outputs, as Detoxify calls them. Weights of ``unbiased`` and ``multilingual`` have, behind the
    classes, an output for each of the identities that they learned beside them."""
    try:
        said = loaded["config"]["dataset"]["args"]
        names = [*said["classes"], *said.get("identity_classes", [])]
        names = names if len(names) == count else list(said["classes"])
    except (KeyError, TypeError, AttributeError):
        names = []
    if len(names) != count or len(set(names)) < count:
        raise InputError(
            f"{where}: expected names for its {count} outputs in config.dataset.args.classes, found "
            f"{', '.join(map(str, names)) or 'none'}"
        )
    return [RENAMED.get(name, name) for name in names]


def refuse_misfit(model: Any, state: dict[str, torch.Tensor], where: str) -> None:
    """Raise InputError unless the checkpoint's weights are the network's, name by name and value by value."""
    own = model.state_dict()
    unused = re.compile("|".join([BUFFERS, *(model._keys_to_ignore_on_load_unexpected or ())]))
    left = [name for name in state.keys() - own.keys() if not unused.search(name)]
    prefixed = any(name.startswith("model.") for name in left)
    hint = "; take the prefix 'model.' off its keys, as Detoxify's convert_weights.py does" if prefixed else ""
    neural.refuse_keys(own.keys() - state.keys(), left, where, hint)
    for name, tensor in own.items():
        if tensor.shape != state[name].shape or not tensor.equal(state[name].to(tensor.dtype)):
            raise InputError(f"{where}: {name} did not come into the network as it stands in the file")


def held_to(path: Path, wanted: str | None, where: str) -> str:
    """The file's SHA-256. Raises InputError where it is not ``wanted``: a whole one, or what it must begin with."""
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc checkout`, or `dvc repro -f` the scorer's stage")
    digest = files.sha256(path)
    if not digest.startswith(wanted or ""):
        raise InputError(
            f"{where} has SHA-256 {digest}, expected {wanted}: it is damaged or another file. Get it anew, or write "
            f"the digest that you trust into scorer.<task>.sha256 (one in {RECORD} is renewed by `dvc repro -f`)"
        )
    return digest


def published(variant: Variant, url: str) -> str:
    """What is known of the SHA-256 of released weights: all of it, or the digits in their name."""
    named = PREFIX.search(url)
    return PUBLISHED.get(variant, named.group(1) if named else "")


def released(variant: Variant, sha256: str | None) -> Path:
    """The file of released weights: from the state folder, from torch.hub's cache, or downloaded.

    Raises InputError where it can not be had, or hashes to something else.
    """
    import torch
    from detoxify.detoxify import MODEL_URLS

    url = MODEL_URLS[variant]
    wanted = sha256 or published(variant, url)
    target = files.state_folder("weights") / url.rsplit("/", 1)[1]
    for path in (target, Path(torch.hub.get_dir()) / "checkpoints" / target.name):
        if path.is_file():
            held_to(path, wanted, f"checkpoint {path}")
            return path
    try:
        download(url, target, wanted)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"the weights of Detoxify {variant} can not be had ({failure(error)}). Download {url} and put it at "
            f"{target}, or anywhere and name it in scorer.<task>.checkpoint; or use kind: classifier, which learns "
            "offline from labelled text"
        ) from error
    return target


def download(url: str, target: Path, wanted: str) -> None:
    """Download to ``target``, whole or not at all; what came before a break is kept beside it and gone on from.

    Raises OSError or HTTPException where the server can not be reached or stops, InputError where the SHA-256 does not
    begin with ``wanted``.
    """
    import fcntl
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from freshstart.progress import Progress

    part = target.with_name(f"{target.name}.part")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if target.is_file():  # another process was faster
            return
        begun = file.seek(0, os.SEEK_END)
        request = Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                if begun and answer.status != 206:  # the server sends the file from its beginning
                    file.truncate(0)
                    begun = 0
                length = answer.headers.get("Content-Length")
                total = begun + int(length) if length is not None else None
                with Progress(f"downloading {target.name}", total, "bytes") as progress:
                    progress.advance(begun)
                    while chunk := answer.read(CHUNK):
                        file.write(chunk)
                        progress.advance(len(chunk))
                if total is not None and progress.done < total:
                    raise ConnectionError(f"the server stopped after {progress.done} of {total} bytes; run it again")
        except HTTPError as error:
            if error.code != 416:  # 416: nothing is left to send
                raise
        file.flush()
        os.fsync(file.fileno())
        try:
            held_to(part, wanted, url)
        except InputError:
            part.unlink()
            raise
        os.replace(part, target)


SCORER = Detoxify
