"""What a person sets: ``params.yaml`` and the scale file that it names, read into typed models.

``params.yaml`` holds the few words that a person edits (scale, tasks, objectives, seeds); ``conf/scale/<scale>.yaml``
holds the numbers, one section a stage. Below a section stand ``every`` (what all tasks share) and one block a task,
whose keys win. The models are plain frozen dataclasses that live in the room that uses them, so that a room can be
used without this file; a model checks its own ranges in ``__post_init__``. Unknown keys are refused with the nearest
known one.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from freshstart.errors import InputError

Model = TypeVar("Model")
ROOT_FILE = Path("params.yaml")
SCALE_FOLDER = Path("conf/scale")
SECTIONS = ("corpus", "scorer", "score", "tokenizer", "shards", "train", "finetune", "evaluate")
SHARED = "every"


@dataclass(frozen=True, kw_only=True)
class Root:
    """``params.yaml``: which cells there are, and at which scale."""

    scale: str
    tasks: tuple[str, ...]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    corpus_seed: int
    benchmarks: tuple[str, ...] = ()
    finetuned: tuple[str, ...] = ()
    finetuned_from: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tasks", "objectives", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} must name at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")
        if self.corpus_seed < 0 or min(self.seeds) < 0:
            raise ValueError("seeds and corpus_seed must be at least 0")
        if "mle" not in self.objectives:
            raise ValueError("objectives must hold mle, the reference that every other objective is compared with")
        if self.benchmarks:
            raise ValueError("benchmarks is an empty list in this version: no stage reads it yet")
        if self.finetuned and not self.finetuned_from:
            raise ValueError("finetuned_from must name at least one share of mle's budget, such as 0.5")

    @property
    def arms(self) -> tuple[str, ...]:
        """The finetuned cells, by the name that stands in place of an objective in their paths."""
        return tuple(f"{name}-from-{share:g}" for name in self.finetuned for share in self.finetuned_from)


@dataclass(frozen=True)
class Params:
    """The words of ``params.yaml`` and the raw sections of the scale file, with where they were read."""

    root: Root
    sections: Mapping[str, Any]
    file: Path

    def task(self, name: str) -> str:
        """The task's name, if it is one of ``tasks``."""
        return _known(name, self.root.tasks, "task", f"tasks in {ROOT_FILE}")

    def objective(self, name: str) -> str:
        """The objective's name, if it is one of ``objectives``."""
        return _known(name, self.root.objectives, "objective", f"objectives in {ROOT_FILE}")

    def block(self, section: str, task: str) -> dict[str, Any]:
        """``every`` of a section with the task's own keys on top."""
        blocks = self.sections[section]
        if task not in blocks:
            raise InputError(f"{self.file}: {section}.{task} is missing; the section has {_listed(blocks)}")
        return {
            **mapping(blocks.get(SHARED), f"{self.file}: {section}.{SHARED}"),
            **mapping(blocks[task], f"{self.file}: {section}.{task}"),
        }

    def model(self, model: type[Model], section: str, task: str) -> Model:
        """The block of a section read into ``model``."""
        return build(model, self.block(section, task), f"{self.file}: {section}.{task}")


def mapping(block: Any, where: str) -> Mapping[str, Any]:
    """The block, empty where YAML has nothing behind its key."""
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise InputError(f"{where} must be a mapping, found {block!r}")
    return block


@lru_cache(maxsize=1)
def load() -> Params:
    """Read and check ``params.yaml`` and its scale file, every section and every task of it."""
    raw = _read(ROOT_FILE)
    root = build(Root, raw, str(ROOT_FILE))
    scales = sorted(path.stem for path in SCALE_FOLDER.glob("*.yaml"))
    _known(root.scale, scales, "scale", str(SCALE_FOLDER))
    file = SCALE_FOLDER / f"{root.scale}.yaml"
    sections = _read(file)
    for name in sections:
        _known(name, SECTIONS, "section", str(file))
    for name in SECTIONS:
        if not isinstance(sections.get(name), Mapping):
            raise InputError(f"{file}: the section {name} is missing")
    params = Params(root, sections, file)
    _check(params)
    return params


def build(model: type[Model], raw: Any, where: str) -> Model:
    """Read a mapping into a dataclass; ``where`` (file and keys) opens every message."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(raw, Mapping):
        raise InputError(f"{where} must be a mapping, found {raw!r}")
    known = {field.name: field for field in fields(model)}
    for key in raw:
        _known(str(key), known, "key", where)
    for name, field in known.items():
        if name not in raw and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{where}.{name} is missing: it has no default")
    try:  # by way of JSON: its strict mode takes lists for tuples, but neither "1" nor true for 1
        return TypeAdapter(model).validate_json(json.dumps(dict(raw)), strict=True, extra="forbid")
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        place = ".".join([where, *(str(step) for step in first["loc"])])
        message = first["msg"].removeprefix("Value error, ").replace("Unexpected keyword argument", "unknown key")
        found = "" if first["type"] == "value_error" else f", found {first['input']!r}"
        raise InputError(f"{place}: {message}{found}") from None


def found_module(package: str, name: str, what: str, where: str) -> Any:
    """Import ``<package>.<name>``: objectives, scorers and corpus kinds are files, and their names are their keys."""
    return importlib.import_module(f"{package}.{_known(name, module_names(package), what, where)}")


@lru_cache
def module_names(package: str) -> list[str]:
    """The files of a room that count as its kinds: those that define ``Settings``. The others are its tools."""
    home = Path(importlib.import_module(package).__path__[0])
    return sorted(path.stem for path in home.glob("[a-z]*.py") if "class Settings" in path.read_text("utf-8"))


def _check(params: Params) -> None:
    """Build every model of every task once, so that a wrong word stops the first stage and not the last."""
    from freshstart import corpora, evaluation, objectives, scorers, tokens, training

    for task in params.root.tasks:
        corpora.settings(params.block("corpus", task), f"{params.file}: corpus.{task}")
        block, where = params.block("scorer", task), f"{params.file}: scorer.{task}"
        if (judge := block.pop("judge", None)) is not None:
            scorers.settings(mapping(judge, f"{where}.judge"), f"{where}.judge")
        scorers.settings(block, where)
        for section, model in (
            ("score", scorers.ScoreSettings),
            ("tokenizer", tokens.TokenizerSettings),
            ("train", training.TrainSettings),
            ("finetune", training.FinetuneSettings),
            ("evaluate", evaluation.EvaluateSettings),
        ):
            params.model(model, section, task)
        snapshots = params.model(training.TrainSettings, "train", task).snapshots
        for share in params.root.finetuned_from if params.root.finetuned else ():
            if share not in snapshots:
                raise InputError(
                    f"{ROOT_FILE}: finetuned_from has {share:g}, but {params.file}: train.{task}.snapshots has "
                    f"{list(snapshots)}: add it there"
                )
        for name in params.root.finetuned:
            _known(name, params.root.objectives, "objective", f"finetuned in {ROOT_FILE}")
        for objective in params.root.objectives:
            objectives.settings(params.sections["shards"], task, objective, f"{params.file}: shards")


def _read(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError  # the parser that DVC reads the same files with

    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run this from the root of the repository") from None
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} must hold keys and values, found {type(raw).__name__}")
    return raw


def _known(name: str, known: Sequence[str] | Mapping[str, Any], what: str, where: str) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{where}: unknown {what} {name!r}; {hint}known: {_listed(known)}")
    return name


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in names)
