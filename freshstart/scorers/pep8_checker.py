"""pycodestyle's checker at more than twice its speed: the same violations at the same places, text by text.

pycodestyle asks 22 checks about every logical line and five about every physical one; hardly a line concerns more than
two of them. This checker leaves out the questions whose answer is no: each condition below follows from the source of
its check and is wider than it (a check that is asked in vain costs time only). What remains is judged by pycodestyle's
own functions on the same tokens. Lines that hold anything uncommon (a token that is none, white space other than
spaces, a backslash at the end of a row, a comment without a space before it) take pycodestyle's way in full, so that
the conditions need not think of them. ``# noqa`` counts for nothing.

The conditions are those of pycodestyle 2.15.0 with its default options; another version is refused.
Cost: about half a second a million characters on one core, two fifths of it in Python's own tokenizer (3.11).
"""

from __future__ import annotations

import keyword
import re
import tokenize
from bisect import bisect_left
from collections.abc import Iterable
from itertools import chain
from operator import itemgetter
from types import FunctionType
from typing import Any

import pycodestyle

from freshstart.errors import InputError

VERSION = "2.15.0"

_LAYOUT = pycodestyle.SKIP_TOKENS
_NOT_CODE = _LAYOUT | {tokenize.COMMENT}
_STRINGS = frozenset(
    kind
    for kind in (
        tokenize.STRING,
        *(pycodestyle.FSTRING_START, pycodestyle.FSTRING_MIDDLE, pycodestyle.FSTRING_END),
        *(pycodestyle.TSTRING_START, pycodestyle.TSTRING_MIDDLE, pycodestyle.TSTRING_END),
    )
    if kind >= 0  # -1 before the Python version that has it
)
_PARTED = _STRINGS - {tokenize.STRING}  # kinds of the parts of an f-string or a t-string
_PLAIN = _NOT_CODE | {tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING}
_COMMON = _PLAIN | _PARTED
_NAMES_AND_OPERATORS = frozenset((tokenize.NAME, tokenize.OP))
_ROW_ENDS = pycodestyle.NEWLINE
_NEWLINE, _OP, _COMMENT = tokenize.NEWLINE, tokenize.OP, tokenize.COMMENT

_ODD_SPACE = re.compile(r"[^\S \n]").search
_ODD_ROW = re.compile(r"[^\S \n\t]|[^\t\n]\t|\\\n?\Z").search

# In what follows, logical lines hold no white space but spaces; rows are joined by one, or by none at a bracket.
_AMBIGUOUS = frozenset("lOI")
_KEYWORDS = frozenset(keyword.kwlist)
_WORDS = _AMBIGUOUS | _KEYWORDS
_WORD_OPERATORS = frozenset(("and", "in", "is", "or"))
# A keyword with something other than a colon right behind it; an operator that is a word, without a space on a side.
_TIGHT_KEYWORD = re.compile(rf"(?:{'|'.join(keyword.kwlist)})(?:[^\w\s:]|:=)").search
_TIGHT_WORD_OPERATOR = re.compile(
    r"(?:and|in|is|or)(?:(?<=[^\w\s]and)|(?<=[^\w\s]in)|(?<=[^\w\s]is)|(?<=[^\w\s]or)|[^\w\s])"
    r"|(?<![\w.])(?=[\w.]*\d)[\w.]*(?:and|in|is|or)\b"  # 1or: the word may follow a number
).search
_O = r"[-+*/%&|^@<>=!]"
_NO = r"[^-+*/%&|^@<>=!\s]"
# A comma, semicolon or colon before anything but a space; an operator without a space on either side; two operators.
_TIGHT_OPERATOR = re.compile(
    r"[-+*/%&|^@<>=!,;:](?:"
    rf"(?<=,)[^\s)\]]|(?<=[;:])\S|(?<={_NO}{_O})|(?<={_O}){_NO}"
    rf"|(?<={_O})(?={_O})(?!=(?!{_O}))(?!(?<=-)>(?!{_O})))"
).search
# Two spaces, one inside a bracket or before a comma and the like, or one between a name and its bracket. (From
# Python 3.12 on any character beyond ASCII may belong to a name.)
_LOOSE = re.compile(r" (?:(?<=[\[({ ] )|(?=[\]}),;: ])|(?<=[^\x00-\x7f] )[(\[]|(?<=[\w\])}] )[(\[])").search
_OPENING = re.compile(r"[(\[]").search
# An equals sign after a space or an opening bracket, or before a space, a closing bracket or the end; no comparison.
_LOOSE_EQUALS = re.compile(r"=(?:(?<=[ (\[{]=)(?!=)|(?<![\w \])}\"'][=!<>]=)(?=[ )\]}])|\Z)").search
_TOP_LEVEL = ("async", "class", "def", "@")
_DEFINITIONS = ("def", "async", "class", "type")
_IMPORTS = ("import ", "from ", "lazy ")
_BLOCK = pycodestyle.STARTSWITH_INDENT_STATEMENT_REGEX.match

_CHECKS = {
    *("ambiguous_identifier", "bare_except", "blank_lines", "comparison_negative", "comparison_to_singleton"),
    *("comparison_type", "compound_statements", "continued_indentation", "explicit_line_join"),
    *("extraneous_whitespace", "imports_on_separate_lines", "indentation", "maximum_doc_length", "missing_whitespace"),
    *("missing_whitespace_after_keyword", "module_imports_on_top_of_file", "python_3000_invalid_escape_sequence"),
    *("whitespace_around_keywords", "whitespace_around_named_parameter_equals", "whitespace_around_operator"),
    *("whitespace_before_comment", "whitespace_before_parameters"),
    *("maximum_line_length", "tabs_obsolete", "tabs_or_spaces", "trailing_blank_lines", "trailing_whitespace"),
}


def options() -> Any:
    """pycodestyle's default options, no configuration file read; refuses a pycodestyle that this module can not know.

    Raises InputError for another version, or checks that something else has registered.
    """
    if pycodestyle.__version__ != VERSION:
        raise InputError(
            f"pycodestyle {pycodestyle.__version__} is installed, the pep8 scorer knows the checks of {VERSION}: "
            f"install pycodestyle=={VERSION}"
        )
    default = pycodestyle.StyleGuide(config_file=False).options
    names = {name for name, _, _ in (*default.physical_checks, *default.logical_checks, *default.ast_checks)}
    if names != _CHECKS:
        odd = ", ".join(sorted(names ^ _CHECKS))
        raise InputError(f"the pep8 scorer runs pycodestyle's own checks; not its own, or missing: {odd}")
    return default


def violations(lines: list[str], options: Any) -> list[tuple[int, int, str]]:
    """(line, offset, code) of every violation, line by line; within a logical line in no certain order.

    ``lines`` end in a line feed, but for the last; a byte-order mark is taken off the first one, in place. The line
    is from 1 and may lie behind the last. Raises what a check raises.
    """
    report = _Report(options)
    Checker("text.py", lines=lines, options=options, report=report).check_all()
    return report.violations


class _Report:
    """Keeps what is not ignored, and prints none."""

    def __init__(self, options: Any):
        self.violations: list[tuple[int, int, str]] = []
        self._ignored = options.ignore_code

    def error(self, line_number: int, offset: int, text: str, check: Any) -> None:
        code = text[:4]
        if not self._ignored(code):
            self.violations.append((line_number, offset, code))

    def increment_logical_line(self) -> None:
        pass


def _without_noqa(function: Any) -> Any:
    """The function, with a ``noqa`` that finds no such comment in place of its module's."""
    return FunctionType(function.__code__, {**function.__globals__, "noqa": lambda line: None}, function.__name__)


class Checker(pycodestyle.Checker):
    """One text's check. It depends on pycodestyle's state of a check, and leaves its module as it is."""

    build_tokens_line = _without_noqa(pycodestyle.Checker.build_tokens_line)
    maybe_check_physical = _without_noqa(pycodestyle.Checker.maybe_check_physical)

    def check_all(self, expected: Any = None, line_offset: int = 0) -> None:
        """Run the checks; the state at each of them is the one that pycodestyle's own ``check_all`` gives it."""
        self.total_lines = total = len(self.lines)
        self.line_number = 0
        self.indent_char = None
        self.indent_level = self.previous_indent_level = 0
        self.previous_logical = self.previous_unindented_logical_line = ""
        self.blank_lines = self.blank_before = 0
        self.noqa = False
        self._look_around()
        rows_joined = self._rows_joined
        tokens = self.tokens = []
        depth = 0
        previous = ""
        try:
            for token in tokenize.generate_tokens(self.readline):
                kind, text, start, _, line = token
                if kind in _NAMES_AND_OPERATORS:
                    if rows_joined and line.endswith("\\\n"):
                        self.maybe_check_physical(token, previous)
                    tokens.append(token)
                    if kind == _OP:
                        if text in "([{":
                            depth += 1
                        elif text in "}])":
                            depth -= 1
                elif start[0] > total:
                    break
                elif kind in _ROW_ENDS:
                    self.check_physical(line or previous)
                    tokens.append(token)
                    if not depth:
                        if kind != _NEWLINE and len(tokens) == 1:
                            self.blank_lines += 1
                            del tokens[0]
                        else:
                            self.check_logical()
                            tokens = self.tokens
                            if kind == _NEWLINE:
                                self.blank_before = 0
                else:
                    if kind in _PARTED or "\n" in text or (rows_joined and line.endswith("\\\n")):
                        self.maybe_check_physical(token, previous)
                    tokens.append(token)
                previous = line
        except (SyntaxError, tokenize.TokenError):
            self.report_invalid_syntax()
        if self.tokens:
            self.check_physical(self.lines[-1])
            super().check_logical()  # what stands behind the last token is none: no condition can see it

    def _look_around(self) -> None:
        """What the text holds anywhere; most texts hold none of it, and then no line is asked."""
        text = "".join(self.lines)
        self._backslashes = "\\" in text
        self._rows_joined = self._backslashes and ("\\\n" in text or text.endswith("\\"))
        self._odd_rows: frozenset[int] = frozenset()
        if self._rows_joined or _ODD_SPACE(text):
            self._odd_rows = frozenset(row for row, line in enumerate(self.lines, 1) if _ODD_ROW(line))

    def check_physical(self, line: str) -> None:
        row = line.rstrip("\n")
        if (
            len(row) > self.max_line_length
            or row[-1:].isspace()
            or "\t" in row
            or self.line_number == self.total_lines
            or (row[:1] == " " != self.indent_char)
        ):
            super().check_physical(line)

    def check_logical(self) -> None:
        tokens = self.tokens
        first, last = tokens[0][2][0], tokens[-1][3][0]
        one_row = first == last
        kinds = {token[0] for token in tokens}
        if (
            not kinds <= _COMMON
            or (self._odd_rows and not self._odd_rows.isdisjoint(range(first, last + 1)))
            or (_COMMENT in kinds and not all(map(self._is_apart, tokens)))
        ):
            super().check_logical()
            return
        at = 0
        while tokens[at][0] in _LAYOUT:
            at += 1
            if at == len(tokens):
                return  # nothing but layout: it is judged with the line that follows
        row, column = tokens[at][2]
        before = self.lines[row - 1][:column]
        if column < 0 or (one_row and not self.lines[row - 1].startswith(tokens[at][1], column)):
            super().check_logical()  # places that Python 3.13 loses behind an f-string it can not read
            return
        self.indent_level = column if not before.strip(" ") else pycodestyle.expand_indent(before)
        if self.blank_before < self.blank_lines:
            self.blank_before = self.blank_lines
        self._mapping = None
        self.logical_line = line = self._logical_line(kinds, at, one_row)
        if self._mapping and "\n" in line:  # what some tokenizers make of an f-string
            super().check_logical()
            return
        for offset, text in chain.from_iterable(self._suspected(line, kinds, one_row)):
            row, column = offset if isinstance(offset, tuple) else self._place(offset)
            self.report_error(row, column, text, None)
        if line:
            self.previous_indent_level = self.indent_level
            self.previous_logical = line
            if not self.indent_level:
                self.previous_unindented_logical_line = line
        self.blank_lines = 0
        self.tokens = []

    def _logical_line(self, kinds: set[int], at: int, one_row: bool) -> str:
        """The code from token ``at`` on, with its strings muted and without comments.

        On one row that is a part of the row.
        """
        tokens = self.tokens
        if one_row and kinds <= _PLAIN:
            end = len(tokens) - 1
            while end >= at and tokens[end][0] in _NOT_CODE:
                end -= 1
            if end < at:
                return ""
            row, begin = tokens[at][4], tokens[at][2][1]
            if row == tokens[end][4]:
                if tokenize.STRING not in kinds:
                    return row[begin : tokens[end][3][1]]
                parts = []
                for kind, text, start, stop, _ in tokens:
                    if kind == tokenize.STRING:
                        parts += row[begin : start[1]], pycodestyle.mute_string(text)
                        begin = stop[1]
                parts.append(row[begin : tokens[end][3][1]])
                return "".join(parts)
        self._mapping = self.build_tokens_line()
        return self.logical_line

    def _is_apart(self, token: tokenize.TokenInfo) -> bool:
        """Whether a comment begins its row or has a space before it; true for any other token."""
        row, column = token[2]
        return token[0] != _COMMENT or column == 0 or (column > 0 and self.lines[row - 1][column - 1 : column] == " ")

    def _place(self, offset: int) -> tuple[int, int]:
        """Row and column of an offset in the logical line."""
        if self._mapping is None:
            self._mapping = self.build_tokens_line()
        begin, (row, column) = self._mapping[bisect_left(self._mapping, offset, key=itemgetter(0))]
        return row, column + offset - begin

    def _suspected(self, line: str, kinds: set[int], one_row: bool) -> list[Iterable[tuple[Any, str]]]:
        """What those checks find that may find something in the logical line."""
        tokens, level, lower = self.tokens, self.indent_level, self.previous_indent_level
        previous, previous_unindented = self.previous_logical, self.previous_unindented_logical_line
        answers: list[Iterable[tuple[Any, str]]] = []
        ask = answers.append
        if (
            self.blank_lines > 1
            or line.startswith(_TOP_LEVEL)
            or (self.blank_lines and previous.startswith("@"))
            or (line and not level and previous_unindented.startswith(("def ", "class ")))
        ):
            ask(
                pycodestyle.blank_lines(
                    *(line, self.blank_lines, level, self.line_number, self.blank_before),
                    *(previous, previous_unindented, lower, self.lines),
                )
            )
        if level % self.indent_size or (not lower < level <= lower + 4 if previous.endswith(":") else level > lower):
            ask(pycodestyle.indentation(line, previous, self.indent_char, level, lower, self.indent_size))
        if _COMMENT in kinds and (line or not all(map(_is_block_comment, tokens))):
            ask(pycodestyle.whitespace_before_comment(line, tokens))
        if one_row and not line:
            return answers

        if line.startswith("except"):
            ask(pycodestyle.bare_except(line, False))
        if "not " in line and (" in " in line or " is " in line):
            ask(pycodestyle.comparison_negative(line))
        if "==" in line or "!=" in line:
            if "None" in line or "True" in line or "False" in line:
                ask(pycodestyle.comparison_to_singleton(line, False))
            if "type" in line:
                ask(pycodestyle.comparison_type(line, False))
        if ";" in line or (
            -1 < line.find(":") < len(line) - 1 and ("lambda" in line or (_BLOCK(line) and not line.startswith("def ")))
        ):
            ask(pycodestyle.compound_statements(line))
        if line.startswith("import "):
            ask(pycodestyle.imports_on_separate_lines(line))
        if not level and line:
            state = self._checker_states.setdefault("module_imports_on_top_of_file", {})
            if not state.get("seen_non_imports") or line.startswith(_IMPORTS):
                ask(pycodestyle.module_imports_on_top_of_file(line, level, state, False))

        texts = {token[1] for token in tokens}
        strings = not kinds.isdisjoint(_STRINGS)
        words = texts & _WORDS
        if words and not words.isdisjoint(_AMBIGUOUS):
            ask(pycodestyle.ambiguous_identifier(line, tokens))
        if not one_row:
            ask(
                pycodestyle.continued_indentation(
                    *(line, tokens, level, self.hang_closing, self.indent_char, self.indent_size, False, 0)
                )
            )
            if self._rows_joined:
                ask(pycodestyle.explicit_line_join(line, tokens))
        if (
            _TIGHT_OPERATOR(line)
            or (strings and not one_row)
            or (words and not words.isdisjoint(_WORD_OPERATORS) and _TIGHT_WORD_OPERATOR(line))
        ):
            ask(pycodestyle.missing_whitespace(line, tokens))
        if words and _TIGHT_KEYWORD(line):
            ask(pycodestyle.missing_whitespace_after_keyword(line, tokens))
        if strings and (not kinds.isdisjoint(_PARTED) or (self._backslashes and any("\\" in text for text in texts))):
            ask(pycodestyle.python_3000_invalid_escape_sequence(line, tokens, False))
        if (
            "=" in texts
            and (opening := _OPENING(line))
            and (line.startswith(_DEFINITIONS) or _LOOSE_EQUALS(line, opening.start()))
        ):
            ask(pycodestyle.whitespace_around_named_parameter_equals(line, tokens))
        if _LOOSE(line):
            ask(pycodestyle.extraneous_whitespace(line))
            ask(pycodestyle.whitespace_around_keywords(line))
            ask(pycodestyle.whitespace_around_operator(line))
            ask(pycodestyle.whitespace_before_parameters(line, tokens))
        elif line.startswith("@"):
            ask(pycodestyle.extraneous_whitespace(line))
        elif line.startswith(("(", "[")) and "" in texts:
            ask(pycodestyle.whitespace_before_parameters(line, tokens))
        return answers


def _is_block_comment(token: tokenize.TokenInfo) -> bool:
    """Whether a comment has nothing but spaces before it and one space after its sign; true for any other token."""
    return token[0] != _COMMENT or (token[1].startswith("# ") and not token[4][: token[2][1]].strip(" "))
