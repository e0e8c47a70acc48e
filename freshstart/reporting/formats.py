"""How numbers are written on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from freshstart.reporting.cells import Estimate

Format = Callable[[float], str]


def share(value: float) -> str:
    return f"{value:.1%}" if value else "0%"


def fixed(places: int) -> Format:
    """With so many digits behind the point."""
    return lambda value: f"{value:z,.{places}f}".replace("-", "\N{MINUS SIGN}")


def three_digits(estimates: Iterable[Estimate | None]) -> Format:
    """With three digits at the largest of the numbers, so that they line up below one another."""
    most = max((abs(estimate.value) for estimate in estimates if estimate is not None), default=0.0)
    places = max(2 - math.floor(math.log10(most)), 0) if most > 0 else 3

    def show(value: float) -> str:
        rounded = f"{value:.{places}f}"
        return "0" if value == 0 else rounded if float(rounded) else f"<{10**-places:.{places}f}"

    return show


def ends(values: Mapping[str, float], show: Format) -> str:
    """The least and the most of what several have, each with its name; one number where they are written alike."""
    least, *_, most = sorted(values, key=lambda name: (values[name], name)) * 2
    low, high = show(values[least]), show(values[most])
    return f"{low} ({least}) to {high} ({most})" if low != high else f"{low} of each"


def bounds(estimate: Estimate, show: Format) -> str:
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"
