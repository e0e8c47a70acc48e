"""Learning rate schedules: pure functions of the step, so that there is no scheduler state to save."""

from __future__ import annotations

import math


def factor(step: int, steps: int, warmup: float, shape: str, decay: float = 0.2) -> float:
    """What the learning rate is multiplied by at ``step`` (from 0), after a linear warm-up.

    ``linear`` and ``cosine`` fall to 0 over the rest; ``wsd`` (warm-up, stable, decay: Hu et al. 2024, arXiv
    2404.06395) stays at 1 and falls linearly over the last ``decay`` of all steps.
    """
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if shape == "wsd":
        return min((steps - step) / max(round(decay * steps), 1), 1.0)
    share = (step - warm) / max(steps - warm, 1)
    return 1 - share if shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))
