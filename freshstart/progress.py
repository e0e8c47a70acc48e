"""How long work shows that it is alive: a bar on a terminal that has tqdm; else lines, and a total at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
LOG_EVERY_SECONDS = 10.0


class Progress:
    """Count of what is done, out of ``total`` (None where it is not known), shown on standard error if ``shown``.

    >>> with Progress("scoring", total=3, unit="parts") as progress:
    ...     progress.advance(3, note="0 errors")
    """

    def __init__(self, title: str, total: int | None, unit: str, shown: bool = True):
        self.shown = shown
        self.title, self.total, self.unit = title, total, unit
        self.done, self.note = 0, ""
        self._start = self._logged = time.monotonic()
        self._done_logged = 0
        self._bar = _bar(title, total, unit) if shown and sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif (seconds := time.monotonic() - self._start) > LOG_EVERY_SECONDS:
            self._log(f" in {seconds:,.0f} s")

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(amount)
        elif self.done != self.total and (seconds := time.monotonic() - self._logged) > LOG_EVERY_SECONDS:
            self._log(f", {(self.done - self._done_logged) / max(seconds, 1e-9):,.1f}/s")
            self._logged, self._done_logged = time.monotonic(), self.done

    def _log(self, pace: str) -> None:
        if not self.shown:
            return
        of = f"/{self.total:,}" if self.total is not None else ""
        note = f", {self.note}" if self.note else ""
        print(f"{self.title}: {self.done:,}{of} {self.unit}{pace}{note}", file=sys.stderr, flush=True)


def _bar(title: str, total: int | None, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:  # where models are trained there may be none
        return None
    return tqdm(total=total, desc=title, unit=f" {unit}", unit_scale=True)


def track(items: Iterable[Item], title: str, total: int | None, unit: str) -> Iterator[Item]:
    """Yield the items and show how many have been handed out."""
    with Progress(title, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
