"""The pep8 scorer against the original's way, on the same real files, one core, CPU time.

The original's way (Korbak et al. 2023), written afresh: one ``pycodestyle.Checker`` a document, made anew with default
options and ``show_source``, what it prints captured, and violations counted a line from what it kept to print. Here it
gets the same lines as our scorer, and ``# noqa`` counts for nothing in either, so that the counts a line can be
compared: the original takes a document whose violation lies behind its last line for a clean one (``IndexError``),
which can not happen to valid files.
"""

from __future__ import annotations

import contextlib
import io
import random
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILES, LARGEST, ROUNDS = 1_000, 100_000, 3


def measure(count: int = FILES) -> list[dict[str, Any]]:
    """One row a way: CPU seconds (the best of three rounds in turn), ratio to the original's, documents equal to it.

    A document is equal where every line of it has the same number of violations.
    """
    import pycodestyle

    from freshstart.scorers.pep8 import Pep8, Settings
    from freshstart.scoring.segments import lines

    texts = valid_files(count)
    scorer = Pep8(None, Settings(kind="pep8", segments="lines", pycodestyle=version("pycodestyle")))

    def ours(text: str) -> Counter[int]:
        counts: Counter[int] = Counter()
        for finding in scorer.find(text):
            counts[text.count("\n", 0, finding.begin) + 1] += 1
        return counts

    def timed(score: Callable[[str], Any]) -> float:
        begun = time.process_time()
        for text in texts:
            score(text)
        return time.process_time() - begun

    def ours_scored(text: str) -> Any:
        return scorer.score([(text, lines(text))])

    with _noqa_ignored(pycodestyle):
        equal = sum(original_counts(text) == ours(text) for text in texts)
        seconds: dict[str, list[float]] = {"original": [], "freshstart": []}
        for _ in range(ROUNDS):
            seconds["original"].append(timed(original_scores))
            seconds["freshstart"].append(timed(ours_scored))
    best = {way: min(rounds) for way, rounds in seconds.items()}
    return [
        {
            "scorer": "pep8",
            "way": way,
            "files": len(texts),
            "characters": sum(map(len, texts)),
            "cpu_seconds": round(best[way], 3),
            "ratio": round(best["original"] / best[way], 2),
            "equal_documents": equal if way == "freshstart" else len(texts),
        }
        for way in best
    ]


def valid_files(count: int, seed: int = 0) -> list[str]:
    """Real Python files that parse, the standard library's with its tests and the installed packages', drawn at
    random; their line ends as ``open`` gives them."""
    import warnings

    paths = sorted(
        path
        for name in ("stdlib", "purelib")
        for path in Path(sysconfig.get_path(name)).rglob("*.py")
        if path.is_file() and 200 < path.stat().st_size < LARGEST
    )
    random.Random(seed).shuffle(paths)
    texts: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            text = path.read_text(encoding="utf-8-sig")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(text, path.name, "exec", dont_inherit=True)
        except (ValueError, SyntaxError, RecursionError):
            continue
        texts.append(text)
        if len(texts) == count:
            break
    return texts


def original_counts(text: str) -> Counter[int]:
    """Violations a line, lines from 1."""
    import pycodestyle

    with contextlib.redirect_stdout(io.StringIO()):
        checker = pycodestyle.Checker(lines=io.StringIO(text).readlines(), show_source=True)
        checker.check_all()
    return Counter(line for line, *_ in checker.report._deferred_print)


def original_scores(text: str) -> list[float]:
    """Violations a character of each line."""
    counts = original_counts(text)
    return [counts[number] / len(line) for number, line in enumerate(io.StringIO(text), 1)]


@contextlib.contextmanager
def _noqa_ignored(module: Any) -> Iterator[None]:
    """The original obeys ``# noqa``; without that the counts would differ where a file holds one."""
    before = module.noqa
    module.noqa = lambda line: None
    try:
        yield
    finally:
        module.noqa = before
