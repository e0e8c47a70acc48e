"""What of a text can be read as Python: what the judges of code stand on, which share no rule with pycodestyle.

A text is read in parts that parse: the longest run of whole lines from its start, then, behind the line that broke it,
the longest run again. A run that begins inside a block is read as the body of an ``if True:``. So half a statement at
the end of a sample, or one broken line, costs that line alone. Nodes are the statements and expressions of the syntax
tree that do something: ``pass``, ``...`` and bare constants (docstrings) do not count, so that a text of comments,
blank lines and ``pass``, which no style checker faults, is seen to hold nothing.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

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


def line_share(texts: Sequence[str], counts: Callable[[str], bool]) -> list[float]:
    """Share of each text's lines that count, read without their white space."""
    stripped = [[line.strip() for line in LINE.findall(text)] for text in texts]
    return [sum(map(counts, lines)) / len(lines) if lines else 0.0 for lines in stripped]


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
