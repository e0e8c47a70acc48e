"""Red-teaming replayed: the attacks that were found on one model, asked of every other and of that one anew.

Of each trial's pool the prompts that worked best are taken, as many of every pool (the fewest that one of them has, at
most ``replayed``), and every target is asked all of them equally often. Their scores are drawn anew, so that a pool's
own model stands beside the others without the luck that its prompts were chosen by.

``score.<target>.<source>`` is the mean score of the target's continuations of what was found on the source, and
``others.<target>`` that over all other sources: means over trials with Student's t interval. What a target said to the
pools of a source is kept.
"""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import files
from freshstart.benchmarks import interval
from freshstart.benchmarks.asked import context_of
from freshstart.benchmarks.red_team import Settings, scored
from freshstart.evaluation import MLE
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.metrics import Metric, check
from freshstart.evaluation.subject import of_folder
from freshstart.names import benchmarked_by, trained_by
from freshstart.progress import Progress
from freshstart.settings import restore
from freshstart.training.model import read_record

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

METRICS = (
    Metric("score.*.*", "score of a target on the attacks found on a source", "score", "lower", interval=True),
    Metric("score.*.*.n", "trials", "trials"),
    Metric("others.*", "the same over all sources but itself", "score", "lower", interval=True, optional=True),
    Metric("others.*.n", "trials", "trials", optional=True),
    Metric("prompts", "prompts of each trial of a source", "prompts"),
    Metric("calls", "continuations of each target", "continuations"),
)


def replay(
    load: Callable[[str], Subject],
    pools: Mapping[str, pa.Table],
    settings: Settings,
    context: Context,
    state: Path,
) -> tuple[dict[str, Any], pa.Table]:
    """``pools`` are the items of red-teaming by the name of the model that they were found on; ``load`` gives it."""
    import polars as pl
    import pyarrow as pa

    rows = {
        name: pl.from_arrow(pool).sort("score", descending=True, maintain_order=True) for name, pool in pools.items()
    }
    count = min(settings.replayed, *(int(of["trial"].value_counts()["count"].min()) for of in rows.values()))
    chosen = {
        name: of.filter(pl.int_range(pl.len()).over("trial") < count).sort("trial", maintain_order=True)
        for name, of in rows.items()
    }
    means: dict[str, dict[str, np.ndarray]] = {}
    items: list[dict[str, Any]] = []
    with Progress("replaying attacks", len(pools) ** 2, "pools") as progress:
        for target in pools:
            subject, means[target] = load(target), {}
            for source, prompts in chosen.items():
                path = state / f"{target}-{source}.json"
                scores = kept(path)
                if scores is None:
                    seed = int(files.digest(["replay", context.seed, source])[:12], 16)  # the same for every target
                    asked = scored(subject, settings, context, prompts["prompt"].to_list(), 0, seed)
                    scores = [attack.score for attack in asked]
                    keep(path, scores)
                means[target][source] = np.array(scores).reshape(settings.trials, count).mean(1)
                found = zip(prompts["trial"], prompts["prompt"], scores, strict=True)
                items += [
                    {"target": target, "source": source, "trial": trial, "prompt": prompt, "score": score}
                    for trial, prompt, score in found
                ]
                progress.advance(note=f"{source} on {target}")
    trials = {"n": settings.trials}
    metrics = {
        "score": {
            target: {source: interval(values) | trials for source, values in of.items()} for target, of in means.items()
        },
        "others": {
            target: interval(np.mean([values for source, values in of.items() if source != target], 0)) | trials
            for target, of in means.items()
            if len(of) > 1
        },
        "prompts": count,
        "calls": len(pools) * settings.trials * count * settings.continuations,
    }
    return metrics, pa.Table.from_pylist(items)


def of_task(args: Namespace, resolved: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, Any], pa.Table]:
    """Metrics and items of the attacks below ``args.attacks`` on the models below ``args.models``, each on all."""
    args.mle = args.models / MLE / str(args.seed)
    context = context_of(args, resolved)
    made_by = {name: trained_by(args.task, name, args.seed) for name in names}
    folders = {name: args.models / name / str(args.seed) for name in made_by}
    paths = {name: args.attacks / name / "benchmarks" / args.benchmark / f"{args.seed}.parquet" for name in made_by}
    pools = {
        name: files.read_table(path, benchmarked_by(args.task, name, args.seed, args.benchmark))
        for name, path in paths.items()
    }

    def load(name: str) -> Subject:
        subject = of_folder(folders[name], made_by[name], context.device)
        return replace(subject, logit_gib=context.settings.logit_gib)

    identity = {
        "models": {name: read_record(folders[name], made_by[name]) for name in made_by},
        "attacks": {name: files.sha256(path) for name, path in paths.items()},
        "task": args.task,
        "seed": args.seed,
    }
    state = files.state_folder("replay", files.digest(identity | dict(resolved))[:32])
    found = replay(load, pools, restore(Settings, resolved["settings"]), context, state)
    check(found[0], METRICS, str(args.metrics), f"replay@{args.task}-{args.seed}-{args.benchmark}", head=())
    shutil.rmtree(state, ignore_errors=True)
    return found
