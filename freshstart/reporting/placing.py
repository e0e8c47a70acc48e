"""Where labels go: beside their points without covering points, whiskers or each other.

Each label has a few places to choose from. They are improved one at a time until none moves (coordinate descent),
which for a dozen labels is instant and always ends in the same places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from freshstart.reporting.svg import LINE, width_of

GAP = 8.0
# direction from the point, and how much we would rather not
SIDES = ((1, 0, 0), (-1, 0, 1), (0, -1, 2), (0, 1, 2), (1, -1, 3), (1, 1, 3), (-1, -1, 4), (-1, 1, 4))
REACH = (1.0, 2.2, 3.6)  # times GAP
CLOSER_TO_ANOTHER = 60.0  # square pixels of overlap that are as bad as a label beside another's point
ROUNDS = 20


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def distance(self, x: float, y: float) -> float:
        """From a point to the nearest edge, 0 inside."""
        return math.hypot(max(self.left - x, x - self.right, 0.0), max(self.top - y, y - self.bottom, 0.0))


def place_beside(points: Sequence[tuple[float, float, str]], taken: Sequence[Box], frame: Box) -> list[Box]:
    """A box for each point's label, clear of ``taken`` and inside ``frame`` as far as can be."""
    choices = [_places(x, y, text) for x, y, text in points]
    chosen = [0] * len(points)

    def cost(index: int, choice: int) -> float:
        box, reluctance = choices[index][choice]
        others = (choices[other][chosen[other]][0] for other in range(len(points)) if other != index)
        covered = sum(map(box.overlap, taken)) + 2 * sum(map(box.overlap, others))
        outside = box.overlap(box) - box.overlap(frame)
        away = box.distance(*points[index][:2])
        mistaken = sum(box.distance(x, y) < away + GAP for i, (x, y, _) in enumerate(points) if i != index)
        return covered + 4 * outside + CLOSER_TO_ANOTHER * mistaken + reluctance

    for _ in range(ROUNDS):
        before = list(chosen)
        for index in range(len(points)):
            chosen[index] = min(range(len(choices[index])), key=lambda choice: (cost(index, choice), choice))
        if chosen == before:
            break
    return [choices[index][choice][0] for index, choice in enumerate(chosen)]


def spread(heights: Sequence[float], low: float, high: float, apart: float = LINE) -> list[float]:
    """The heights moved as little as it takes to stand ``apart`` from each other, from ``low`` to ``high``."""
    order = sorted(range(len(heights)), key=lambda index: (heights[index], index))
    groups: list[list[float]] = []  # [sum of wanted tops, count]: neighbours that touch move as one
    for rank, index in enumerate(order):
        groups.append([heights[index] - rank * apart, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    tops = [total / count for total, count in groups for _ in range(int(count))]
    room = max(high - (len(heights) - 1) * apart, low)
    placed = [0.0] * len(heights)
    for rank, index in enumerate(order):
        placed[index] = min(max(tops[rank], low), room) + rank * apart
    return placed


def _places(x: float, y: float, text: str) -> list[tuple[Box, float]]:
    """Where a label may stand, and how much we would rather not have it there."""
    half_width, half_height = width_of(text) / 2, LINE / 2
    places = []
    for reach in REACH:
        for right, down, reluctance in SIDES:
            gap = GAP * reach * (0.75 if right and down else 1.0)
            at_x, at_y = x + right * (gap + half_width), y + down * (gap + half_height)
            box = Box(at_x - half_width, at_y - half_height, at_x + half_width, at_y + half_height)
            places.append((box, reluctance + 12 * (reach - 1)))
    return places
