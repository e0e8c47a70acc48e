"""Scales, ticks and a drawing: the few parts that figures of SVG need.

Text is styled by the page's style sheet and coordinates are rounded to a tenth, so that a figure is small and equal
numbers give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

LETTER = 6.7  # pixels of an average letter at the style sheet's size, rather too wide than too narrow
LINE = 14.0
UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"), (0.0, 1.0, ""))  # from where on; four digits are short
SPELLED = {"kind": "class", "anchor": "text-anchor"}  # attributes that are no names in Python


@dataclass(frozen=True)
class Scale:
    """A value's place in pixels: linear, or logarithmic for values above 0."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._bent(self.low), self._bent(self.high)
        return self.begin + (self._bent(value) - low) / ((high - low) or 1.0) * (self.end - self.begin)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers within the scale, about ``count``: steps of 1, 2 or 5; powers of ten on a long log scale."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 2, 5) if self.high < 100 * self.low else (1,)
            powers = range(first, last + 1, (last - first) // (count + 3) + 1)
            round_numbers = [factor * 10.0**power for power in powers for factor in factors]
            return [tick for tick in round_numbers if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]
        step = _step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _bent(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def extent(values: Iterable[float], pad: float = 0.06, zero: bool = False) -> tuple[float, float]:
    """The range of the values with some air; from 0 on where ``zero``."""
    known = list(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    air = pad * ((high - low) or abs(high) or 1.0)
    return (low if zero and low == 0 else low - air), high + air


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """A tick in words, with as many decimals as its neighbours need: 0.005, 250k, 1M."""
    top = max(map(abs, ticks), default=0.0)
    size, unit = next((size, unit) for least, size, unit in UNITS if top >= least)
    value, places = value / size, max((_places(tick / size) for tick in ticks), default=0)
    return "0" if value == 0 else f"{value:,.{places}f}{unit}".replace("-", "\N{MINUS SIGN}")


def width_of(text: str) -> float:
    return LETTER * len(text)


@dataclass
class Drawing:
    """An SVG of ``width`` x ``height`` units that fills the width it is given."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, colour: str = "") -> None:
        self._add("line", "", x1=x1, y1=y1, x2=x2, y2=y2, kind=kind, stroke=colour)

    def path(self, points: Iterable[tuple[float, float]], kind: str, colour: str, note: str = "") -> None:
        steps = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
        self._add("path", _title(note), d=f"M{steps}", kind=kind, stroke=colour)

    def bar(self, x: float, y: float, width: float, height: float, kind: str, colour: str, note: str = "") -> None:
        width, height = max(width, 0.0), max(height, 0.0)
        self._add("rect", _title(note), x=x, y=y, width=width, height=height, kind=kind, fill=colour, stroke=colour)

    def dot(self, x: float, y: float, radius: float, kind: str, colour: str, note: str = "") -> None:
        self._add("circle", _title(note), cx=x, cy=y, r=radius, kind=kind, fill=colour)

    def ring(self, x: float, y: float, radius: float, colour: str, note: str = "") -> None:
        self._add("circle", _title(note), cx=x, cy=y, r=radius, kind="ring", stroke=colour)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        self._add("text", escape(text), x=x, y=y, kind=kind, anchor="" if anchor == "start" else anchor)

    def __str__(self) -> str:
        size = f"{_short(self.width)} {_short(self.height)}"
        label = escape(self.title, quote=True)
        return f'<svg viewBox="0 0 {size}" role="img" aria-label="{label}">{"".join(self.parts)}</svg>'

    def _add(self, name: str, inside: str, **attributes: str | float) -> None:
        """An element; ``kind`` is its class. An empty attribute is left out."""
        written = "".join(
            f' {SPELLED.get(key, key)}="{escape(value if isinstance(value, str) else _short(value), quote=True)}"'
            for key, value in attributes.items()
            if value != ""
        )
        self.parts.append(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def _title(note: str) -> str:
    return f"<title>{escape(note)}</title>" if note else ""


def _short(number: float) -> str:
    return f"{round(number, 1) + 0.0:g}"


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * (1 + 1e-9))


def _places(value: float) -> int:
    return next((places for places in range(10) if math.isclose(value, round(value, places), rel_tol=1e-9)), 10)
