"""What a pipeline needs from outside, named before it is fetched: what, from where, how large, under which licence.

Whatever the settings name is listed, with whether it is at hand and how to look whether it is to be had: lists of
wheels, sets, models and tokenizers of the hub, Detoxify's weights, and what a person puts in place: files, and the
packages of benchmarks. Sizes and licences are those that the publishers state; ``PUBLISHED`` holds those of the scales
as they come, and of others the page is named. Nothing is fetched here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from freshstart import benchmarks, corpora, evaluation, files, params, scorers, tokens, training
from freshstart.corpora import Refusal, local, wheels
from freshstart.errors import InputError
from freshstart.scorers import ScorerSettings, learning, pii_names
from freshstart.settings import collected, listed

WHEEL_MB = 1.0  # the mean of the lists in conf/wheels
FILES_OPENED = 100  # of one pattern
SECONDS = 10  # for an answer from elsewhere
DATA = (".csv", ".json", ".jsonl", ".parquet", ".txt")  # ends of words that name a file in lm-eval's task files
PUBLISHED = {  # size in MB, and licence
    "google/civil_comments": (415, "CC0 1.0"),
    "bert-base-uncased": (1, "Apache-2.0"),
    "roberta-base": (2, "MIT"),
    "detoxify original": (438, "Apache-2.0"),
    "detoxify unbiased": (499, "Apache-2.0"),
    "openai-community/gpt2": (3, "MIT"),
    "openai-community/gpt2-xl": (6_430, "MIT"),
    "codeparrot/codeparrot-small": (2, "Apache-2.0"),
}
ENCODERS = {"original": "bert-base-uncased", "unbiased": "roberta-base", "multilingual": "xlm-roberta-base"}
ENCODERS |= {"original-small": "albert-base-v2", "unbiased-small": "albert-base-v2"}


@dataclass(frozen=True)
class Thing:
    """Something from outside. ``fetched``: a stage gets it by itself; else a person puts it in place.

    ``look`` raises InputError where it is not as the settings say, or is neither at hand nor to be had; it may ask the
    package index or the hub.
    """

    what: str
    where: str
    setting: str
    fetched: bool
    at_hand: bool
    look: Callable[[], object]
    size: float | None = None  # MB
    licence: str = "see its page"

    def __str__(self) -> str:
        size = f"{self.size:,.0f} MB" if self.size is not None else "size: see its page"
        state = "at hand" if self.at_hand else "to be fetched" if self.fetched else "MISSING, put it there"
        about = f"{size}, {self.licence}; " if self.fetched else ""
        return f"{self.what} ({self.where}): {about}{state} [{self.setting}]"


def things(everything: params.Params) -> list[Thing]:
    """Everything that the tasks' settings name from outside, each once."""
    found: dict[tuple[str, str], Thing] = {}
    for task in everything.root.tasks:
        for section in SECTIONS:
            for thing in section(everything, task):
                found.setdefault((thing.what, thing.where), thing)
    return list(found.values())


def wrong(setting: str, look: Callable[[], object]) -> list[str]:
    """What a look finds wrong, a line each, with the place in the settings in front."""
    lines: list[str] = []
    with collected(lines):
        look()
    return [f"{setting}: {line}" for line in lines]


def announced(everything: params.Params) -> str:
    """What the stages will fetch, in one message; empty where all is at hand."""
    missing = [thing for thing in things(everything) if not thing.at_hand]
    return (
        "\n".join([f"{everything.file} needs from outside:", *(f"- {thing}" for thing in missing)]) if missing else ""
    )


def table(pattern: str, columns: Sequence[str]) -> None:
    """Raises InputError where a path, folder or pattern means no file, or a first row lacks one of the columns."""
    matches = local.matching(pattern)
    if not matches:
        raise InputError(f"{pattern} holds no file")
    for path, is_document in matches[:FILES_OPENED]:
        for place, row in islice(local.rows(path, columns), 0 if is_document else 1):
            if isinstance(row, Refusal):
                raise InputError(f"{place}: {row.reason} ({row.detail})")


def _corpus(everything: params.Params, task: str) -> Iterator[Thing]:
    where = everything.where("corpus", task)
    settings = corpora.settings(everything.block("corpus", task), where)
    if isinstance(settings, local.Settings):
        columns = [name for name in (settings.text, settings.source) if name is not None]
        yield _file(settings.path, f"{where}.path", partial(table, settings.path, columns))
    elif isinstance(settings, wheels.Settings):
        yield _wheels(Path(settings.requirements), f"{where}.requirements")
    elif hasattr(settings, "revision"):
        listing = files.state_folder("hub") / f"datasets--{settings.name.replace('/', '--')}/snapshots"
        at_hand = (listing / settings.revision).is_dir()
        place = f"huggingface.co/datasets/{settings.name} at {settings.revision[:12]}"
        known = PUBLISHED.get(settings.name, ())
        yield Thing(f"the set {settings.name}", place, where, True, at_hand, lambda: None, *known)
    for path in settings.benchmarks:
        yield _file(path, f"{where}.benchmarks", partial(local.matching, path))


def scorers_of(everything: params.Params, task: str) -> Iterator[tuple[ScorerSettings, str]]:
    """The settings of a task's scorer and, where it has one, of its judge, with where they stand."""
    where = everything.where("scorer", task)
    both = scorers.settings_and_judge(everything.block("scorer", task), where)
    return ((one, place) for one, place in zip(both, (where, f"{where}.{scorers.JUDGE}"), strict=True) if one)


def _scorers(everything: params.Params, task: str) -> Iterator[Thing]:
    for settings, where in scorers_of(everything, task):
        yield from _of_scorer(settings, where)


def _of_scorer(settings: ScorerSettings, where: str) -> Iterator[Thing]:
    if isinstance(settings, learning.Settings) and settings.labelled != "synthetic":
        look = partial(table, settings.labelled, [settings.text, settings.label])
        yield _file(settings.labelled, f"{where}.labelled", look)
    if settings.kind == "detoxify":
        variant, checkpoint, encoder = (getattr(settings, name) for name in ("variant", "checkpoint", "encoder"))
        if checkpoint is not None:
            yield _file(checkpoint, f"{where}.checkpoint")
        else:
            url, places = weights(variant)
            at_hand, name = any(path.is_file() for path in places), f"detoxify {variant}"
            look = partial(_released, url, places)
            yield Thing(f"{name}, weights", url, f"{where}.variant", True, at_hand, look, *PUBLISHED.get(name, ()))
        yield _model(encoder or ENCODERS[variant], None, "configuration and tokenizer", f"{where}.encoder", "config*")
    elif settings.kind == "hf_classifier":
        yield _model(settings.model, settings.revision, "model", f"{where}.model")
    elif (start := getattr(settings, "start", "scratch")) != "scratch":
        yield _model(start, settings.revision, "model", f"{where}.start")
    if (names := getattr(settings, "names", None)) is not None:
        look = partial(pii_names.model_folder, names)
        place = f"a folder, or `pip install` of a wheel of {pii_names.RELEASES}"
        yield Thing(f"the spaCy pipeline {names.model}", place, f"{where}.names", False, _has(look), look)


def _tokenizer(everything: params.Params, task: str) -> Iterator[Thing]:
    settings = everything.model(tokens.TokenizerSettings, "tokenizer", task)
    if settings.name is not None:
        where = everything.where("tokenizer", task, "name")
        yield _model(settings.name, settings.revision, "tokenizer", where, "tokenizer*")


def _training(everything: params.Params, task: str) -> Iterator[Thing]:
    for objective in everything.root.objectives:
        settings = everything.model(training.TrainSettings, "train", task, objective)
        if settings.start is not None:
            yield _model(settings.start, settings.revision, "model", everything.where("train", task, "start"))


def _evaluation(everything: params.Params, task: str) -> Iterator[Thing]:
    settings = everything.model(evaluation.EvaluateSettings, "evaluate", task)
    for name in ("gold", "prompts"):
        if (path := getattr(settings, name)) is not None:
            yield _file(path, everything.where("evaluate", task, name))
    reference = settings.reference
    if reference.model != evaluation.MLE and not reference.is_endpoint:
        where = everything.where("evaluate", task, "reference.model")
        yield _model(reference.model, reference.revision, "model", where)


def _external(everything: params.Params, task: str) -> Iterator[Thing]:
    for name, model in everything.root.external.hub.items():
        if model.task == task:
            yield _model(model.model, model.revision, "model", f"{params.ROOT_FILE}: external.hub.{name}.model")


def _benchmarks(everything: params.Params, task: str) -> Iterator[Thing]:
    """What benchmarks read, each with the first of its tasks."""
    for name in everything.root.benchmarks:
        settings = everything.benchmark(name)
        if task == (settings.tasks or everything.root.tasks)[0]:
            yield from _of_benchmark(settings, f"{benchmarks.FILE}: {name}", task)


def _of_benchmark(settings: Any, where: str, task: str) -> Iterator[Thing]:
    """Looks are those of the kind itself before it begins; but lm-eval, which takes long to start, is not asked."""
    kind: Any = benchmarks.load(settings.kind)
    for key in ("prompts", "texts"):
        if (path := getattr(settings, key, None)) is not None:
            yield _file(path, f"{where}.{key}", partial(kind.texts_of, path, key, task))
    if settings.kind == "code":
        yield _file(settings.problems, f"{where}.problems", partial(kind.read, settings.problems, settings.sha256))
        look = partial(kind.tried, kind.Limits(settings.seconds, settings.memory_mib), settings.degraded)
        at_hand = settings.degraded or find_spec("sandlock") is not None
        yield Thing("the package sandlock", "the package index", where, False, at_hand, look)
    elif settings.kind == "glue":
        sets = [partial(kind.read, name, Path(settings.data), settings.rows) for name in settings.sets]
        yield _file(settings.data, f"{where}.data", lambda: [read() for read in sets])
    elif settings.kind == "harness":
        package = [] if find_spec("lm_eval") else ["the package lm-eval"]
        look = partial(_all_here, package, "pip install 'freshstart[harness]'")
        yield Thing("the package lm-eval", "the package index", where, False, not package, look)
        words = [word for word in kind.beside(settings) if Path(word).suffix in DATA and "//" not in word]
        absent = [path for path in (settings.include_path, *words) if path and not Path(path).exists()]
        look = partial(_all_here, absent, f"what stands in {settings.include_path} says where they come from")
        if settings.include_path:
            yield Thing(f"data of {listed(settings.suites)}", "files here", where, False, not absent, look)
    elif settings.kind == "red_team" and settings.attacker != evaluation.MLE and "://" not in settings.attacker:
        yield _model(settings.attacker, settings.revision, "model", f"{where}.attacker")


def _all_here(absent: Sequence[str], remedy: str) -> None:
    if absent:
        others = f" and {len(absent) - 1} others are" if absent[1:] else " is"
        raise InputError(f"{absent[0]}{others} missing: {remedy}")


# Each gives what a task names there
SECTIONS = (_corpus, _scorers, _tokenizer, _training, _evaluation, _external, _benchmarks)


def weights(variant: str) -> tuple[str, list[Path]]:
    """The address of Detoxify's released weights, and where their file may lie: the state folder, torch.hub's cache."""
    import torch
    from detoxify.detoxify import MODEL_URLS

    url = MODEL_URLS[variant]
    folders = files.state_folder("weights"), Path(torch.hub.get_dir(), "checkpoints")
    return url, [folder / url.rsplit("/", 1)[1] for folder in folders]


def _file(path: str, setting: str, look: Callable[[], object] | None = None) -> Thing:
    at_hand = _has(partial(local.matching, path))
    return Thing(path, "a file or folder here", setting, False, at_hand, look or partial(_is_file, path))


def _is_file(path: str) -> bool:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")


def _model(name: str, revision: str | None, what: str, setting: str, pattern: str = "*model[-.]*") -> Thing:
    """A folder, or what the hub's cache holds of a repository at that commit."""
    from huggingface_hub.constants import HF_HUB_CACHE

    is_folder = Path(name).is_dir()
    snapshots = Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "snapshots")
    at_hand = is_folder or any(snapshots.glob(f"{revision or '*'}/{pattern}"))
    is_fetched = not is_folder and len(Path(name).parts) <= 2
    where = "a folder here"
    if is_fetched:
        where = f"huggingface.co/{name}" + (f" at {revision[:12]}" if revision else "")

    def look() -> None:
        from huggingface_hub import HfApi

        try:
            if not at_hand:
                HfApi().model_info(name, revision=revision, timeout=SECONDS)
        except Exception as error:  # the hub client raises many kinds, and refuses names that can be none of a model
            reason = scorers.failure(error)
            raise InputError(f"{name} is no folder here, and the hub does not give it ({reason})") from None

    known = PUBLISHED.get(name, ()) if is_fetched else ()
    return Thing(f"the {what} {name}", where, setting, is_fetched, at_hand, look, *known)


def _released(url: str, places: list[Path]) -> None:
    """Detoxify's released weights are at hand, or their address answers."""
    if not any(path.is_file() for path in places):
        try:
            urlopen(Request(url, method="HEAD"), timeout=SECONDS).close()
        except OSError as error:
            raise InputError(f"{url} does not answer ({scorers.failure(error)}): put it at {places[0]}") from None


def _wheels(requirements: Path, setting: str) -> Thing:
    """A list of wheels; where some are not at hand, the index answers for one of them."""
    if not requirements.is_file():
        raise InputError(f"{setting}: {requirements}: no such file")
    lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    pinned = {match["hash"]: match["name"] for line in lines if (match := wheels.REQUIREMENT.match(line))}
    folder = files.state_folder("wheels")
    at_hand = {files.sha256(path) for path in folder.glob("*.whl")}
    absent = [name for digest, name in pinned.items() if digest not in at_hand]

    def look() -> None:
        if not absent:
            return
        pip = [sys.executable, "-m", "pip", "--retries", "0", "--timeout", str(SECONDS), "index", "versions", absent[0]]
        asked = subprocess.run(pip, capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            reason = (asked.stderr.splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"{len(absent)} of the {len(pinned)} wheels of {requirements} are not in {folder}, and the package "
                f"index does not have {absent[0]} ({reason})"
            )

    where, licence = f"the package index, {requirements}", "each its own open-source licence"
    size = len(absent) * WHEEL_MB
    return Thing(f"{len(pinned)} wheels", where, setting, True, not absent, look, size, licence)


def _has(look: Callable[[], object]) -> bool:
    with suppress(InputError):
        return bool(look())
    return False
