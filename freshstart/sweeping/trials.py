"""Trials of an objective's own numbers, on a seed and on held-out text that nothing reported is measured on.

A trial is a training like any other, of the task's own token streams, with a few numbers changed. It keeps its curve,
samples and metrics in ``.state/sweep/<task>/<objective>-<key>``, where the key digests its settings, data and code, so
that a sweep that was stopped goes on and a finished trial is not run again. Nothing that DVC tracks is written.

Cost: a training and an evaluation on samples and bits per byte each, one after the other.
"""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import evaluation, files, objectives
from freshstart.errors import InputError
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.metrics import UNDER, asked
from freshstart.imports import code_digest
from freshstart.names import SPLITS, kind_of
from freshstart.objectives import ObjectiveSettings
from freshstart.params import Params, read_file
from freshstart.reporting.cells import BITS, MISALIGNMENT, Estimate, over_seeds
from freshstart.settings import build, known
from freshstart.tokens.shards import Plain
from freshstart.tokens.shards import build as build_shards
from freshstart.tokens.store import read_manifest
from freshstart.training import TrainSettings

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context, Document

FILE = Path("conf/sweep.yaml")
SECTIONS = ("shards", "train")
MEASURES = ("misalignment", "bits_per_byte")
DATA = ("tokens", "scorer", "tokenizer", "scored")
Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """``conf/sweep.yaml``: the seed of the trials, the bounds of the effective sample size, and the changes to try.

    A list of trials is named for an objective, or for one with a word behind a hyphen.
    """

    seed: int
    effective_sample_share: tuple[float, float]
    trials: dict[str, tuple[Changes, ...]]

    def __post_init__(self) -> None:
        if not 0 <= self.effective_sample_share[0] < self.effective_sample_share[1] <= 1:
            raise ValueError(
                f"effective_sample_share must be two shares, the lower first, found {list(self.effective_sample_share)}"
            )
        counts = {name: len(changes) for name, changes in self.trials.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(f"trials must hold equally many for each objective, found {counts}")


@dataclass(frozen=True)
class Trial:
    """One training with changed numbers; ``name`` is that of its list, ``number`` its place there, from 1 on."""

    task: str
    name: str
    number: int
    changes: Changes
    settings: ObjectiveSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    seed: int
    corpus_seed: int
    is_default: bool
    folder: Path

    @property
    def values(self) -> dict[str, Any]:
        """What it changes, by name without the section: ``{"beta": 0.5}``."""
        return dict(pair for block in self.changes.values() for pair in _leaves(block))

    @property
    def curve_file(self) -> Path:
        return self.folder / "curve.csv"  # a training's last

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.json"  # written last: a trial that has it is finished


@dataclass(frozen=True)
class Result:
    """What a trial gave: bits per byte of good text, misalignment on the tuning samples with its 95% interval over
    them; and where tokens are weighed, the effective sample size as a share and the mean weight of bad tokens over
    that of good ones, means over the training."""

    trial: Trial
    bits: float
    misalignment: Estimate | None
    effective_sample_share: float | None
    weight_ratio: float | None


def read(everything: Params) -> Sweep:
    sweep = build(Sweep, read_file(FILE), str(FILE))
    if sweep.seed in everything.root.seeds:
        raise InputError(
            f"{FILE}: seed {sweep.seed} is one of seeds in params.yaml, whose models are reported: choose another, so "
            "that no number is chosen on what is reported"
        )
    return sweep


def lists(sweep: Sweep, everything: Params, task: str) -> dict[str, list[Trial]]:
    """The trials of each list; InputError where a change is none, or the task's data is missing."""
    tokens, scorer = [data(kind, task) for kind in DATA][:2]
    source = [read_manifest(tokens / split, f"tokens@{task}")["sha256"] for split in SPLITS]
    source.append(files.read_json(scorer / "scorer.json", f"scorer@{task}"))
    evaluate = everything.model(EvaluateSettings, "evaluate", task)
    evaluate = replace(evaluate, measures=MEASURES, judges=())
    modules = [*(f"{evaluation.MEASURES}.{name}" for name in MEASURES), "freshstart.evaluation.evaluate"]
    modules += ["freshstart.tokens.shards", "freshstart.training.loop", "freshstart.training.run"]
    words = {"seed": sweep.seed, "corpus_seed": everything.root.corpus_seed}

    def of(name: str, number: int, changes: Changes) -> Trial:
        default, (settings, train) = (_resolved(everything, task, name, part) for part in ({}, changes))
        code = code_digest(*modules, f"freshstart.objectives.{kind_of(name)}")
        parts = [asdict(part) for part in (settings, train, evaluate, default[0].good)]
        key = files.digest([*parts, words, source, code])
        return Trial(
            *(task, name, number, changes, settings, train, evaluate),
            **words,
            is_default=(settings, train) == default,
            folder=files.state_folder() / "sweep" / task / f"{kind_of(name)}-{key[:16]}",
        )

    return {
        name: [of(name, number, changes) for number, changes in enumerate(tried, start=1)]
        for name, tried in sweep.trials.items()
    }


def data(kind: str, task: str) -> Path:
    folder = Path("data", kind, task)
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: run `dvc repro tokens@{task}`, which a sweep begins from")
    return folder


def run(trial: Trial, threshold: float) -> None:
    """Train and evaluate, unless that is done; segments are good up to ``threshold``, whatever the trial trains with.

    Its model and shards are deleted behind it.
    """
    if trial.metrics_file.exists():
        return
    folder, task = trial.folder, trial.task
    objective = objectives.load(kind_of(trial.name))
    shards, plain = files.fresh_folder(folder / "shards"), Plain(data("tokens", task) / "train", task)
    build_shards(objective, trial.settings, plain, shards, trial.corpus_seed)
    files.write_json(folder / "train.json", {"settings": asdict(trial.train)})
    if not trial.curve_file.exists():
        _train(trial)
    files.write_json(trial.metrics_file, _evaluate(trial, threshold))
    for name in ("shards", "model"):
        shutil.rmtree(folder / name)


def good_threshold(everything: Params, task: str) -> float:
    """Up to which score the task's own settings call a segment good."""
    good = everything.model(objectives.load("mle").settings, "shards", task, "mle").good
    scores = np.asarray(Plain(data("tokens", task) / "train", task).stream.segment_scores)
    return good.threshold(scores[~np.isnan(scores)])


def result(trial: Trial) -> Result | None:
    """What a trial gave; None where it has not been run."""
    if not trial.metrics_file.exists():
        return None
    metrics = files.read_json(trial.metrics_file, f"tokens@{trial.task}")
    with open(trial.curve_file, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    mean = {
        name: float(np.mean(values)) for name in rows[0] if (values := [float(row[name]) for row in rows if row[name]])
    }
    bits = over_seeds([metrics], *BITS)
    return Result(
        trial,
        math.nan if bits is None else bits.value,
        over_seeds([metrics], UNDER, asked(metrics)[0], MISALIGNMENT),
        mean.get("effective_sample_share"),
        mean["weight_bad"] / mean["weight_good"] if "weight_bad" in mean and "weight_good" in mean else None,
    )


def _resolved(
    everything: Params, task: str, name: str, changes: Mapping[str, Mapping[str, Any]]
) -> tuple[ObjectiveSettings, TrainSettings]:
    """An objective's settings with the changes on top of the scale file's."""
    sections = dict(everything.sections)
    for section, block in changes.items():
        known(section, SECTIONS, "section", f"{FILE}: trials.{name}")
        blocks, own = sections[section], sections[section].get(task) or {}
        sections[section] = {**blocks, task: {**own, name: {**(own.get(name) or {}), **block}}}
    root = replace(everything.root, objectives=tuple(dict.fromkeys((*everything.root.objectives, name))))
    changed = Params(root, sections, FILE)  # the scale file has been checked: what is wrong stands in this one
    objective = objectives.load(name, f"{FILE}: trials")
    train = changed.model(TrainSettings, "train", task, name)
    return changed.model(objective.settings, "shards", task, name), replace(train, snapshots=())


def _train(trial: Trial) -> None:
    """By the stage's own command, so that FRESHSTART_LAUNCH holds here too.

    It is in a session of its own: on Ctrl-C it is asked to stop and waited for until it has saved its checkpoint.
    """
    folder, task = trial.folder, trial.task
    paths = {"settings": folder / "train.json", "tokens": data("tokens", task), "shards": folder / "shards"}
    paths |= {"tokenizer": data("tokenizer", task), "output": folder / "model", "curve": trial.curve_file}
    words = {"task": task, "objective": kind_of(trial.name), "seed": trial.seed, **paths}
    arguments = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], start_new_session=True)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if status:
        raise InputError(f"trial {trial.number} of {trial.name} ({trial.values}) could not be trained: see above")


def _evaluate(trial: Trial, threshold: float) -> dict[str, Any]:
    import torch

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.evaluate import evaluate
    from freshstart.evaluation.subject import of_folder

    task, model = trial.task, trial.folder / "model"
    made_by = f"sweep {task} {trial.name}"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = Context(
        task=task,
        seed=trial.seed,
        settings=trial.evaluate,
        device=device,
        scorer_folder=data("scorer", task),
        heldout=data("scored", task) / "heldout",
        tokens=data("tokens", task),
        mle=model,
        reference_folder=model,  # none of the measures asks for a reference
    )
    context.documents = unreported(context)
    context.threshold = threshold
    return evaluate(of_folder(model, made_by, device), context, trial.folder / "samples.parquet", made_by)


def unreported(context: Context) -> list[Document]:
    """The held-out documents behind those that `evaluate` measures bits per byte on; InputError where there is none."""
    every = replace(context, settings=replace(context.settings, heldout_tokens=sys.maxsize)).documents
    documents = every[len(context.documents) :]
    if not documents:
        raise InputError(
            f"evaluate.{context.task}.heldout_tokens ({context.settings.heldout_tokens:,}) takes all {len(every)} "
            f"held-out documents, and none is left to tune on: raise corpus.{context.task}.heldout_characters"
        )
    return documents


def _leaves(block: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
