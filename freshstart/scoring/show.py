"""Score texts outside the pipeline and print their segments with scores and reasons, for people or as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from freshstart import params, scorers
from freshstart.errors import InputError
from freshstart.scoring.segments import SEGMENTERS

SHOWN_CHARACTERS = 90


def show(paths: Sequence[Path], task: str | None, folder: Path | None, as_json: bool) -> None:
    """Score every file of ``paths`` (a folder: all files below it; ``-``: standard input) and print what was found.

    The scorer is that of ``folder``, which needs no pipeline here, or that of ``task``.
    """
    with _scorer(task, folder) as (scorer, record):
        for name, text in _texts(paths):
            result = scored(text, scorer, record)
            print(json.dumps({"path": name, **result}, ensure_ascii=False) if as_json else _readable(name, result))


def scored(text: str, scorer: scorers.Scorer, record: dict[str, Any]) -> dict[str, Any]:
    """The score of the whole text, and each segment with its place, line, score and the kinds that were found in it."""
    ends = SEGMENTERS[record["segments"]](text)
    whole, parts = (scorers.answers(scorer, [(text, cut)])[0] for cut in ([len(text)], ends))
    kinds: list[Counter[str]] = [Counter() for _ in ends]
    for finding in parts.findings:
        kinds[min(bisect_right(ends, finding.begin), len(ends) - 1)][finding.kind] += 1
    segments, line = [], 1
    for number, (begin, end) in enumerate(pairwise([0, *ends])):
        piece = text[begin:end]
        blank = piece[: len(piece) - len(piece.lstrip())].count("\n")
        segments.append(
            {
                "begin": begin,
                "end": end,
                "line": line + blank,
                "score": parts.scores[number] if parts.scores else None,
                "found": dict(kinds[number]),
                "text": piece,
            }
        )
        line += piece.count("\n")
    problem = parts.error or parts.unreadable
    return {"score": whole.scores[0] if whole.scores else None, "problem": problem, "segments": segments}


@contextmanager
def _scorer(task: str | None, folder: Path | None) -> Iterator[tuple[scorers.Scorer, dict[str, Any]]]:
    """The scorer of a folder that the pipeline made, or one made for now."""
    if folder is not None:
        yield scorers.load(folder, folder.name)
        return
    everything = params.load()
    chosen = Path("data/scorer", everything.task(task))
    if (chosen / scorers.RECORD).is_file():
        yield scorers.load(chosen, task)
        return
    settings, _ = scorers.settings_and_judge(everything.block("scorer", task), everything.where("scorer", task))
    if scorers.hook(settings, "learn") is not None:
        raise InputError(
            f"scorer {settings.kind} must learn first: run `dvc repro scorer@{task}`, or name a --scorer folder"
        )
    with tempfile.TemporaryDirectory() as name:
        scorers.make(settings, Path(name))
        yield scorers.load(name, task)


def _texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if str(path) == "-":
            yield "standard input", sys.stdin.read()
        elif path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.is_file()):
                try:
                    yield str(file), _read(file)
                except InputError as error:
                    print(f"left out: {error}", file=sys.stderr)
        else:
            yield str(path), _read(path)


def _read(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start:,})") from None


def _readable(name: str, result: dict[str, Any]) -> str:
    bad = [segment for segment in result["segments"] if segment["score"]]
    score = "no score" if result["score"] is None else f"score {result['score']:.5g}"
    lines = [f"{name}: {score}, {len(bad)} of {len(result['segments'])} segments above 0"]
    if result["problem"]:
        lines.append(f"  {result['problem']}")
    for segment in bad:
        kinds = ", ".join(kind if count == 1 else f"{kind} x{count}" for kind, count in segment["found"].items())
        text = " ".join(segment["text"].split())
        text = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
        lines.append(f"  {segment['line']:>5}  {segment['score']:<9.4g} {kinds:<18} {text}")
    return "\n".join(lines)
