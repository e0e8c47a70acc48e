"""The fast checker finds what pycodestyle finds, violation by violation: on real files, broken ones and odd ones."""

import random

import pycodestyle
import pytest
from conftest import python_files, read

from freshstart.scorers import pep8_checker
from freshstart.scorers.pep8 import _lines

ODD = [
    *("\t", "\f", "\x0b", "\x85", "\u2028", "\ufeff", "\\\n", " ", "\n\n\n", "#", "#:", ";", ":", " ,", "=", "==None"),
    *("lambda", " l = 1", "\r", "'", '"""', "(", ")", "{", "print >>x", "async ", "in", "not x in y", "except:", "é"),
    *("0777", "f'{x!r:>{w}}'", "@", "->", ":=", "**", "-1", "  # noqa", "if x : pass", "def f( a = 1 ):", "x=x+1", "…"),
    "import os, sys",
]


class Report(pycodestyle.BaseReport):
    def init_file(self, *arguments):
        self.violations = []
        super().init_file(*arguments)

    def error(self, line_number, offset, text, check):
        if code := super().error(line_number, offset, text, check):
            self.violations.append((line_number, offset, code))
        return code


@pytest.fixture(autouse=True)
def noqa_hides_nothing(monkeypatch):
    monkeypatch.setattr(pycodestyle, "noqa", lambda line: None)


STYLE = pycodestyle.StyleGuide(reporter=Report, config_file=False).options


def plain(lines):
    """What pycodestyle itself finds, or the kind of exception that it raises."""
    report = Report(STYLE)
    try:
        pycodestyle.Checker("text.py", lines=list(lines), options=STYLE, report=report).check_all()
    except Exception as error:
        return type(error)
    return sorted(report.violations)


def fast(lines):
    try:
        return sorted(pep8_checker.violations(list(lines), pep8_checker.options()))
    except Exception as error:
        return type(error)


def check(text):
    _, lines = _lines(text)
    assert fast(lines) == plain(lines), repr(text[:2000])


def mutated(text, rng):
    """A piece of a file with a few things broken."""
    rows = text.splitlines(keepends=True)
    begin = rng.randrange(max(len(rows) - 40, 1))
    rows = rows[begin : begin + 40]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(rows))
        kind = rng.randrange(5)
        if kind == 0:
            del rows[at]
        elif kind == 1:
            rows[at] = " " * rng.randint(0, 9) + rows[at].lstrip()
        elif kind == 2:
            rows[at] = rows[at].replace(rng.choice([" ", ",", "(", "="]), rng.choice(["", "  ", "\t", ", "]))
        else:
            place = rng.randint(0, len(rows[at]))
            rows[at] = rows[at][:place] + rng.choice(ODD) + rows[at][place:]
        if not rows:
            break
    text = "".join(rows)
    return text[: rng.randint(1, max(len(text), 1))] if rng.random() < 0.3 else text


def test_real_files():
    for path in python_files(120):
        check(read(path))


def test_broken_files():
    rng = random.Random(0)
    texts = [read(path) for path in python_files(150)]
    for _ in range(700):
        check(mutated(rng.choice(texts), rng))


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "x = (1,\n", "\ufeffx=1\n", "if x:\n\ty=1\n        z=2\n", "x = '\n", "\\", "x\\\n"]
)
def test_odd_texts(text):
    check(text)


def test_one_long_line():
    check("x = [" + "1,  2 ," * 3_000 + "]\n")
    check("x = '" + "a" * 200_000 + "'\n")


def test_another_version_is_refused(monkeypatch):
    from freshstart.errors import InputError

    monkeypatch.setattr(pycodestyle, "__version__", "2.14.0")
    with pytest.raises(InputError, match=r"2\.1[45]\.0"):
        pep8_checker.options()
