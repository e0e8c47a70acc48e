"""What a person sets: ``params.yaml`` and the scale file that it names.

``params.yaml`` holds the few words that a person edits (scale, tasks, objectives, seeds); ``conf/scale/<scale>.yaml``
holds the numbers, one section a stage. Below a section stand ``every`` (what all tasks share) and one block a task,
whose keys win. In the sections ``shards``, ``train`` and ``finetune`` both may hold blocks by the name of an objective,
which win in turn; those of a variant (``awr-beta1``) win over those of its objective (``awr``). A task must have blocks
in ``corpus`` and ``scorer``; where it has none in another section, it takes what stands in ``every``.

Models that were trained elsewhere stand in ``external`` by name, those in ``folders`` here apart from those on the
``hub``: DVC follows what is in a folder, while a model on the hub is pinned by its revision.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from freshstart import benchmarks
from freshstart.benchmarks import BenchmarkSettings
from freshstart.errors import InputError
from freshstart.names import ARM, arm_name, checked, kind_of
from freshstart.settings import build, collected, kinds, known, listed, mapping, raise_all
from freshstart.tokens import CONTROLS

Model = TypeVar("Model")
ROOT_FILE = Path("params.yaml")
SCALE_FOLDER = Path("conf/scale")
SECTIONS = ("corpus", "scorer", "score", "tokenizer", "shards", "train", "finetune", "evaluate")
NEEDED = ("corpus", "scorer")  # where every task has a block
BY_OBJECTIVE = ("shards", "train", "finetune")
SHARED = "every"
MOST_SEED = 2**32 - 1  # numpy's and torch's generators take no larger one in common


@dataclass(frozen=True, kw_only=True)
class ExternalModel:
    """A causal language model that was trained elsewhere: a folder, or a hub id at the commit ``revision``.

    ``controls`` are the strings of its control tokens for good and bad segments, if it has them. White space between
    two segments ends the first (``trailing``, as in the paper's own models) or opens the second (``leading``).
    """

    task: str
    model: str
    revision: str | None = None
    controls: dict[str, str] = field(default_factory=dict)
    white_space: Literal["leading", "trailing"] = "leading"

    def __post_init__(self) -> None:
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision must be the full hash of a commit, found {self.revision!r}")
        if self.controls and (set(self.controls) != set(CONTROLS) or len(set(self.controls.values())) < 2):
            raise ValueError(f"controls must be {' and '.join(CONTROLS)}, each with a string of its own, or absent")


@dataclass(frozen=True, kw_only=True)
class External:
    """The models that were trained elsewhere, by name."""

    folders: dict[str, ExternalModel] = field(default_factory=dict)
    hub: dict[str, ExternalModel] = field(default_factory=dict)

    def of(self, task: str) -> dict[str, ExternalModel]:
        """Those that are measured on a task."""
        return {name: model for name, model in (*self.folders.items(), *self.hub.items()) if model.task == task}


@dataclass(frozen=True, kw_only=True)
class Root:
    """``params.yaml``: which cells there are, and at which scale."""

    scale: str
    tasks: tuple[str, ...]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    corpus_seed: int
    inputs: dict[str, str]
    benchmarks: tuple[str, ...] = ()
    external: External = field(default_factory=External)
    finetuned: tuple[str, ...] = ()
    finetuned_from: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tasks", "objectives", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} must name at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {listed(values)}")
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError(f"benchmarks names one twice: {listed(self.benchmarks)}")
        outside = (*self.external.folders, *self.external.hub, *self.benchmarks)
        for name in (self.scale, *self.tasks, *self.objectives, *self.finetuned, *outside):
            if ARM in checked(name):
                raise ValueError(f"{ARM!r} is reserved for the names of finetuned arms, found {name!r}")
        for name, path in self.inputs.items():
            if Path.cwd().is_relative_to(os.path.abspath(path)):
                raise ValueError(
                    f"inputs.{checked(name)} is {path!r}, which holds the pipeline itself: name what is read"
                )
        if not self.inputs:
            raise ValueError(
                "inputs must name at least one, such as {harness: conf/harness}: DVC needs the folder of them"
            )
        if not all(0 <= seed <= MOST_SEED for seed in (self.corpus_seed, *self.seeds)):
            raise ValueError(f"seeds and corpus_seed must be from 0 to {MOST_SEED:,}")
        if "mle" not in self.objectives:
            raise ValueError("objectives must hold mle, the reference that every other objective is compared with")
        if self.finetuned and not self.finetuned_from:
            raise ValueError("finetuned_from must name at least one share of mle's budget, such as 0.5")

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the finetuned arms."""
        return tuple(arm_name(name, share) for name in self.finetuned for share in self.finetuned_from)


@dataclass(frozen=True)
class Params:
    """The words of ``params.yaml`` and the raw sections of the scale file, with where they were read."""

    root: Root
    sections: Mapping[str, Any]
    file: Path

    def benchmark(self, name: str) -> BenchmarkSettings:
        """The settings of a benchmark that conf/benchmarks.yaml describes."""
        described = read_file(benchmarks.FILE)
        known(name, described, "benchmark", f"benchmarks in {ROOT_FILE}; {benchmarks.FILE}")
        where = f"{benchmarks.FILE}: {name}"
        return benchmarks.settings(mapping(described[name], where), where)

    def task(self, name: str) -> str:
        """The task's name, if it is one of ``tasks``."""
        return known(name, self.root.tasks, "task", f"tasks in {ROOT_FILE}")

    def where(self, section: str, *keys: str) -> str:
        """How a message names a place in the scale file."""
        return f"{self.file}: {'.'.join((section, *keys))}"

    def layers(self, section: str, task: str, objective: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """``every`` of a section, the task's own keys, then those of the objective in either: where each stands, and
        what. Later ones win."""
        blocks = self.sections[section]
        if task not in blocks and section in NEEDED:
            raise InputError(
                f"{self.where(section, task)} is missing: write it, or let `python -m freshstart new-task {task}` do so"
            )
        chosen = [(self.where(section, name), blocks.get(name)) for name in (SHARED, task)]
        read = [(where, mapping(block, where)) for where, block in chosen]
        nested = {*kinds("freshstart.objectives"), *self.root.objectives} if section in BY_OBJECTIVE else set()
        layers = [(where, {key: block[key] for key in block if key not in nested}) for where, block in read]
        for part in dict.fromkeys((kind_of(objective), objective)) if objective else ():
            layers += [(f"{where}.{part}", dict(mapping(block.get(part), f"{where}.{part}"))) for where, block in read]
        return layers

    def block(self, section: str, task: str) -> dict[str, Any]:
        """``every`` of a section with the task's own keys on top."""
        return {key: value for _, layer in self.layers(section, task) for key, value in layer.items()}

    def model(self, model: type[Model], section: str, task: str, objective: str | None = None) -> Model:
        """The block of a section read into ``model``, with the keys of the objective on top."""
        layers = self.layers(section, task, objective)
        keys = {key: (value, where) for where, layer in layers for key, value in layer.items()}
        places = {key: where for key, (_, where) in keys.items()}
        where = self.where(section, task, *([objective] if objective else []))
        return build(model, {key: value for key, (value, _) in keys.items()}, where, places)


@lru_cache(maxsize=1)
def load(scale: str | None = None) -> Params:
    """Read and check ``params.yaml`` and its scale file, every section and task; ``scale`` takes another file."""
    params = read(scale)
    raise_all(problems(params))
    return params


def read(scale: str | None = None) -> Params:
    """The same with no look at what stands in the sections."""
    root = build(Root, read_file(ROOT_FILE), str(ROOT_FILE))
    root = root if scale is None else replace(root, scale=scale)
    scales = sorted(path.stem for path in SCALE_FOLDER.glob("*.yaml"))
    known(root.scale, scales, "scale", str(SCALE_FOLDER))
    file = SCALE_FOLDER / f"{root.scale}.yaml"
    sections = read_file(file)
    wrong: list[str] = []
    for name in sections:
        with collected(wrong):
            known(name, SECTIONS, "section", str(file))
    raise_all(
        [
            *wrong,
            *(
                f"{file}: the section {name} is missing"
                for name in SECTIONS
                if not isinstance(sections.get(name), Mapping)
            ),
        ]
    )
    return Params(root, sections, file)


def problems(params: Params) -> list[str]:
    """All that is wrong with the words of both files: every model of every task is built once, so that a wrong word
    stops the first stage and not the last."""
    from freshstart import corpora, evaluation, scorers, tokens, training

    found: list[str] = []
    root = params.root
    _check_external(root, found)
    for name in root.benchmarks:
        with collected(found):
            for task in params.benchmark(name).tasks:
                known(task, root.tasks, "task", f"{benchmarks.FILE}: {name}.tasks")
    for name in root.finetuned:
        with collected(found):
            known(name, root.objectives, "objective", f"finetuned in {ROOT_FILE}")
    for task in root.tasks:
        with collected(found):
            corpora.settings(params.block("corpus", task), params.where("corpus", task))
        with collected(found):
            scorers.settings_and_judge(params.block("scorer", task), params.where("scorer", task))
        with collected(found):
            params.model(scorers.ScoreSettings, "score", task)
        with collected(found):
            params.model(tokens.TokenizerSettings, "tokenizer", task)
        found += _of_objectives(params, task)
        with collected(found):
            asked = params.model(evaluation.EvaluateSettings, "evaluate", task)
            evaluation.check(asked, params.where("evaluate", task))
            if "prompted" in asked.measures and asked.prompts is None:
                where = params.where("evaluate", task, "prompts")
                raise InputError(f"{where} is missing: the measure prompted needs a file of prompts, or leave it out")
        if root.finetuned and not found:
            snapshots = params.model(training.TrainSettings, "train", task, "mle").snapshots
            found += [
                f"{ROOT_FILE}: finetuned_from has {share}, but {params.where('train', task)}.snapshots has "
                f"{list(snapshots)}: add it there"
                for share in root.finetuned_from
                if share not in snapshots
            ]
    return [*dict.fromkeys(found)]


def _of_objectives(params: Params, task: str) -> list[str]:
    """What is wrong in the sections by objective; what all objectives lack is said once, of the task."""
    from freshstart import objectives, training

    found: dict[str, dict[str, str]] = {}
    for objective in params.root.objectives:
        lines: list[str] = []
        made: dict[str, Any] = {}
        with collected(lines):
            settings = objectives.load(objective, params.where("shards", task, objective)).settings
            made["shards"] = params.model(settings, "shards", task, objective)
        for section, model in (("train", training.TrainSettings), ("finetune", training.FinetuneSettings)):
            with collected(lines):
                made[section] = params.model(model, section, task, objective)
        shares = params.root.finetuned_from if objective in params.root.finetuned else ()
        for section, share in [("train", 0.0), *(("finetune", share) for share in shares)] if not lines else []:
            batch = (made[section].batch_size or made["train"].batch_size) * made["train"].context
            positions = made["shards"].positions
            if (left := positions - round(share * positions)) < batch:
                budget = f"mle leaves at {share}" if share else "it trains on"
                lines.append(
                    f"{params.where(section, task, objective)}: a batch has {batch:,} positions, and {left:,} are what "
                    f"{budget}: lower batch_size, or raise shards.{task}.positions"
                )
        found[objective] = {line.replace(f".{task}.{objective}", f".{task}"): line for line in lines}
    shared = set.intersection(*map(set, found.values()))
    return [of_task if of_task in shared else line for lines in found.values() for of_task, line in lines.items()]


def _check_external(root: Root, found: list[str]) -> None:
    taken = {*kinds("freshstart.objectives"), *root.objectives}
    for group, models in (("folders", root.external.folders), ("hub", root.external.hub)):
        for name, model in models.items():
            where = f"{ROOT_FILE}: external.{group}.{name}"
            with collected(found):
                known(model.task, root.tasks, "task", f"{where}.task")
            if name in taken:
                found.append(f"{where}: an objective or another model has that name: choose one of its own")
            taken.add(name)
            if (group == "hub") != (model.revision is not None):
                needs = "needs a revision, the full hash of a commit" if group == "hub" else "has no revision"
                found.append(f"{where}: a model in {group} {needs}")
            if (group == "folders") != Path(model.model).is_dir():
                other = "not a folder here: list a model of the hub under external.hub"
                other = other if group == "folders" else "a folder here: list it under external.folders"
                found.append(f"{where}.model: {model.model} is {other}")


def read_file(path: Path) -> dict[str, Any]:
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
