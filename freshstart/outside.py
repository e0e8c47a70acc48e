"""What a pipeline needs from outside, named before it is fetched: what, from where, how large, under which licence.

Whatever the settings name is listed, with whether it is at hand: lists of wheels, sets, models and tokenizers of the
hub, Detoxify's weights, and files that a person puts in place. Sizes and licences are those that the publishers state;
``PUBLISHED`` holds those of the scales as they come, and of others the page is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart import corpora, evaluation, files, params, scorers, tokens, training
from freshstart.errors import InputError
from freshstart.scorers import ScorerSettings

MB = 10**6
WHEEL_MB = 1.0  # the mean of the lists in conf/wheels
PUBLISHED = {  # size in MB, and licence
    "google/civil_comments": (415, "CC0 1.0"),
    "bert-base-uncased": (1, "Apache-2.0"),
    "roberta-base": (2, "MIT"),
    "detoxify original": (438, "Apache-2.0"),
    "detoxify unbiased": (499, "Apache-2.0"),
    "openai-community/gpt2": (3, "MIT"),
    "openai-community/gpt2-xl": (6_430, "MIT"),
    "codeparrot/codeparrot-small": (2, "Apache-2.0"),
}
ENCODERS = {"original": "bert-base-uncased", "unbiased": "roberta-base", "multilingual": "xlm-roberta-base"}
ENCODERS |= {"original-small": "albert-base-v2", "unbiased-small": "albert-base-v2"}


@dataclass(frozen=True)
class Thing:
    """Something from outside. ``fetched``: a stage gets it by itself; else a person puts it in place."""

    what: str
    where: str
    setting: str
    fetched: bool
    at_hand: bool
    size: float | None = None  # MB
    licence: str = "see its page"

    def __str__(self) -> str:
        size = f"{self.size:,.0f} MB" if self.size is not None else "size: see its page"
        state = "at hand" if self.at_hand else "to be fetched" if self.fetched else "MISSING, put it there"
        about = f"{size}, {self.licence}; " if self.fetched else ""
        return f"{self.what} ({self.where}): {about}{state} [{self.setting}]"


def things(everything: params.Params) -> list[Thing]:
    """Everything that the tasks' settings name from outside, each once."""
    found: dict[tuple[str, str], Thing] = {}
    for task in everything.root.tasks:
        for thing in _of_task(everything, task):
            found.setdefault((thing.what, thing.where), thing)
    return list(found.values())


def announced(everything: params.Params) -> str:
    """What the stages will fetch, in one message; empty where all is at hand."""
    missing = [thing for thing in things(everything) if not thing.at_hand]
    return (
        "\n".join([f"{everything.file} needs from outside:", *(f"- {thing}" for thing in missing)]) if missing else ""
    )


def _of_task(everything: params.Params, task: str) -> Iterator[Thing]:
    corpus = corpora.settings(everything.block("corpus", task), everything.where("corpus", task))
    yield from _corpus(corpus, f"corpus.{task}")
    for path in corpus.benchmarks:
        yield _file(path, f"corpus.{task}.benchmarks")
    block = everything.block("scorer", task)
    for settings in scorers.settings_and_judge(block, everything.where("scorer", task)):
        if settings is not None:
            yield from _scorer(settings, f"scorer.{task}")
    named = everything.model(tokens.TokenizerSettings, "tokenizer", task)
    if named.name is not None:
        yield _model(named.name, named.revision, "tokenizer", f"tokenizer.{task}.name", "tokenizer*")
    start = everything.model(training.TrainSettings, "train", task, "mle")
    if start.start is not None:
        yield _model(start.start, start.revision, "model", f"train.{task}.start")
    evaluate = everything.model(evaluation.EvaluateSettings, "evaluate", task)
    if evaluate.reference.model != evaluation.MLE and not evaluate.reference.is_endpoint:
        setting = f"evaluate.{task}.reference"
        yield _model(evaluate.reference.model, evaluate.reference.revision, "model", setting)
    for name in ("gold", "prompts"):
        if (path := getattr(evaluate, name)) is not None:
            yield _file(path, f"evaluate.{task}.{name}")


def _corpus(settings: Any, setting: str) -> Iterator[Thing]:
    if settings.kind == "local":
        yield _file(settings.path, f"{setting}.path")
    elif settings.kind == "wheels":
        pinned = set(re.findall(r"sha256:([0-9a-f]{64})", Path(settings.requirements).read_text(encoding="utf-8")))
        missing = pinned - {files.sha256(path) for path in files.state_folder("wheels").glob("*.whl")}
        licence = "each its own open-source licence"
        where = f"the package index, {settings.requirements}"
        yield Thing(f"{len(pinned)} wheels", where, setting, True, not missing, len(missing) * WHEEL_MB, licence)
    elif hasattr(settings, "revision"):
        listing = files.state_folder("hub") / f"datasets--{settings.name.replace('/', '--')}/snapshots"
        at_hand = (listing / settings.revision).is_dir()
        where = f"huggingface.co/datasets/{settings.name} at {settings.revision[:12]}"
        yield Thing(f"the set {settings.name}", where, setting, True, at_hand, *PUBLISHED.get(settings.name, ()))


def _scorer(settings: ScorerSettings, setting: str) -> Iterator[Thing]:
    if (rows := getattr(settings, "labelled", None)) not in (None, "synthetic"):
        yield _file(rows, f"{setting}.labelled")
    if settings.kind == "detoxify":
        variant, checkpoint, encoder = (getattr(settings, name) for name in ("variant", "checkpoint", "encoder"))
        if checkpoint is not None:
            yield _file(checkpoint, f"{setting}.checkpoint")
        else:
            where, places = weights(variant)
            at_hand, name = any(path.is_file() for path in places), f"detoxify {variant}"
            yield Thing(f"{name}, weights", where, setting, True, at_hand, *PUBLISHED.get(name, ()))
        yield _model(encoder or ENCODERS[variant], None, "configuration and tokenizer", f"{setting}.encoder", "config*")
    elif settings.kind == "hf_classifier":
        yield _model(settings.model, settings.revision, "model", f"{setting}.model")
    elif (start := getattr(settings, "start", "scratch")) != "scratch":
        yield _model(start, settings.revision, "model", f"{setting}.start")
    if (names := getattr(settings, "names", None)) is not None:
        from freshstart.scorers import pii_names

        at_hand = _has(lambda: bool(pii_names.model_folder(names)))
        where = f"a folder, or `pip install` of a wheel of {pii_names.RELEASES}"
        yield Thing(f"the spaCy pipeline {names.model}", where, f"{setting}.names", False, at_hand)


def weights(variant: str) -> tuple[str, list[Path]]:
    """The address of Detoxify's released weights, and where their file may lie: the state folder, torch.hub's cache."""
    import torch
    from detoxify.detoxify import MODEL_URLS

    url = MODEL_URLS[variant]
    folders = files.state_folder("weights"), Path(torch.hub.get_dir(), "checkpoints")
    return url, [folder / url.rsplit("/", 1)[1] for folder in folders]


def _file(path: str, setting: str) -> Thing:
    from freshstart.corpora import local

    return Thing(path, "a file or folder here", setting, False, _has(lambda: bool(local.matching(path))))


def _model(name: str, revision: str | None, what: str, setting: str, pattern: str = "*.safetensors") -> Thing:
    """A folder, or what the hub's cache holds of a repository at that commit."""
    if Path(name).is_dir() or len(Path(name).parts) > 2:
        return Thing(f"the {what} {name}", "a folder here", setting, False, Path(name).is_dir())
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "snapshots")
    at_hand = any(snapshots.glob(f"{revision or '*'}/{pattern}"))
    where = f"huggingface.co/{name}" + (f" at {revision[:12]}" if revision else "")
    return Thing(f"the {what} {name}", where, setting, True, at_hand, *PUBLISHED.get(name, ()))


def _has(look: Callable[[], bool]) -> bool:
    with suppress(InputError):
        return look()
    return False
