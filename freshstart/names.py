"""Names that several rooms and stages share, each said once."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a task, an objective or a scale: they stand in paths and commands
SPLITS = ("train", "heldout")
NO_CONTROL = "none"  # what stands for the control of a model that has none
ARM = "-from-"  # between the objective and the share in the name of a finetuned arm
SNAPSHOTS = "snapshots"  # the folder of a model's snapshots, below its own


def checked(name: str) -> str:
    """The name, if it may stand in paths and commands; raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"a name is letters, digits, - and _, found {name!r}")
    return name


def arm_name(objective: str, share: float) -> str:
    """The name of a finetuned arm, which stands in place of an objective in its paths, as dvc.yaml spells it."""
    return f"{objective}{ARM}{share}"


def kind_of(objective: str) -> str:
    """The objective's file: that of ``awr-beta1``, a variant of awr with numbers of its own, is awr's."""
    return objective.partition("-")[0]


def is_arm(name: str) -> bool:
    return ARM in name


def objective_of(name: str) -> str:
    """The objective that a cell or a finetuned arm is trained with."""
    return name.rpartition(ARM)[0] or name


def share_of(arm: str) -> float:
    """The share of mle's budget after which an arm was finetuned."""
    return float(arm.rpartition(ARM)[2])


def settings_by(task: str) -> str:
    """The stage that resolves a task's settings."""
    return f"settings@{task}"


def trained_by(task: str, name: str, seed: int) -> str:
    """The stage that trains a cell or an arm, as `dvc repro` names it."""
    return _stage("finetune" if is_arm(name) else "train", task, name, seed)


def evaluated_by(task: str, name: str, seed: int) -> str:
    """The stage that evaluates a cell or an arm, as `dvc repro` names it."""
    return _stage("evaluate_finetuned" if is_arm(name) else "evaluate", task, name, seed)


def external_by(name: str, on_hub: bool, verb: str = "evaluate") -> str:
    """The stage that evaluates a model that was trained elsewhere, or runs benchmarks on it."""
    return f"{verb}_{'hub' if on_hub else 'folder'}@{name}"


def benchmarked_by(task: str, name: str, seed: int, benchmark: str) -> str:
    """The stage that runs a benchmark on a cell or an arm, as `dvc repro` names it."""
    return f"{_stage('benchmark_finetuned' if is_arm(name) else 'benchmark', task, name, seed)}-{benchmark}"


def _stage(stage: str, task: str, name: str, seed: int) -> str:
    return f"{stage}@{task}-{name.replace(ARM, '-')}-{seed}"
