"""What the doors of benchmarks share: the task as a benchmark sees it, and benchmarks asked of one model."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from freshstart import benchmarks, files
from freshstart.allocator import keep_memory
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.context import Context
from freshstart.evaluation.metrics import check
from freshstart.settings import restore

if TYPE_CHECKING:
    from freshstart.evaluation.subject import Subject


def context_of(args: Namespace, resolved: Mapping[str, Any]) -> Context:
    """The task of a door's arguments, by the settings that the stage ``settings`` wrote of a benchmark."""
    how = restore(EvaluateSettings, resolved["evaluate"])
    torch.set_num_threads(how.threads)
    keep_memory()
    return Context.of_door(args, how)


def ask(
    args: Namespace,
    asked: Mapping[str, Mapping[str, Any]],
    load: Callable[[torch.device], Subject],
    identity: Mapping[str, Any],
    made_by: str,
) -> None:
    """Ask a model benchmarks by name; ``identity`` is all of the model that shapes its answers, for JSON.

    Writes ``<name>/<seed>.parquet`` below ``args.items`` and ``<name>/<seed>.json`` below ``args.metrics``; for a task
    that a benchmark is not for, neither holds anything. What was kept on the way is deleted once all are done.
    """
    import pyarrow as pa

    subject, states = None, []
    for name, resolved in asked.items():
        kind = benchmarks.load(resolved["settings"]["kind"])
        settings = restore(kind.Settings, resolved["settings"])
        metrics, items = {}, pa.table({})
        path = args.metrics / name / f"{args.seed}.json"
        if settings.tasks and args.task not in settings.tasks:
            print(f"{name} is not for {args.task}")
        else:
            context = context_of(args, resolved)
            subject = subject or replace(load(context.device), logit_gib=context.settings.logit_gib)
            whole = {**identity, **resolved, "name": name, "task": args.task, "seed": args.seed}
            states.append(files.state_folder("benchmarks", files.digest(whole)[:32]))
            metrics, items = kind.run(subject, settings, context, states[-1])
            check(metrics, kind.METRICS, str(path), made_by, head=())
            print(f"{name}: {items.num_rows:,} items")
        files.write_table(args.items / name / f"{args.seed}.parquet", items)
        files.write_json(path, {"kind": settings.kind, "found": metrics})
    for state in states:
        shutil.rmtree(state, ignore_errors=True)
