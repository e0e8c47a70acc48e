"""PEP 8: violations a character, counted by pycodestyle with its default options.

The checker runs in memory and reads no configuration file of the machine or of a project. ``# noqa`` counts for
nothing: a comment is no way to hide a violation. Lines are given as pycodestyle's own ``check_files`` reads them from
a file (universal newlines, a leading byte-order mark dropped, no split at form feeds), so that totals agree. The
offset of a violation is clamped to the text: pycodestyle reports an unclosed bracket one line past the end before
Python 3.12, and a missing newline behind the last character.

A text that pycodestyle can not tokenise (E901, E902) is ``unreadable``; one that makes a check raise is an error.
Cost: about 0.6 MB/s on one core, spread over many checks.
Source: the paper's PEP8 task (Korbak et al. 2023, section 3); the original's scorer gives such texts a perfect score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart.scorers import Finding, FindingScorer, ScorerSettings, pinned

_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    pycodestyle: str


class Pep8(FindingScorer):
    version = "1"
    grammar = ("E1", "E9")  # indentation and syntax

    def __init__(self, folder: Path | None = None, *, pycodestyle: str):
        pinned(pycodestyle=pycodestyle)
        import pycodestyle as checker

        class Report(checker.BaseReport):
            """Keeps every violation and prints none."""

            def init_file(self, *arguments: Any) -> None:
                self.found: list[tuple[int, int, str]] = []
                super().init_file(*arguments)

            def error(self, line_number: int, offset: int, text: str, check: Any) -> str | None:
                code = super().error(line_number, offset, text, check)
                if code:
                    self.found.append((line_number, offset, code))
                return code

        checker.noqa = lambda line: None
        self._checker = checker
        self._options = checker.StyleGuide(reporter=Report, config_file=False).options

    def unreadable(self, findings: Sequence[Finding]) -> str | None:
        broken = [finding.kind for finding in findings if finding.kind.startswith("E9")]
        return f"{broken[0]}: the text does not tokenise" if broken else None

    def find(self, text: str) -> list[Finding]:
        """Every violation in the text, one character wide, in the order of their places."""
        begins, lines = _lines(text)
        report = self._options.reporter(self._options)
        self._checker.Checker("text.py", lines=lines, options=self._options, report=report).check_all()
        found = []
        for line_number, offset, code in report.found:
            line = min(max(line_number, 1), len(lines)) - 1 if lines else 0
            past_end = line_number > len(lines)
            begin = len(text) if past_end or not lines else begins[line] + max(offset, 0)
            begin = max(0, min(begin, len(text) - 1))
            found.append(Finding(begin, begin + 1, code))
        return sorted(found, key=lambda finding: (finding.begin, finding.kind))


def _lines(text: str) -> tuple[list[int], list[str]]:
    """Lines as a file opened in text mode gives them, and the offset in ``text`` at which each begins."""
    start = 1 if text.startswith("\ufeff") else 0
    begins, lines = [], []
    for match in _NEWLINE.finditer(text, start):
        begins.append(start)
        lines.append(text[start : match.start()] + "\n")
        start = match.end()
    if start < len(text):
        begins.append(start)
        lines.append(text[start:])
    return begins, lines


SCORER = Pep8
