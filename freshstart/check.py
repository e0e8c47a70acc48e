"""What is missing or wrong, before anything runs: the words of the settings, and what they name outside of the project.

Looked at are keys, files (whether DVC follows them, and the columns of their first rows), the code of rewards, pinned
packages, weights, wheels and the room on the disk. Nothing is fetched: of what is not at hand, the package index and
the hubs are asked whether they have it. Cost: seconds.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from urllib.request import Request, urlopen

from freshstart import corpora, evaluation, files, inputs, outside, params, scorers
from freshstart.corpora import Refusal, local, wheels
from freshstart.errors import InputError
from freshstart.params import Params
from freshstart.scorers import ScorerSettings, learning, pii_names
from freshstart.settings import collected
from freshstart.tokens import TokenizerSettings
from freshstart.training import TrainSettings

Look = tuple[str, Callable[[], object]]  # where in the settings, and what raises InputError where something is wrong
SYNTHETIC = "synthetic"
VERSION = re.compile(r"\d+(\.\w+)+")
FILES_OPENED = 100  # of one pattern
SECONDS = "10"  # for an answer from elsewhere
BYTES_A_CHARACTER = 6.0  # of a corpus: its parts, the scored ones, the tokens, what is spooled, all in DVC's cache too
COPIES = 2  # of a model: in the workspace and in DVC's cache


def check() -> list[str]:
    """All that is missing or wrong, a line each."""
    everything = params.read()
    problems = params.problems(everything)
    for task in everything.root.tasks:
        for look in (_corpus, _scorers, _tokenizer, _training, _evaluation):
            with collected(problems):  # settings that can not be read are among the problems already
                for place, seen in look(everything, task):
                    lines: list[str] = []
                    with collected(lines):
                        seen()
                    problems += [f"{place}: {line}" for line in lines]
        for section in ("corpus", "scorer", "tokenizer", "train", "evaluate"):
            with collected(problems):
                block, where = everything.block(section, task), everything.where(section, task)
                problems += inputs.unfollowed(block, everything.root.inputs, where)
    if not problems:
        with collected(problems):
            _room(everything)
    return [*dict.fromkeys(problems)]


def table(pattern: str, columns: Sequence[str]) -> None:
    """Raises InputError where a path, folder or pattern means no file, or a first row lacks one of the columns."""
    matches = local.matching(pattern)
    if not matches:
        raise InputError(f"{pattern} holds no file")
    for path, is_document in matches[:FILES_OPENED]:
        for place, row in islice(local.rows(path, columns), 0 if is_document else 1):
            if isinstance(row, Refusal):
                raise InputError(f"{place}: {row.reason} ({row.detail})")


def _corpus(everything: Params, task: str) -> Iterator[Look]:
    where = everything.where("corpus", task)
    settings = corpora.settings(everything.block("corpus", task), where)
    if isinstance(settings, local.Settings):
        columns = [name for name in (settings.text, settings.source) if name is not None]
        yield f"{where}.path", lambda: table(settings.path, columns)
    elif isinstance(settings, wheels.Settings):
        yield f"{where}.requirements", lambda: _wheels(Path(settings.requirements))
    for name in settings.benchmarks:
        yield f"{where}.benchmarks", lambda name=name: local.matching(name)


def _scorers(everything: Params, task: str) -> Iterator[Look]:
    where = everything.where("scorer", task)
    both = scorers.settings_and_judge(everything.block("scorer", task), where)
    for settings, place in zip(both, (where, f"{where}.{scorers.JUDGE}"), strict=True):
        if settings is not None:
            yield place, lambda settings=settings: _code(settings)
            for name in (field.name for field in fields(settings)):
                value = getattr(settings, name)
                if name != "version" and isinstance(value, str) and VERSION.fullmatch(value):
                    yield f"{place}.{name}", lambda name=name, value=value: _package(name, value)
                elif name == "checkpoint" and value is not None:
                    yield f"{place}.{name}", lambda value=value: _file(value)
                elif name in ("model", "start", "encoder") and value not in (None, "scratch"):
                    revision = getattr(settings, "revision", None)
                    yield f"{place}.{name}", lambda value=value, revision=revision: _model(value, revision)
                elif isinstance(value, pii_names.Names):
                    yield f"{place}.{name}", lambda value=value: pii_names.model_folder(value)
            if isinstance(settings, learning.Settings) and settings.labelled != SYNTHETIC:
                columns = [settings.text, settings.label]
                yield f"{place}.labelled", lambda settings=settings, columns=columns: table(settings.labelled, columns)
            if settings.kind == "detoxify" and settings.checkpoint is None:
                yield f"{place}.variant", lambda settings=settings: _released(settings.variant)


def _tokenizer(everything: Params, task: str) -> Iterator[Look]:
    settings = everything.model(TokenizerSettings, "tokenizer", task)
    if settings.name is not None:
        place = everything.where("tokenizer", task, "name")
        yield place, lambda: _model(settings.name, settings.revision, "tokenizer.json")


def _training(everything: Params, task: str) -> Iterator[Look]:
    for objective in everything.root.objectives:
        settings = everything.model(TrainSettings, "train", task, objective)
        if settings.start is not None:
            place = everything.where("train", task, "start")
            yield place, lambda settings=settings: _model(settings.start, settings.revision)


def _evaluation(everything: Params, task: str) -> Iterator[Look]:
    settings = everything.model(evaluation.EvaluateSettings, "evaluate", task)
    for name in ("gold", "prompts"):
        if (path := getattr(settings, name)) is not None:
            yield everything.where("evaluate", task, name), lambda path=path: _file(path)
    reference = settings.reference
    if reference.model != evaluation.MLE and not reference.is_endpoint:
        place = everything.where("evaluate", task, "reference.model")
        yield place, lambda: _model(reference.model, reference.revision)


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


def _file(path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")


def _model(name: str, revision: str | None, file: str = "config.json") -> None:
    """A folder here, in the cache of the hub, or one that the hub has."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if not Path(name).is_dir() and not isinstance(try_to_load_from_cache(name, file, revision=revision), str):
            HfApi().model_info(name, revision=revision, timeout=float(SECONDS))
    except Exception as error:  # the hub client raises many kinds, and refuses names that can be none of a model
        raise InputError(f"{name} is no folder here, and the hub does not give it ({scorers.failure(error)})") from None


def _released(variant: str) -> None:
    """Detoxify's released weights are at hand, or their address answers."""
    url, places = outside.weights(variant)
    if not any(path.is_file() for path in places):
        try:
            urlopen(Request(url, method="HEAD"), timeout=float(SECONDS)).close()
        except OSError as error:
            raise InputError(f"{url} does not answer ({scorers.failure(error)}): put it at {places[0]}") from None


def _wheels(requirements: Path) -> None:
    """The list is there, and the index answers where wheels of it are not at hand."""
    _file(str(requirements))
    lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    pinned = {match["hash"]: match["name"] for line in lines if (match := wheels.REQUIREMENT.match(line))}
    at_hand = {files.sha256(path) for path in files.state_folder("wheels").glob("*.whl")}
    if absent := [name for digest, name in pinned.items() if digest not in at_hand]:
        pip = [sys.executable, "-m", "pip", "--retries", "0", "--timeout", SECONDS, "index", "versions", absent[0]]
        asked = subprocess.run(pip, capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            reason = (asked.stderr.splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"{len(absent)} of the {len(pinned)} wheels of {requirements} are not in "
                f"{files.state_folder('wheels')}, and the package index does not have {absent[0]} ({reason})"
            )


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
