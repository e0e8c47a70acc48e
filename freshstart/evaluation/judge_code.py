"""Judges of Python code that share no rule with pycodestyle: does it parse, how much code is there, what is wrong.

A text is read in parts that parse: the longest run of whole lines from its start, then, behind the line that broke it,
the longest run again. A run that begins inside a block is read as the body of an ``if True:``. So half a statement at
the end of a sample, or one broken line, costs that line alone. Nodes are the statements and expressions of the syntax
tree that do something: ``pass``, ``...`` and bare constants (docstrings) do not count, so that a text of comments,
blank lines and ``pass``, which no style checker faults, is seen to hold nothing.

``ruff`` is run once over all texts, as files of their parts in a temporary folder, with no configuration, no cache and
no ``# noqa``: pyflakes' rules (F), names (N) and likely bugs (B), none of them pycodestyle's. Left out is what blames
the cut: imports and exports whose use stands behind it (counting them, real files cut as samples are came out worst of
all), and a ``return`` or ``break`` whose block could not be read. Violations are counted by nodes, not by characters,
so that comments and blank lines dilute nothing; a text without a node gives it nothing to judge.
Cost: 1,000 samples of 350 characters in about 0.5 s.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from freshstart.errors import InputError

FAMILIES = ("F", "N", "B")
LEFT_OUT = ("F401", "F822", "F701", "F702", "F704", "F706")  # they blame the cut, not the code
TARGET = "py311"
WRAPPER = "if True:\n"
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # with its end; a form feed ends no line
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # of ast.parse; NUL bytes are a ValueError


@dataclass(frozen=True, slots=True)
class Code:
    """What of a text can be read as Python: its parts as one source that parses, and how much of the text they are."""

    whole: bool
    source: str
    characters: int
    nodes: int


@lru_cache(maxsize=16_384)
def read(text: str) -> Code:
    """The parts of a text that parse. Never raises."""
    lines = LINE.findall(text)
    parts: list[str] = []
    nodes = characters = at = 0
    while at < len(lines):
        end, source, tree = _longest(lines, at)
        if tree is not None:
            parts.append(source if source.endswith("\n") else source + "\n")
            nodes += _count(tree) - source.startswith(WRAPPER)  # the wrapper's own statement
            nodes -= source.startswith(WRAPPER)  # and its constant condition
            characters += sum(map(len, lines[at:end]))
        at = end if tree is not None else at + 1
    whole = _parsed(text) is not None
    return Code(whole, "".join(parts), characters, nodes)


def parses(texts: Sequence[str]) -> list[float]:
    """1 where the whole text is Python, else 0."""
    return [float(read(text).whole) for text in texts]


def code_size(texts: Sequence[str]) -> list[float]:
    """Nodes of the syntax tree in 1,000 characters of the text, whether they could be read or not."""
    return [1000 * read(text).nodes / len(text) for text in texts]


def comment_lines(texts: Sequence[str]) -> list[float]:
    """Share of lines that are a comment and nothing else."""
    return [_share(text, lambda line: line.startswith("#")) for text in texts]


def blank_lines(texts: Sequence[str]) -> list[float]:
    """Share of lines with nothing on them."""
    return [_share(text, lambda line: not line) for text in texts]


def ruff_version() -> str:
    try:
        return version("ruff")
    except PackageNotFoundError:
        raise InputError(
            "the judge ruff needs the package ruff: install it (pip install ruff), or leave it out of evaluate.judges"
        ) from None


def violations(texts: Sequence[str]) -> list[float | None]:
    """Violations of F, N and B in 100 nodes of the code that could be read; None where there is none."""
    from ruff import find_ruff_bin

    codes = [read(text) for text in texts]
    with tempfile.TemporaryDirectory(prefix="freshstart-judge-") as folder:
        for index, code in enumerate(codes):
            if code.nodes:
                Path(folder, f"sample_{index}.py").write_text(code.source, encoding="utf-8", newline="")
        command = [find_ruff_bin(), "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--quiet"]
        command += ["--output-format", "json", "--target-version", TARGET, "--select", ",".join(FAMILIES)]
        command += ["--ignore", ",".join(LEFT_OUT), folder]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise InputError(f"ruff ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[:300]}")
    found = [one for one in json.loads(done.stdout) if (one["code"] or "").startswith(FAMILIES)]
    counts = Counter(Path(one["filename"]).name for one in found)
    return [100 * counts[f"sample_{index}.py"] / code.nodes if code.nodes else None for index, code in enumerate(codes)]


def _longest(lines: Sequence[str], begin: int) -> tuple[int, str, ast.Module | None]:
    """End of the longest run of lines from ``begin`` that parses, its source and its tree; None where not one does."""
    first = next((line for line in lines[begin:] if line.strip() and not line.lstrip().startswith("#")), "")
    wrapper = WRAPPER if first[:1] in (" ", "\t") else ""
    end = len(lines)
    while end > begin:
        source = wrapper + "".join(lines[begin:end])
        try:
            return end, source, _tree(source)
        except SyntaxError as error:
            named = end if error.lineno is None else begin + error.lineno - 1 - bool(wrapper)  # the line at fault
            end = min(end - 1, max(named, begin))
        except UNREADABLE:
            end -= 1
    return begin, "", None


def _parsed(text: str) -> ast.Module | None:
    try:
        return _tree(text)
    except UNREADABLE:
        return None


def _tree(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes in strings that Python does not know
        return ast.parse(source)


def _count(tree: ast.Module) -> int:
    idle = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.Pass) or (isinstance(outer, ast.Expr) and isinstance(outer.value, ast.Constant))
        for node in ast.walk(outer)
    }
    return sum(isinstance(node, ast.stmt | ast.expr) and id(node) not in idle for node in ast.walk(tree))


def _share(text: str, counts) -> float:
    lines = [line.strip() for line in LINE.findall(text)]
    return sum(map(counts, lines)) / len(lines) if lines else 0.0
