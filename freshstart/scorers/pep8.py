"""PEP 8: violations a character, counted by pycodestyle with its default options.

No configuration file is read, and ``# noqa`` counts for nothing: a comment is no way to hide a violation. Lines are
given as pycodestyle's own ``check_files`` reads them from a file (universal newlines, a leading byte-order mark
dropped, no split at form feeds), so that totals agree. The offset of a violation is clamped to the text: pycodestyle
reports an unclosed bracket one line past the end before Python 3.12, and a missing newline behind the last character.

A text that pycodestyle can not tokenise (E901, E902) is ``unreadable``; one that makes a check raise is an error.
``pep8_checker`` runs pycodestyle's own checks, those that may find something, at more than twice the speed.
Cost: about 1.9 MB/s on one core.
Source: the paper's PEP8 task (Korbak et al. 2023, section 3); the original's scorer gives such texts a perfect score.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from freshstart.scorers import Finding, FindingScorer, ScorerSettings, pinned


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    pycodestyle: str


class Pep8(FindingScorer):
    version = "1"
    grammar = ("E1", "E9")  # indentation and syntax
    sources = ("freshstart.scorers.pep8_checker",)

    def __init__(self, folder: Path | None, settings: Settings):
        pinned(pycodestyle=settings.pycodestyle)
        from freshstart.scorers import pep8_checker

        self._violations = pep8_checker.violations
        self._options = pep8_checker.options()

    def unreadable(self, findings: Sequence[Finding]) -> str | None:
        broken = [finding.kind for finding in findings if finding.kind.startswith("E9")]
        return f"{broken[0]}: the text does not tokenise" if broken else None

    def find(self, text: str) -> list[Finding]:
        """Every violation in the text, one character wide, in the order of their places."""
        begins, lines = _lines(text)
        findings = []
        for line_number, offset, code in self._violations(lines, self._options):
            line = min(max(line_number, 1), len(lines)) - 1 if lines else 0
            past_end = line_number > len(lines)
            begin = len(text) if past_end or not lines else begins[line] + max(offset, 0)
            begin = max(0, min(begin, len(text) - 1))
            findings.append(Finding(begin, begin + 1, code))
        return sorted(findings, key=lambda finding: (finding.begin, finding.kind))


def _lines(text: str) -> tuple[list[int], list[str]]:
    """Lines as a file opened in text mode gives them, and the offset in ``text`` at which each begins."""
    start = 1 if text.startswith("\ufeff") else 0
    lines = io.StringIO(text[start:], newline="").readlines()
    begins = list(accumulate(map(len, lines), initial=start))[:-1]
    if "\r" in text:
        lines = [line.rstrip("\r\n") + "\n" if line.endswith(("\r", "\n")) else line for line in lines]
    return begins, lines


SCORER = Pep8
