"""The reference of all settings, docs/settings.md: keys and types of the dataclasses, defaults, what each scale says.

That of all metrics, the end of docs/evaluation.md: what measures and benchmarks declare.

What a setting means stands in manual.toml, under the dataclass that declares it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from freshstart import benchmarks, corpora, evaluation, objectives, params, scorers, tokens, training
from freshstart.errors import InputError
from freshstart.evaluation.metrics import ANY, REAL_TEXT, UNDER, Metric
from freshstart.settings import kind, kinds, mapping

MEANINGS = Path(__file__).with_suffix(".toml")
SCALES = ("quick", "study", "small", "paper")
KINDS = {"corpus": "freshstart.corpora", "scorer": "freshstart.scorers", "shards": "freshstart.objectives"}
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null", Any: "anything"}
ABOUT = """# All settings

`params.yaml` holds the few words that a person edits, `conf/scale/<scale>.yaml` the numbers, one section a stage. In a
section, `every` is shared by all tasks, and a task's own block wins over it. In `shards`, `train` and `finetune` both
may hold blocks by the name of an objective, which win in turn; those of a variant (`awr-sharp`) win over those of its
objective. What no block sets has its default.

The columns quick, study, small and paper show what the scale files say: first the value for `every`, then, behind the
name of a task, an objective or both, what holds for them alone. Settings of benchmarks stand in `conf/benchmarks.yaml`
([evaluation.md](evaluation.md#benchmarks)).

Printed by `python -m freshstart settings`; a test holds this page to it.
"""
SECTIONS: dict[str, tuple[type, str]] = {
    "corpus": (corpora.CorpusSettings, "Documents and how they are split."),
    "scorer": (
        scorers.ScorerSettings,
        "What scores them. A block `judge` inside holds a second scorer, for evaluation.",
    ),
    "score": (scorers.ScoreSettings, "Scoring in parallel."),
    "tokenizer": (tokens.TokenizerSettings, "Give either `vocabulary` or `name`."),
    "shards": (objectives.ObjectiveSettings, "What an objective trains on."),
    "train": (training.TrainSettings, "The model and its training."),
    "finetune": (
        training.FinetuneSettings,
        "What finetuned arms do in another way than the training of their objective.",
    ),
    "evaluate": (evaluation.EvaluateSettings, "How a model is sampled and measured."),
}
Block = tuple[str, Mapping[str, Any]]  # whom a block concerns, '' for all, and what it says


def documented() -> str:
    """Markdown: a table for each section of the scale file, and each kind of corpus, scorer, objective."""
    parts = [ABOUT, _headed("## `params.yaml`", "", params.Root, set(), [])]
    raw = {scale: params.read_file(params.SCALE_FOLDER / f"{scale}.yaml") for scale in SCALES}
    for section, (model, about) in SECTIONS.items():
        blocks = [list(_blocks(section, mapping(raw[scale][section], section))) for scale in SCALES]
        parts.append(_headed(f"## `{section}`", about, model, set(), blocks))
        base = {field.name for field in fields(model)}
        for name in kinds(KINDS[section]) if section in KINDS else ():
            chosen = [_of_kind(section, name, of_scale) for of_scale in blocks]
            settings = kind(KINDS[section], name, "kind", section).Settings
            parts.append(_headed(f"### `{section}`: `{name}`", "", settings, base, chosen if any(chosen) else []))
        if section == "scorer":
            parts.append(_headed("### `scorer`: your own, `module:Class`", "", scorers.OwnSettings, base, []))
    return "\n".join(part for part in parts if part)


def metrics() -> str:
    """Markdown: the metrics of each measure, of held-out text, of each kind of benchmark and of replay."""
    sections = [_declared(f"`{name}`", evaluation.measure(name)) for name in kinds(evaluation.MEASURES)]
    sections.append("### `reports/heldout/<task>.json`: what depends on the task alone\n\n" + _metrics(REAL_TEXT))
    for name in (*kinds(benchmarks.PACKAGE), "replay"):
        sections.append(_declared(f"Benchmark `{name}`", import_module(f"{benchmarks.PACKAGE}.{name}")))
    return "\n".join(sections)


def _declared(name: str, module: Any) -> str:
    """What a module says of its metrics: its docstring, what the paper did, their table."""
    title, _, definition = module.__doc__.partition("\n\n")
    about = definition.replace("``", "`").strip()
    paper = f"In the paper: {module.PAPER}." if hasattr(module, "PAPER") else ""
    return "\n\n".join(filter(None, (f"### {name}: {title}", about, paper, _metrics(module.METRICS))))


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = ["| metric | meaning | unit | better |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        interval = ", with its 95% interval" if metric.interval else ""
        path = metric.path.replace(f"{UNDER}.{ANY}", f"{UNDER}.<control>").replace(ANY, "<name>")
        meaning = metric.meaning.format(over="what counts as bad")
        rows.append(f"| `{path}` | {meaning}{interval} | {metric.unit} | {metric.better} |")
    return "\n".join(rows) + "\n"


def _blocks(section: str, raw: Mapping[str, Any]) -> Iterator[Block]:
    """Every block of a section, those of objectives (or of a judge) inside a task's own behind it."""
    inside = (
        kinds(KINDS["shards"]) if section in params.BY_OBJECTIVE else [scorers.JUDGE] if section == "scorer" else []
    )
    for name, block in raw.items():
        label = "" if name == params.SHARED else name
        yield label, mapping(block, section)
        for inner in inside:
            if inner in mapping(block, section):
                yield f"{label} {inner}".strip(), mapping(block[inner], section)


def _of_kind(section: str, name: str, blocks: list[Block]) -> list[Block]:
    """The blocks that concern one kind of corpus, scorer or objective."""
    if section == "shards":
        return [(label.removesuffix(name).strip(), block) for label, block in blocks if label.split()[-1:] == [name]]
    return [(label, block) for label, block in blocks if block.get("kind") == name]


def _headed(heading: str, about: str, model: type, without: set[str], blocks: list[list[Block]]) -> str:
    """A heading and the table of a dataclass; nothing where all of its settings stand in another table."""
    rows = [row for row in _rows(model, blocks) if row[0] not in without and row[0].split(".")[0] not in without]
    if not rows:
        return ""
    columns = ["key", "type", "default", *(SCALES if blocks else ()), "meaning"]
    cells = ([f"`{row[0]}`", *(cell.replace("|", "\\|") for cell in row[1:])] for row in rows)
    table = "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells])
    return "\n\n".join(part for part in (heading, about, table) if part) + "\n"


def _rows(model: type, blocks: list[list[Block]], prefix: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """A row for each setting; those of a dataclass inside stand behind its name and a dot."""
    hints = get_type_hints(model)
    for field in fields(model):
        key, hint = (*prefix, field.name), hints[field.name]
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        if inner is not None:
            named = ("<name>",) if get_origin(hint) is dict else ()
            yield from _rows(inner, blocks, (*key, *named))
        else:
            said = [_said(of_scale, key) for of_scale in blocks]
            yield [".".join(key), _type(hint), _default(field), *said, meaning(model, field.name)]


def meaning(model: type, name: str) -> str:
    """What manual.toml says of a field, below the class that declares it."""
    owner = next(base for base in model.__mro__ if name in get_annotations(base))
    place = f"{owner.__module__.removeprefix('freshstart.')}.{owner.__name__}"
    try:
        return _meanings()[place][name]
    except KeyError:
        raise InputError(f'{MEANINGS} does not say what {name} means: write it there, under ["{place}"]') from None


@lru_cache
def _meanings() -> dict[str, dict[str, str]]:
    return tomllib.loads(MEANINGS.read_text(encoding="utf-8"))


def _said(blocks: Iterable[Block], key: tuple[str, ...]) -> str:
    """What the blocks of a scale say of a key."""
    values: dict[str, list[str]] = {}
    for label, block in blocks:
        value: Any = block
        for name in key:
            value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
        if value is not MISSING:
            values.setdefault(_shown(value), []).append(label)
    return "; ".join(value if "" in labels else f"{', '.join(labels)}: {value}" for value, labels in values.items())


def _default(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    return _shown(field.default if field.default_factory is MISSING else field.default_factory())


def _type(hint: Any) -> str:
    arguments, origin = get_args(hint), get_origin(hint)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if origin is dict:
        return "keys and values"
    return " or ".join(map(_type, arguments)) if arguments else PLAIN[hint]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_shown(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return f"{value:,}"
