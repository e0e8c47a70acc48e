"""Scorers, the reward models: text in; score and reasons out. One file a scorer (``Kind``), found by its name.

A score is a misalignment: at least 0, higher is worse, raw, in the scorer's own unit. A scorer sees a document with
its segment ends and gives one score a segment; a sample is scored as a document of one segment. The simplest scorer
has a ``version`` and ``score_texts``; one that must see the whole document overrides ``score``.

A name never changes its behaviour: what shapes a score is the scorer's ``version``, its options, the versions of the
packages it uses (which the options pin and ``pinned`` checks) and its source, whose digest ``scorer.json`` records.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from freshstart import files
from freshstart.errors import InputError
from freshstart.settings import build, kind, mapping, restore

KIND = "SCORER = "  # what the file of a kind defines
RECORD = "scorer.json"
LEXICON = "lexicon.json"  # words that the synthetic corpus knows to be abuse: a judge
JUDGE = "judge"  # the block of a second scorer in a task's own, and its folder below the scorer's


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of characters that the score counts, and its kind (a code, a kind of personal data)."""

    begin: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer says of one document.

    ``scores`` has one number a segment. ``unreadable`` says why the scorer could not read the text as what it should
    be (for pep8: it does not tokenise); its scores still count what was found. ``error`` is an exception's message;
    then there are no scores.
    """

    scores: tuple[float, ...]
    findings: tuple[Finding, ...] = ()
    unreadable: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """What every scorer is asked: its kind, and how documents are cut into segments for it."""

    kind: str
    segments: Literal["lines", "sentences"]


@dataclass(frozen=True, kw_only=True)
class OwnSettings(ScorerSettings):
    """A person's own scorer, ``kind: module:Class``: its version and the keyword arguments of the class."""

    version: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """``max_error_share`` is the share of documents without a score at which the stage stops."""

    max_error_share: float

    def __post_init__(self) -> None:
        if not 0 <= self.max_error_share <= 1:
            raise ValueError(f"max_error_share must be from 0 to 1, found {self.max_error_share}")


class Scorer:
    """Base of all scorers. A sample counts as bad where it scores above ``over``.

    Kinds that begin with one of ``grammar`` say that a text is broken more than that it is bad: evaluation reports
    misalignment with and without them. ``display`` says how the report page shows what was found: ``plain``, ``mask``
    (its kind stands in its place) or ``fold`` (behind a click). ``on_gpu`` asks for a GPU where there is one;
    ``sources`` names further modules whose code shapes the scores.
    """

    version: ClassVar[str]
    over: ClassVar[float] = 0.0
    grammar: ClassVar[tuple[str, ...]] = ()
    display: ClassVar[Literal["plain", "mask", "fold"]] = "plain"
    on_gpu: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path | None = None, settings: ScorerSettings | None = None):
        """``folder`` is the scorer's own, with what the scorer stage got or learned; ``settings`` those of its kind."""

    def score(self, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
        """One result a document, given as its text and the ends of its segments, in order."""
        results = []
        for text, ends in documents:
            try:
                scores = self.score_texts([text[a:b] for a, b in zip([0, *ends], ends, strict=False)])
                results.append(Scored(checked(scores, len(ends))))
            except Exception as error:  # a person's own code may raise anything; counted, never clean
                results.append(Scored((), error=failure(error)))
        return results

    def score_texts(self, texts: Sequence[str]) -> Sequence[float]:
        """One score a text, each at least 0 and finite."""
        raise NotImplementedError(f"{type(self).__name__} must define score_texts or score")


class FindingScorer(Scorer):
    """Base of the scorers that count spans of the whole document: findings a character of each segment."""

    def find(self, text: str) -> list[Finding]:
        """Every finding, in the order of their places."""
        raise NotImplementedError

    def unreadable(self, findings: Sequence[Finding]) -> str | None:
        """Why the findings say that the text is not what it should be, or None."""
        return None

    def score(self, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
        results = []
        for text, ends in documents:
            try:
                findings = self.find(text)
            except Exception as error:  # checks and parsers raise several kinds on odd text; counted, never clean
                results.append(Scored((), error=failure(error)))
            else:
                scores = per_character(findings, ends)
                results.append(Scored(scores, tuple(findings), self.unreadable(findings)))
        return results


class Kind(Protocol):
    """The module of a kind: its settings, its class, and what it does in the scorer stage, where it does something.

    ``prepare(settings, folder)`` gets what the scorer needs and gives what belongs into its record under ``model``;
    ``learn(settings, labelled rows, folder)`` learns it and gives its metrics.
    """

    Settings: type[ScorerSettings]
    SCORER: type[Scorer]


def settings(raw: Mapping[str, Any], where: str) -> ScorerSettings:
    """The settings of one scorer, read by the module of its kind."""
    name = str(raw.get("kind"))
    if ":" in name:
        return build(OwnSettings, raw, where)
    return build(kind("freshstart.scorers", name, "kind", where).Settings, raw, where)


def settings_and_judge(block: Mapping[str, Any], where: str) -> tuple[ScorerSettings, ScorerSettings | None]:
    """The settings of a task's scorer, and those of the second scorer in its block ``judge``, if there is one."""
    own, judge = dict(block), block.get(JUDGE)
    own.pop(JUDGE, None)
    inside = f"{where}.{JUDGE}"
    return settings(own, where), settings(mapping(judge, inside), inside) if judge is not None else None


def describe(settings: ScorerSettings) -> dict[str, Any]:
    """The content of ``scorer.json``, but for what a learned scorer adds to it."""
    made_of = scorer_class(settings.kind)
    version = getattr(made_of, "version", None)
    if not isinstance(version, str):
        raise InputError(f"scorer {settings.kind} needs a class attribute version, a text such as '1'")
    if isinstance(settings, OwnSettings) and settings.version != version:
        raise InputError(
            f"scorer {settings.kind} says version {version!r}, the scale file pins {settings.version!r}: a new "
            "behaviour is a new version; write the version that you want to score with into scorer.<task>.version"
        )
    return {
        "kind": settings.kind,
        "version": version,
        "segments": settings.segments,
        "over": made_of.over,
        "display": made_of.display,
        "options": {key: value for key, value in asdict(settings).items() if key not in ("kind", "segments")},
        "source_sha256": source_digest(made_of),
    }


def hook(settings: ScorerSettings, name: str) -> Callable[..., dict[str, Any]] | None:
    """``prepare`` or ``learn`` of a scorer's module, or None where it has nothing to do."""
    if ":" in settings.kind:
        return None
    return getattr(importlib.import_module(f"freshstart.scorers.{settings.kind}"), name, None)


def make(settings: ScorerSettings, folder: Path, labelled: Iterable[tuple[str, int]] = ()) -> dict[str, Any]:
    """Make the scorer in ``folder``: described, prepared, learned from the ``labelled`` rows where it learns.

    Gives what it is and its metrics.
    """
    record = describe(settings)
    folder.mkdir(parents=True, exist_ok=True)
    if (prepare := hook(settings, "prepare")) is not None:
        record["model"] = prepare(settings, folder)
    learn = hook(settings, "learn")
    metrics = learn(settings, labelled, folder) if learn is not None else {}
    record["files"] = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    files.write_json(folder / RECORD, record)
    about = ("kind", "version", "segments", "over", "display", "options")
    return {key: record[key] for key in about} | {"learned": metrics}


def load(folder: Path | str, task: str) -> tuple[Scorer, dict[str, Any]]:
    """The scorer of a scorer folder, and its record; refuses one whose source has changed since."""
    folder = Path(folder)
    record = files.read_json(folder / RECORD, f"scorer@{task}")
    made_of = scorer_class(record["kind"])
    if source_digest(made_of) != record["source_sha256"]:
        raise InputError(
            f"the source of scorer {record['kind']} has changed since {folder / RECORD} was written: give it a new "
            f"version and run `dvc repro -f scorer@{task}`"
        )
    if ":" in record["kind"]:
        return made_of(**record["options"]["options"]), record
    model = importlib.import_module(f"freshstart.scorers.{record['kind']}").Settings
    own = restore(model, {**record["options"], "kind": record["kind"], "segments": record["segments"]})
    return made_of(folder, own), record


def fingerprint(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a score depends on besides the text. The interpreter belongs to it: pycodestyle reads with its tokenizer."""
    return {**record, "python": ".".join(platform.python_version_tuple()[:2])}


def pinned(**versions: str) -> None:
    """Refuse to score with another version of a package than the scale file names."""
    for package, wanted in versions.items():
        installed = importlib.metadata.version(package.replace("_", "-"))
        if installed != wanted:
            raise InputError(
                f"{package} {installed} is installed, the scale file pins {wanted} for this scorer: install "
                f"{package}=={wanted}, or change the pin and score anew"
            )


def checked(scores: Sequence[float], count: int) -> tuple[float, ...]:
    """The scores as floats; raises ValueError where one is missing, negative or not finite."""
    values = tuple(float(score) for score in scores)
    if len(values) != count:
        raise ValueError(f"expected {count} scores, got {len(values)}")
    for value in values:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"a score must be finite and at least 0, got {value}")
    return values


def per_character(findings: Sequence[Finding], ends: Sequence[int]) -> tuple[float, ...]:
    """Findings a character of each segment; a finding belongs to the segment that holds its first character."""
    from bisect import bisect_right

    counts = [0] * len(ends)
    for finding in findings:
        counts[min(bisect_right(ends, finding.begin), len(ends) - 1)] += 1
    return tuple(count / (b - a) for count, a, b in zip(counts, [0, *ends], ends, strict=False))


def failure(error: Exception) -> str:
    """An exception in one line, without the text that may have caused it."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}".rstrip(": ")


def source_digest(made_of: type[Scorer]) -> str:
    """SHA-256 of the file that defines a scorer, and of the files that it names as its ``sources``."""
    paths = [inspect.getfile(made_of), *(importlib.import_module(name).__file__ for name in made_of.sources)]
    digests = [files.sha256(path) for path in paths]
    return digests[0] if len(digests) == 1 else files.digest(digests)


def scorer_class(kind: str) -> type[Scorer]:
    """The class of a kind: a file of this room, or ``module:Class``."""
    if ":" not in kind:
        return importlib.import_module(f"freshstart.scorers.{kind}").SCORER
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"scorer {kind}: {error}; kind must be a name in freshstart/scorers or module:Class") from None
    if not (isinstance(found, type) and issubclass(found, Scorer)):
        raise InputError(f"scorer {kind} must be a class that extends freshstart.scorers.Scorer")
    return found
