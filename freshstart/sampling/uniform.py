"""Uniform random numbers by counter: each is a function of what it is numbered by alone.

The output function of SplitMix64 (Steele, Lea and Flood 2014), once for each number: ``mix(state + number * GAMMA)`` is
the state for the next, and the first 53 bits of the last are the uniform. Nothing is kept between draws, so that a draw
does not depend on what else is drawn, nor in which order.
"""

from __future__ import annotations

import torch
from torch import Tensor

# As signed 64-bit numbers, which wrap around in torch as unsigned ones do.
GAMMA, FIRST, SECOND = (number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def below(state: Tensor, number: int | Tensor) -> Tensor:
    """The state (int64) that ``number`` leads to from another."""
    state = state + (torch.as_tensor(number, device=state.device) + 1) * GAMMA
    state = (state ^ _shifted(state, 30)) * FIRST
    state = (state ^ _shifted(state, 27)) * SECOND
    return state ^ _shifted(state, 31)


def uniform(state: Tensor) -> Tensor:
    """The float64 in [0, 1) of each state."""
    return _shifted(state, 11).double() * 2.0**-53


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
