"""What is missing or wrong, before anything runs: the words of the settings, and what they name outside of the project.

Looked at are keys, files (whether DVC follows them, and the columns of their first rows), the code of rewards, pinned
packages, weights, wheels, what benchmarks read and the room on the disk. Nothing is fetched: of what is not at hand,
the package index and the hubs are asked whether they have it. Cost: seconds.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from freshstart import benchmarks, corpora, inputs, outside, params, scorers
from freshstart.errors import InputError
from freshstart.params import Params
from freshstart.scorers import ScorerSettings
from freshstart.settings import collected
from freshstart.tokens import TokenizerSettings
from freshstart.training import TrainSettings

VERSION = re.compile(r"\d+(\.\w+)+")
BYTES_A_CHARACTER = 6.0  # of a corpus: its parts, the scored ones, the tokens, what is spooled, all in DVC's cache too
COPIES = 2  # of a model: in the workspace and in DVC's cache


class Look(NamedTuple):
    """Where in the settings, and what raises InputError where something is wrong."""

    setting: str
    look: Callable[[], object]


def check() -> list[str]:
    """All that is missing or wrong, a line each."""
    everything = params.read()
    problems = params.problems(everything)
    for task in everything.root.tasks:
        for section in (_scorers, *outside.SECTIONS):
            with collected(problems):  # settings that can not be read are among the problems already
                for seen in section(everything, task):
                    problems += outside.wrong(seen.setting, seen.look)
        for section in ("corpus", "scorer", "tokenizer", "evaluate"):
            with collected(problems):
                block, where = everything.block(section, task), everything.where(section, task)
                problems += inputs.unfollowed(block, everything.root.inputs, where)
        for objective in everything.root.objectives:
            with collected(problems):
                settings = asdict(everything.model(TrainSettings, "train", task, objective))
                problems += inputs.unfollowed(settings, everything.root.inputs, everything.where("train", task))
    for name in everything.root.benchmarks:
        with collected(problems):
            named = benchmarks.named(everything.benchmark(name))
            problems += inputs.unfollowed(named, everything.root.inputs, f"{benchmarks.FILE}: {name}")
    if not problems:
        with collected(problems):
            _room(everything)
    return [*dict.fromkeys(problems)]


def _scorers(everything: Params, task: str) -> Iterator[Look]:
    """The scorer and its judge: their code, and the versions that they pin."""
    for settings, where in outside.scorers_of(everything, task):
        yield Look(where, partial(_code, settings))
        for name, value in vars(settings).items():
            if name != "version" and isinstance(value, str) and VERSION.fullmatch(value):
                yield Look(f"{where}.{name}", partial(_package, name, value))


def _code(settings: ScorerSettings) -> None:
    """Describes the scorer, and asks a person's own one for the score of a text."""
    scorers.describe(settings)
    if isinstance(settings, scorers.OwnSettings):
        try:
            scorer = scorers.scorer_class(settings.kind)(**settings.options)
        except TypeError as error:
            raise InputError(f"{settings.kind} does not take its options: {error}") from None
        for answer in scorers.of_texts(scorer, ["Is this a text?"]):
            if answer.error:
                raise InputError(f"{settings.kind} gave no score for a text: {answer.error}")


def _package(name: str, version: str) -> None:
    try:
        scorers.pinned(**{name: version})
    except importlib.metadata.PackageNotFoundError:
        package = name.replace("_", "-")
        raise InputError(f"{package} is not installed: pip install {package}=={version}") from None


def _room(everything: Params) -> None:
    """Whether what is still to be written fits on the disk, roughly."""
    need = 0.0
    for task in everything.root.tasks:
        corpus = corpora.settings(everything.block("corpus", task), everything.where("corpus", task))
        need += BYTES_A_CHARACTER * (corpus.train_characters + corpus.heldout_characters)
        tokenizer = everything.model(TokenizerSettings, "tokenizer", task)
        for objective in everything.root.objectives:
            train = everything.model(TrainSettings, "train", task, objective)
            rows = (tokenizer.vocabulary or 50_000) + train.context
            weights = 12 * train.layers * train.width**2 + rows * train.width
            need += 4 * weights * COPIES * (1 + len(train.snapshots)) * len(everything.root.seeds)
    made = (path for folder in ("data", "models") for path in Path(folder).rglob("*") if path.is_file())
    need -= COPIES * sum(path.stat().st_size for path in made)
    free = shutil.disk_usage(".").free
    if need > free:
        raise InputError(f"the run writes about {need / 1e9:,.1f} GB here, and {free / 1e9:,.1f} GB are free")
