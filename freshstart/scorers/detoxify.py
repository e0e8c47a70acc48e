"""The probability that a text is toxic, by Detoxify: the released weights, or a checkpoint in its format.

The network, its weights and the meaning of its outputs are Detoxify's: one sigmoid a class, classes renamed as it
does. Beyond that, the file is held to its SHA-256, and refused where it is a program of unknown origin or its weights
are missing, left over, of another shape, not finite, or not as many outputs as classes. Detoxify cuts a text at the
encoder's limit; here longer texts are read in windows and the worst counts (``freshstart.scorers.neural``).

The network goes into the scorer's folder in the hub's format: scoring needs no connection. Released weights are
downloaded once, into ``.state/weights``; a download that broke off goes on from its last 10 MB. Their file names end in
the first 8 digits of their SHA-256 (for ``original`` the whole is known).
Cost: about 500 tokens a second on one core for ``original`` (BERT-base, 440 MB of weights).
Source: Hanu and Unitary team 2020, https://github.com/unitaryai/detoxify; the paper's toxicity task (section 3).
"""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from freshstart import files
from freshstart.errors import InputError
from freshstart.scorers import ScorerSettings, failure, neural, pinned

Variant = Literal["original", "unbiased", "multilingual", "original-small", "unbiased-small"]
SHAPE = ("model_name", "model_type", "num_classes", "tokenizer_name")
RENAMED = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}
BUFFERS = ("position_ids", "token_type_ids")  # saved by old versions of transformers; no weights
PUBLISHED = {"original": "c1212f89ac23307ab33932ce29dc446a6e030fb3f384a500890bbe662b7b544a"}  # 438,021,897 bytes
NOTHING_LEFT = 416  # what a server answers to one who has the whole file


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


class Detoxify(neural.NeuralScorer):
    version = "1"

    def __init__(self, folder: Path, settings: Settings):
        pinned(detoxify=settings.detoxify, transformers=settings.transformers)
        where = f"checkpoint {settings.checkpoint or settings.variant}"
        super().__init__(folder, settings.label, settings.precision, where)


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Get the weights and the encoder's files, check them, and write the network to ``folder``."""
    pinned(detoxify=settings.detoxify, transformers=settings.transformers)
    path, wanted = (Path(settings.checkpoint), settings.sha256) if settings.checkpoint else released(settings)
    where = f"checkpoint {path}"
    if not path.is_file():
        raise InputError(f"{where} is missing: set scorer.<task>.checkpoint to its path")
    digest = held_to(path, wanted, where)
    # It may be a program where Detoxify released it, or where a person wrote its digest down
    loaded = unpacked(path, settings.checkpoint is None or settings.sha256 is not None, where)
    shape, classes = described(loaded, where)
    encoder = settings.encoder or shape["model_type"]
    source = neural.model_folder(encoder, None, where, "scorer.<task>.encoder", with_weights=False)
    if not (source / "config.json").is_file():
        raise InputError(f"encoder {source} holds no config.json: name a folder with an encoder's config and tokenizer")
    convert(loaded["state_dict"], shape, classes, source, folder, where)
    return {"weights_sha256": digest, "limit": Detoxify(folder, settings).network.limit, "classes": classes}


def unpacked(path: Path, trusted: bool, where: str) -> dict[str, Any]:
    """The checkpoint's content. One that is more than tensors and plain values is a program, run if it is trusted."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=not trusted)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        if isinstance(error, pickle.UnpicklingError) and not trusted:
            raise InputError(
                f"{where} holds more than tensors and plain values, which loading would run: set "
                f"scorer.<task>.sha256 to its SHA-256 if you trust it ({failure(error)})"
            ) from None
        raise InputError(f"{where} is not a whole checkpoint ({failure(error)}): get a fresh copy") from error
    state = _inside(loaded, "state_dict")
    if not _inside(loaded, "config") or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{where} is not in Detoxify's format: expected a dictionary of config and state_dict")
    return loaded


def described(loaded: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Detoxify's description of the network, and the names of its outputs.

    Weights of ``unbiased`` and ``multilingual`` have, behind the classes, an output for each of the identities that
    they learned beside them.
    """
    shape, data = _inside(loaded, "config", "arch", "args"), _inside(loaded, "config", "dataset", "args")
    if set(shape) != set(SHAPE):
        listed = ", ".join(map(str, shape)) or "nothing"
        raise InputError(f"{where}: config.arch.args must hold {', '.join(SHAPE)}; it holds {listed}")
    count, names = shape["num_classes"], list(data.get("classes", ()))
    if len(names) < count:
        names += data.get("identity_classes", ())
    if len(names) != count or len(set(names)) < count:
        listed = ", ".join(map(str, names)) or "none"
        raise InputError(
            f"{where}: expected names for its {count} outputs in config.dataset.args.classes, found {listed}"
        )
    return shape, [RENAMED.get(name, name) for name in names]


def _inside(value: Any, *keys: str) -> dict[str, Any]:
    """The dictionary below the keys, empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def convert(
    state: dict[str, Any], shape: dict[str, Any], classes: list[str], source: Path, folder: Path, where: str
) -> None:
    """Write the network that Detoxify makes of a checkpoint to ``folder``, with the tokenizer of its encoder."""
    import transformers

    weights = {name: tensor for name, tensor in state.items() if not name.endswith(BUFFERS)}
    prefixed = any(name.startswith("model.") for name in weights)
    hint = "; take the prefix 'model.' off its keys, as Detoxify's convert_weights.py does" if prefixed else ""
    with neural.loading(f"the encoder of {where} in {source}"):
        kind = getattr(transformers, shape["model_name"])
        config = kind.config_class.from_pretrained(source, num_labels=len(classes))
        tokenizer = getattr(transformers, shape["tokenizer_name"]).from_pretrained(source, local_files_only=True)
    model = neural.whole(kind, None, where, hint, config=config, state_dict=weights)
    neural.save(model, tokenizer, classes, folder)


def held_to(path: Path, wanted: str | None, where: str) -> str:
    """The file's SHA-256. Raises InputError where it is not ``wanted``: a whole one, or what it must begin with."""
    digest = files.sha256(path)
    if not digest.startswith(wanted or ""):
        raise InputError(
            f"{where} has SHA-256 {digest}, expected {wanted}: it is damaged or another file. Get a fresh copy, or "
            "set scorer.<task>.sha256 to the digest that you trust"
        )
    return digest


def released(settings: Settings) -> tuple[Path, str]:
    """Released weights from the state folder, from torch.hub's cache, or downloaded, whole or not at all; and what
    their SHA-256 begins with: the digits in their name, where no more is known."""
    import fcntl

    import torch
    from detoxify.detoxify import MODEL_URLS
    from huggingface_hub.file_download import http_get

    url = MODEL_URLS[settings.variant]
    name = url.rsplit("/", 1)[1]
    wanted = settings.sha256 or PUBLISHED.get(settings.variant) or name.rpartition("-")[2].removesuffix(".ckpt")
    target = files.state_folder("weights") / name
    for path in (target, Path(torch.hub.get_dir(), "checkpoints", name)):
        if path.is_file():
            return path, wanted
    part = target.with_name(f"{name}.part")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if target.is_file():  # another process was faster
            return target, wanted
        try:
            http_get(url, file, resume_size=file.tell(), displayed_filename=name)
        except Exception as error:  # no network, a server that stops or refuses
            if getattr(getattr(error, "response", None), "status_code", None) != NOTHING_LEFT:
                raise InputError(
                    f"the weights of Detoxify {settings.variant} could not be downloaded ({failure(error)}). Download "
                    f"{url} and put it at {target}, or set scorer.<task>.checkpoint to its path; or use kind: "
                    "classifier, which learns offline from labelled text"
                ) from error
        file.flush()
        os.fsync(file.fileno())
        try:
            held_to(part, wanted, url)
        except InputError:
            part.unlink()
            raise
        os.replace(part, target)
    return target, wanted


SCORER = Detoxify
