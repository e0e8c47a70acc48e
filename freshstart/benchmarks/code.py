"""Code: does what a model writes behind a prompt pass the problem's tests (HumanEval, Chen et al. 2021; MBPP alike)?

``samples`` completions are drawn for each problem, under the model's own control, and cut at the first of the strings
that end a function. Each is run behind its prompt and before its tests, in a sandbox (``sandbox.py``). With c of n that
passed,

    pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod over i from n - c + 1 to n of (1 - k / i)

is the unbiased estimate of the chance that one of k does (equation 1). Its mean and all intervals are over problems. A
prompt that leaves no room in the model's context is not completed, and counts as not solved.

Small models solve next to nothing. Beside it stand, of the problems that were completed: the share of completions that
are not blank and compile behind their prompt, their length, and misalignment, as the task's scorer finds it. Where it
counts findings these are the ones in completions, which are read behind their prompt and end with a line break, over
words as in samples; else it is the mean score of a completion alone.

Cost: HumanEval with 200 completions a problem is 32,800 programs; those of a problem that are equal run once. What was
drawn and run is kept in ``state`` by problem.
"""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from freshstart import files
from freshstart.benchmarks import FILE, BenchmarkSettings, ByItem
from freshstart.benchmarks.sandbox import PASSED, SYNTAX, Limits, runner, tried
from freshstart.errors import InputError
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.metrics import Metric
from freshstart.progress import Progress
from freshstart.scorers import Finding, FindingScorer, of_texts, pieces, segment_counts
from freshstart.scoring.segments import SEGMENTERS

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

Row = dict[str, Any]  # of one completion: problem, completion, end, compiles

KS = (1, 10, 100)
NO_ROOM = "no_room"
HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # Chen et al. 2021, section 2.1
MBPP_STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif")  # its completions begin with ``def``
METRICS = (
    Metric(
        "pass_at.*", "problems that one of so many solves", "share", "higher", title="pass@*", digits=3, interval=True
    ),
    Metric("pass_at.*.n", "problems", "problems"),
    Metric("compilable", "completions that compile", "share", "higher", title="compilable", interval=True),
    Metric("compilable.n", "problems", "problems"),
    Metric("misalignment", "of the completions", "score", "lower", title="misalignment", interval=True),
    Metric("misalignment.n", "problems with a completion that could be scored", "problems"),
    Metric("characters", "mean length of a completion", "characters", title="length", interval=True),
    Metric("characters.n", "problems", "problems"),
    Metric("ends.*", "completions by how they ended", "completions"),
    Metric("samples", "completions a problem", "completions"),
    Metric("sandbox", "what held the programs", "text"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    """``problems`` is a file in the format of HumanEval or MBPP, ``sha256`` its digest. A program may run for
    ``seconds`` and take ``memory_mib``. ``degraded`` runs programs where sandlock can not: see ``sandbox.py``."""

    problems: str
    sha256: str
    samples: int = 200
    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 300
    seconds: float = 10.0
    memory_mib: int = 512
    degraded: bool = False

    def __post_init__(self) -> None:
        if min(self.samples, self.max_new_tokens) < 1 or self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("samples and max_new_tokens must be at least 1, temperature above 0, top_p in (0, 1]")
        if self.seconds <= 0 or self.memory_mib < 64:
            raise ValueError("seconds must be above 0, and memory_mib at least 64")


@dataclass(frozen=True)
class Problem:
    """A prompt, the code that tests what stands behind it, a solution, and the strings that end a completion."""

    name: str
    prompt: str
    tests: str
    solution: str
    stop: tuple[str, ...]

    def program(self, completion: str) -> str:
        return f"{self.prompt}{completion}\n{self.tests}\n"


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    from freshstart.evaluation.statistics import estimate, rate

    limits = Limits(settings.seconds, settings.memory_mib)
    problems, held_by = read(settings.problems, settings.sha256), tried(limits, settings.degraded)
    n, draws, seed = settings.samples, context.settings.bootstrap, context.seed
    groups: list[list[Row]] = []
    with (
        runner(limits, settings.degraded) as run_programs,
        Progress("completing and running", len(problems), "problems") as progress,
    ):
        for place, problem in enumerate(problems):
            path = state / f"{place:05d}.json"
            rows = kept(path)
            if rows is None:
                ends = {"": NO_ROOM}
                compiles: dict[str, bool] = {"": False}
                texts = _completions(subject, problem, settings, context, place * n)
                if texts is not None:
                    compiles = {text: _compiles(problem.prompt + text) for text in texts}
                    able = [text for text, does in compiles.items() if does]
                    ran = run_programs([problem.program(text) for text in able])
                    ends = dict.fromkeys(compiles, SYNTAX) | dict(zip(able, ran, strict=True))
                rows = [
                    {"problem": problem.name, "completion": text, "end": ends[text], "compiles": compiles[text]}
                    for text in texts or [""] * n
                ]
                keep(path, rows)
            groups.append(rows)
            progress.advance()

    passed = [sum(row["end"] == PASSED for row in rows) for rows in groups]
    written = [rows for rows in groups if rows[0]["end"] != NO_ROOM]
    sound = [fmean(row["compiles"] and row["completion"].strip() != "" for row in rows) for rows in written]
    lengths = [fmean(len(row["completion"]) for row in rows) for rows in written]
    values, sizes = _misaligned(subject, context, problems, groups)
    metrics = {
        "pass_at": {str(k): estimate([pass_at(n, c, k) for c in passed], draws, seed) for k in KS if k <= n},
        "compilable": estimate(sound, draws, seed),
        "misalignment": rate(values, sizes, draws, seed),
        "characters": estimate(lengths, draws, seed),
        "ends": dict(Counter(row["end"] for rows in groups for row in rows)),
        "samples": n,
        "sandbox": held_by,
    }
    return metrics, pa.Table.from_pylist([row for rows in groups for row in rows])


def by_item(items: pa.Table, control: str) -> dict[str, ByItem]:
    """pass@1: the share of a problem's completions that pass."""
    ends: dict[Hashable, list[bool]] = {}
    for row in items.select(["problem", "end"]).to_pylist():
        ends.setdefault(row["problem"], []).append(row["end"] == PASSED)
    return {"pass_at.1": {problem: (fmean(passed), 1.0) for problem, passed in ends.items()}}


def pass_at(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the chance that one of ``k`` completions passes, where ``c`` of ``n`` did; k <= n."""
    return 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 1.0


def read(path: str, sha256: str) -> list[Problem]:
    """The problems of a file of JSON lines, which may be packed by gzip."""
    packed = Path(path)
    try:
        found, raw = files.sha256(packed), packed.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: fetch the problems, as docs/evaluation.md says") from None
    if found != sha256:
        raise InputError(f"{path} has the SHA-256 {found}, and {FILE} wants {sha256}: fetch it anew, or change sha256")
    try:
        text = (gzip.decompress(raw) if packed.suffix == ".gz" else raw).decode("utf-8")
        return [_problem(json.loads(line)) for line in text.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{path} holds no problems ({error!r}): expected JSON lines with the fields of HumanEval (task_id, prompt, "
            "canonical_solution, test, entry_point) or of MBPP (task_id, text or prompt, code, test_list)"
        ) from None


def _problem(row: Mapping[str, Any]) -> Problem:
    name = str(row["task_id"])
    if "entry_point" in row:
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        return Problem(name, row["prompt"], tests, row["canonical_solution"], HUMANEVAL_STOP)
    tests = [*row.get("test_imports", ()), row.get("test_setup_code", ""), *row["test_list"]]
    prompt = f'"""\n{row["text"] if "text" in row else row["prompt"]}\n{row["test_list"][0]}\n"""\n'
    return Problem(name, prompt, "\n".join(tests), row["code"], MBPP_STOP)


def _completions(
    subject: Subject, problem: Problem, settings: Settings, context: Context, first: int
) -> list[str] | None:
    """``samples`` completions, ``first`` the number of the first of them; None where the context has no room."""
    from freshstart.evaluation.subject import Sampling

    sampling = Sampling(
        settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        batch_size=context.settings.batch_size,
        stop=problem.stop,
    )
    try:
        drawn = subject.generate([problem.prompt] * settings.samples, subject.asked[0], sampling, context.seed, first)
    except ValueError:  # the prompt fills the context
        return None
    return [sampling.before_stop(text) for text in subject.tokenizer.decode_many(draw.tokens for draw in drawn)]


def _compiles(source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "completion", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def _misaligned(
    subject: Subject, context: Context, problems: Sequence[Problem], groups: Sequence[Sequence[Row]]
) -> tuple[list[float], list[float]]:
    """By problem with a completion that the scorer could read: findings and words, or the sum of the scores and how
    many they are."""
    from freshstart.evaluation.samples import counted

    scorer = context.scorer
    is_finder = isinstance(scorer, FindingScorer)
    values, sizes = [], []
    for problem, rows in zip(problems, groups, strict=True):
        texts = [row["completion"].rstrip("\n") + "\n" for row in rows if row["completion"].strip()]
        front = problem.prompt if is_finder else ""
        pairs: list[tuple[float, float]] = []
        for text, scored in zip(texts, of_texts(scorer, [front + text for text in texts]), strict=True):
            if scored.error is None and is_finder:
                cuts = SEGMENTERS[subject.segments](text)
                behind = [finding for finding in scored.findings if finding.begin >= len(front)]
                moved = [Finding(f.begin - len(front), f.end - len(front), f.kind) for f in behind]
                pairs.append(counted(pieces(text, cuts), segment_counts(moved, cuts)))
            elif scored.scores:
                pairs.append((scored.scores[0], 1))
        if pairs:
            values.append(sum(value for value, _ in pairs))
            sizes.append(sum(size for _, size in pairs))
    return values, sizes
