"""Learning rate schedules: pure functions of the step, so that there is no scheduler state to save."""

from __future__ import annotations

import math


def factor(step: int, steps: int, warmup: float, shape: str) -> float:
    """What the learning rate is multiplied by at ``step`` (from 0): linear warm-up, then linear or cosine to 0."""
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    share = (step - warm) / max(steps - warm, 1)
    return 1 - share if shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))
