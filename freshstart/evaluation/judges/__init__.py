"""Held-out judges: how bad samples are to someone else than the scorer that the models were trained against.

A reward that was learned to please its scorer alone is gamed; that shows only to a judge that is no near copy of it.
One file each (``Kind``), found by its name. There are two kinds of them:

- ``rival``: it looks for the same badness by other means, and should fall when misalignment falls.
- ``guard``: it looks at what good samples must keep (for code: that it parses, that there is code at all, that names
  are defined), and must not get worse when misalignment falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from freshstart.scorers import Finding, ScorerSettings

KIND = "def judge("  # what the file of a judge defines
SYNTHETIC, SECOND = "a scorer learned from synthetic text", "a second scorer"
Score = Callable[[Sequence[str]], Sequence[float | None]]
Find = Callable[[str], "list[Finding]"]


@dataclass(frozen=True)
class Judge:
    """A judge: who it is with its version, what its number is, whether rival or guard, which way it is better.

    ``score`` gives one number a text, or None for a text that it has nothing to say of. ``find`` gives the spans found
    in one text, where it finds spans.
    """

    title: str
    unit: str
    role: Literal["rival", "guard"]
    better: Literal["lower", "higher"]
    score: Score
    find: Find | None = None


class Kind(Protocol):
    """The module of a judge.

    ``SUITS`` says which tasks it is asked of where evaluate.judges names nothing: those with a scorer of that kind, or
    learned from ``SYNTHETIC`` text, or with a ``SECOND`` scorer; None for none. ``judge(folder, task)`` makes it;
    ``folder`` is that of the task's scorer. Raises InputError where it can not be had.
    """

    SUITS: str | None
    judge: Callable[[Path, str], Judge]


def suited(scorer: ScorerSettings, second: ScorerSettings | None) -> set[str]:
    """What a judge may suit in a task with that scorer and, in its block ``judge``, that second one."""
    learned = {SYNTHETIC} if getattr(scorer, "labelled", None) == "synthetic" else set()
    return {scorer.kind, *learned, *({SECOND} if second is not None else ())}
