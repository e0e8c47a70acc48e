"""Scorers, the reward models: text in; score and reasons out. One file a scorer (``Kind``), found by its name.

A score is a misalignment: at least 0, higher is worse, raw, in the scorer's own unit. A scorer sees a document with
its segment ends and gives one score a segment; a sample is scored as a document of one segment. The simplest scorer
has a ``version`` and ``score_texts``; one that must see whole documents overrides ``scored``, or ``score`` for many.

A name never changes its behaviour: what shapes a score is the scorer's ``version``, its options, the versions of the
packages it uses (which the options pin and ``pinned`` checks) and its source, whose digest ``scorer.json`` records.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import platform
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from freshstart import files
from freshstart.errors import InputError, failure
from freshstart.settings import build, kind, mapping, restore

KIND = "SCORER = "  # what the file of a kind defines
RECORD = "scorer.json"
LEXICON = "lexicon.json"  # words that the synthetic corpus knows to be abuse: a judge
JUDGE = "judge"  # the block of a second scorer inside a task's own, and its folder below the scorer's
LARGEST = 3.4028234663852886e38  # of float32, in which scores are kept


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of characters that the score counts, and its kind (a code, a kind of personal data)."""

    begin: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer says of one document: one score a segment, or none and in ``error`` an exception's message.

    ``unreadable`` says why the text is not what it should be (for pep8: it does not tokenise); the scores still count
    what was found.
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
    """``max_error_share`` is the share of documents without a score at which the stage stops; ``document_seconds`` how
    long a document may take, and as long again for every further 20,000 characters."""

    max_error_share: float
    document_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_error_share <= 1:
            raise ValueError(f"max_error_share must be from 0 to 1, found {self.max_error_share}")
        if not 0 < self.document_seconds < math.inf:
            raise ValueError(f"document_seconds must be above 0 and finite, found {self.document_seconds}")


class Scorer:
    """Base of all scorers. A sample counts as bad where it scores above ``over``.

    Kinds of findings that begin with one of ``grammar`` say that a text is broken more than that it is bad: evaluation
    reports misalignment with and without them. ``display`` says how the report page shows what was found: ``plain``,
    ``mask`` (its kind stands in its place) or ``fold`` (behind a click). ``on_gpu`` asks for a GPU where there is one;
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
                results.append(self.scored(text, ends))
            except Exception as error:  # a person's code, checks and parsers may raise anything; counted, never clean
                results.append(Scored((), error=failure(error)))
        return results

    def scored(self, text: str, ends: Sequence[int]) -> Scored:
        """The result of one document; what it raises makes the document an error."""
        return Scored(checked(self.score_texts(pieces(text, ends)), len(ends)))

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

    def scored(self, text: str, ends: Sequence[int]) -> Scored:
        findings = self.find(text)
        return Scored(per_character(findings, ends), tuple(findings), self.unreadable(findings))


class Kind(Protocol):
    """The module of a kind. It may also define what it does in the scorer stage: ``prepare(settings, folder)``, which
    gets what the scorer needs and gives what belongs into its record under ``model``, and ``learn(settings, labelled
    rows, folder)``, which gives its metrics."""

    Settings: type[ScorerSettings]
    SCORER: type[Scorer]


def settings(raw: Mapping[str, Any], where: str) -> ScorerSettings:
    """The settings of one scorer, read by the module of its kind."""
    name = str(raw.get("kind"))
    return build(OwnSettings if ":" in name else kind(__name__, name, "kind", where).Settings, raw, where)


def settings_and_judge(block: Mapping[str, Any], where: str) -> tuple[ScorerSettings, ScorerSettings | None]:
    """The settings of a task's scorer, and those of the second scorer in its block ``judge``, if there is one."""
    scorer, judge, inside = dict(block), block.get(JUDGE), f"{where}.{JUDGE}"
    scorer.pop(JUDGE, None)
    return settings(scorer, where), settings(mapping(judge, inside), inside) if judge is not None else None


def describe(settings: ScorerSettings) -> dict[str, Any]:
    """The content of ``scorer.json``, but for what preparing and learning add to it."""
    scorer = scorer_class(settings.kind)
    version = getattr(scorer, "version", None)
    if not isinstance(version, str):
        raise InputError(f"scorer {settings.kind} needs a class attribute version, a text such as '1'")
    if isinstance(settings, OwnSettings) and settings.version != version:
        raise InputError(
            f"scorer {settings.kind} says version {version!r}, the scale file pins {settings.version!r}: a new "
            "behaviour is a new version; set scorer.<task>.version to the one that you want to score with"
        )
    return {
        "kind": settings.kind,
        "version": version,
        "segments": settings.segments,
        "over": scorer.over,
        "display": scorer.display,
        "options": {key: value for key, value in asdict(settings).items() if key not in ("kind", "segments")},
        "source_sha256": source_digest(scorer),
    }


def hook(settings: ScorerSettings, name: str) -> Callable[..., dict[str, Any]] | None:
    """``prepare`` or ``learn`` of a scorer's module, or None where it has nothing to do."""
    return None if ":" in settings.kind else getattr(_module(settings.kind), name, None)


def make(settings: ScorerSettings, folder: Path, labelled: Iterable[tuple[str, int]] = ()) -> dict[str, Any]:
    """Make the scorer in ``folder``: described, prepared, learned from the ``labelled`` rows where it learns; gives
    what it is and its metrics."""
    record = describe(settings)
    about = {key: value for key, value in record.items() if key != "source_sha256"}
    folder.mkdir(parents=True, exist_ok=True)
    if (prepare := hook(settings, "prepare")) is not None:
        record["model"] = prepare(settings, folder)
    learn = hook(settings, "learn")
    metrics = learn(settings, labelled, folder) if learn is not None else {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    record["files"] = {path.relative_to(folder).as_posix(): files.sha256(path) for path in paths}
    files.write_json(folder / RECORD, record)
    return {**about, "learned": metrics}


def record_of(folder: Path | str, task: str) -> dict[str, Any]:
    """What the scorer of a scorer folder is."""
    return files.read_json(Path(folder, RECORD), f"scorer@{task}")


def load(folder: Path | str, task: str) -> tuple[Scorer, dict[str, Any]]:
    """The scorer of a scorer folder, and its record; refuses one whose source or files have changed since."""
    folder, record = Path(folder), record_of(folder, task)
    scorer = scorer_class(record["kind"])
    if source_digest(scorer) != record["source_sha256"]:
        raise InputError(
            f"the source of scorer {record['kind']} has changed since {folder / RECORD} was written: give it a new "
            f"version and run `dvc repro -f scorer@{task}`"
        )
    for path, digest in ((folder / name, digest) for name, digest in record.get("files", {}).items()):
        if not path.is_file() or files.sha256(path) != digest:
            raise InputError(
                f"{path} is not the file that {RECORD} names: run `dvc checkout`, or `dvc repro -f scorer@{task}`"
            )
    if ":" in record["kind"]:
        return scorer(**record["options"]["options"]), record
    options = {**record["options"], "kind": record["kind"], "segments": record["segments"]}
    return scorer(folder, restore(_module(record["kind"]).Settings, options)), record


def fingerprint(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a score depends on besides the text. The interpreter belongs to it: pycodestyle reads with its tokenizer."""
    return {**record, "python": ".".join(platform.python_version_tuple()[:2])}


def pinned(**versions: str | None) -> None:
    """Refuse to score with another version of a package than the scale file names; None names none."""
    for package, wanted in versions.items():
        installed = importlib.metadata.version(package.replace("_", "-")) if wanted is not None else None
        if installed != wanted:
            raise InputError(
                f"{package} {installed} is installed, the scale file pins {wanted} for this scorer: install "
                f"{package}=={wanted}, or change the pin and score again"
            )


def pieces(text: str, ends: Sequence[int]) -> list[str]:
    """The segments of a text."""
    return [text[begin:end] for begin, end in pairwise((0, *ends))]


def answers(scorer: Scorer, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
    """What a scorer says of the documents, checked: an answer that can not be right is an error of its document."""
    results = list(scorer.score(documents))
    if len(results) != len(documents):
        raise InputError(
            f"{type(scorer).__name__}.score gave {len(results)} results for {len(documents)} documents: it must give "
            "one a document, in their order"
        )
    return [_checked(scored, *document) for scored, document in zip(results, documents, strict=True)]


def of_texts(scorer: Scorer, texts: Sequence[str]) -> list[Scored]:
    """``answers`` of texts, each as a document of one segment."""
    return answers(scorer, [(text, [len(text)]) for text in texts])


def _checked(scored: Any, text: str, ends: Sequence[int]) -> Scored:
    try:
        if not isinstance(scored, Scored) or not isinstance(scored.error or scored.unreadable or "", str):
            raise TypeError(f"expected a Scored, whose error is a text or None, got {scored!r:.100}")
        for finding in scored.findings:
            if not 0 <= index(finding.begin) <= index(finding.end) <= len(text) or not isinstance(finding.kind, str):
                raise ValueError(f"a finding must be a span from 0 to {len(text)} and its kind, got {finding!r:.100}")
        return scored if scored.error else replace(scored, scores=checked(scored.scores, len(ends)))
    except (AttributeError, TypeError, ValueError) as error:
        return Scored((), error=failure(error))


def checked(scores: Sequence[float], count: int) -> tuple[float, ...]:
    """The scores as floats; raises ValueError where one is missing or none, TypeError where one is no number."""
    values = tuple(scores)
    if len(values) != count:
        raise ValueError(f"expected {count} scores, got {len(values)}")
    if not all(map(math.isfinite, values)) or not (min(values, default=0) >= 0 and max(values, default=0) <= LARGEST):
        bad = next(float(value) for value in values if not 0 <= value <= LARGEST)
        raise ValueError(f"a score must be finite and at least 0, and fit a float32, got {bad}")
    return tuple(map(float, values))


def per_character(findings: Sequence[Finding], ends: Sequence[int]) -> tuple[float, ...]:
    """Findings a character of each segment."""
    counts = segment_counts(findings, ends)
    return tuple(count / (end - begin) for count, (begin, end) in zip(counts, pairwise((0, *ends)), strict=True))


def segment_counts(findings: Sequence[Finding], ends: Sequence[int]) -> list[int]:
    """Findings of each segment; a finding belongs to the segment that holds its first character."""
    counts = [0] * len(ends)
    for finding in findings:
        counts[min(bisect_right(ends, finding.begin), len(ends) - 1)] += 1
    return counts


def apart(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of their places; of those that overlap, the one that begins first, then the longer."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda finding: (finding.begin, -finding.end)):
        if not kept or finding.begin >= kept[-1].end:
            kept.append(finding)
    return kept


def source_digest(scorer: type[Scorer]) -> str:
    """SHA-256 of the file that defines a scorer, and of the files that it names as its ``sources``."""
    paths = [inspect.getfile(scorer), *(importlib.import_module(name).__file__ for name in scorer.sources)]
    digests = [files.sha256(path) for path in paths]
    return digests[0] if len(digests) == 1 else files.digest(digests)


def scorer_class(kind: str) -> type[Scorer]:
    """The class of a kind: a file of this room, or ``module:Class``."""
    if ":" not in kind:
        return _module(kind).SCORER
    module, _, name = kind.partition(":")
    try:
        scorer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"scorer {kind}: {error}; kind must be a name in freshstart/scorers or module:Class") from None
    if not (isinstance(scorer, type) and issubclass(scorer, Scorer)):
        raise InputError(f"scorer {kind} must be a class that extends freshstart.scorers.Scorer")
    return scorer


def _module(kind: str) -> Any:
    return importlib.import_module(f"{__name__}.{kind}")
