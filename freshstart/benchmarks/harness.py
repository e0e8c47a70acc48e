"""Tasks of the Language Model Evaluation Harness by name: LAMBADA, BLiMP, wikitext's bits per byte and all others.

Requests, metrics, groups and standard errors are lm-eval's own (Gao et al. 2024; the extra ``harness``). A model
without control tokens gives the answers that lm-eval's ``hf`` gives for its folder. One with control tokens is asked
twice: under its own (``tasks``) and as if it had none (``without``); harness_model.py says how. The table of items has
what each document gave: a row for each task, control, document and metric; ``group`` is what the task is summed up in,
or the task itself. Its ``value`` is the number that the metric averages, or sums and divides by the sum of ``weight``
(bytes or words). Metrics that are no number a document, such as BLEU, have no row.

Data sets come from the hub or from local files: conf/harness has tasks that read files below raw.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart.benchmarks import BenchmarkSettings, ByItem
from freshstart.errors import InputError
from freshstart.evaluation.metrics import Metric
from freshstart.names import NO_CONTROL
from freshstart.settings import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from lm_eval.tasks import TaskManager

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

FEWSHOT_SEED = 1234  # lm-eval's own
DRAWS = (
    200  # of a bootstrap for a standard error (Efron and Tibshirani 1993, section 6.4); lm-eval's 100,000 take an hour
)
OF = "tasks.*"
METRICS = (
    Metric(f"{OF}.acc", "accuracy", "share", "higher", title="* acc", digits=3),
    Metric(f"{OF}.acc_norm", "accuracy by likelihood a byte", "share", "higher", title="* acc_norm", digits=3),
    Metric(f"{OF}.exact_match", "answers that match", "share", "higher", title="* exact match", digits=3),
    Metric(f"{OF}.perplexity", "perplexity of the answers", "", "lower", title="* perplexity", digits=1),
    Metric(f"{OF}.bits_per_byte", "bits per byte", "bits per byte", "lower", title="* bits per byte", digits=3),
    Metric(f"{OF}.*", "any other metric of a task, its standard error (`_se`), its documents (`n`)"),
    Metric("parts.*.*", "the same of each task of a group"),
    Metric("without.*.*", "the same as `tasks`, of a model with control tokens asked without them"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    """``suites`` are tasks, groups or tags of lm-eval, or of the task files in the folder ``include_path``.

    ``limit`` takes the first documents of each task alone. ``num_fewshot`` examples stand before each, where the task
    allows any; null takes the task's own number.
    """

    suites: tuple[str, ...]
    include_path: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None

    def __post_init__(self) -> None:
        if not self.suites or (self.limit or 1) < 1 or (self.num_fewshot or 0) < 0:
            raise ValueError("suites must name a task, limit be at least 1, num_fewshot at least 0")


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    try:
        from lm_eval.evaluator import evaluate
    except ModuleNotFoundError:
        raise InputError("harness needs a package that is an extra: pip install 'freshstart[harness]'") from None
    from freshstart.benchmarks.harness_model import HarnessModel

    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # lm-eval starts a process a core for a bootstrap of milliseconds
    loaded = _loaded(settings)
    metrics: dict[str, Any] = {}
    items: list[dict[str, Any]] = []
    for control in dict.fromkeys((subject.asked[0], NO_CONTROL)):
        model = HarnessModel(subject, control, context.seed, state)
        results = evaluate(model, loaded, limit=settings.limit, bootstrap_iters=DRAWS)
        summed = {part: name for name in results.get("groups", {}) for part in results["group_subtasks"][name]}
        found = {name: numbers for name, row in results["results"].items() if (numbers := _numbers(row))}
        tasks = {name: numbers for name, numbers in found.items() if name not in summed}
        if metrics:
            metrics["without"] = tasks
        else:
            metrics = {"tasks": tasks, "parts": {name: found[name] for name in summed if name in found}}
        for task, samples in results["samples"].items():
            items += _items(task, _top(task, summed), control, samples)
    return metrics, pa.Table.from_pylist(items)


def by_item(items: pa.Table, control: str) -> dict[str, ByItem]:
    """What each document of a task, or of a group's tasks, gave; not all metrics are the mean of that."""
    found: dict[str, dict[Hashable, tuple[float, float]]] = {}
    for row in items.to_pylist():
        if row["control"] == control:
            of = found.setdefault(f"tasks.{row['group']}.{row['metric']}", {})
            of[row["task"], row["doc_id"]] = row["value"], row["weight"]
    return found


def beside(settings: Settings) -> list[str]:
    """Paths and other words with a slash in the task files that name one of the suites: among them their data."""
    paths = sorted(Path(settings.include_path).rglob("*.y*ml")) if settings.include_path else []
    texts = [path.read_text(encoding="utf-8") for path in paths]
    own = [text for text in texts if set(settings.suites) & set(re.findall(r"[\w-]+", text))]
    return [word for text in own for word in re.findall(r"[^\s,'\"{}\[\]]+", text) if "/" in word]


def _loaded(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tasks and groups with their data, as ``evaluate`` wants them."""
    if settings.include_path and not Path(settings.include_path).is_dir():
        raise InputError(f"include_path {settings.include_path} is no folder: name one that holds task files")
    manager = _known(settings.include_path)
    loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in settings.suites:
        if name not in manager.task_index:
            near = listed(difflib.get_close_matches(name, manager.all_tasks)) or "none is near"
            raise InputError(f"lm-eval and include_path know no task {name}; the nearest: {near}")
        try:
            for key, values in manager.load(name).items():
                loaded[key].update(values)
        except (OSError, ValueError) as error:  # what ``datasets`` raises where data is missing or can not be read
            raise InputError(
                f"a data set of {name} can not be had: {str(error).splitlines()[0]:.300}. Put the file there, or "
                "download it once where there is a network (to the folder HF_HOME), and set HF_HUB_OFFLINE=1 here"
            ) from None
    for task in loaded["tasks"].values():  # as lm-eval's own command line does
        own = task.get_config("num_fewshot")
        if own != 0:
            task.set_config(
                key="num_fewshot", value=(own or 0) if settings.num_fewshot is None else settings.num_fewshot
            )
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return loaded


@lru_cache
def _known(include_path: str | None) -> TaskManager:
    """All tasks by name, read once a process: lm-eval has 14,000 task files, which take some ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    """What lm-eval says of a task or group, by our names; empty of a group that it does not sum up."""
    numbers: dict[str, float | None] = {}
    for key, value in row.items():
        metric, _, way = key.partition(",")
        if way:
            name = _name(metric.removesuffix("_stderr"), way) + ("_se" if metric.endswith("_stderr") else "")
            numbers[name] = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return numbers | {"n": row["sample_len"]} if numbers else {}


def _top(task: str, summed: Mapping[str, str]) -> str:
    """The group whose number a task's documents make up, the outermost one; the task itself where there is none."""
    while task in summed:
        task = summed[task]
    return task


def _items(task: str, group: str, control: str, samples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        for metric in sample["metrics"]:
            value = sample[metric]
            value, weight = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
            if isinstance(value, int | float) and isinstance(weight, int | float):
                yield {
                    "group": group,
                    "task": task,
                    "control": control,
                    "doc_id": sample["doc_id"],
                    "metric": _name(metric, sample["filter"]),
                    "value": float(value),
                    "weight": float(weight),
                }


def _name(metric: str, way: str) -> str:
    """A metric, and by which filter its answers were read where the task has several."""
    return metric if way == "none" else f"{metric}_{way}"
