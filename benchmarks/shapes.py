"""This is where it is told how many conversations there are at a time of a load test.

Each shape is a function of the seconds since its start, the users that were asked for and the
seconds that it lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

STEPS = 5


def constant(time_s: float, users: int, length_s: float) -> int:
    """All of them, all the time: a soak if it is long."""
    return users


def step(time_s: float, users: int, length_s: float) -> int:
    """A fifth more at every fifth of the time: where does it begin to be late?"""
    return math.ceil(users * min(STEPS, int(time_s / length_s * STEPS) + 1) / STEPS)


def ramp(time_s: float, users: int, length_s: float) -> int:
    """One after the other, all of them at three quarters of the time."""
    return max(1, min(users, round(users * time_s / (0.75 * length_s))))


def spike(time_s: float, users: int, length_s: float) -> int:
    """A tenth, and all of them in the middle fifth: do those who were there notice?"""
    in_the_middle = 0.4 <= time_s / length_s < 0.6
    return users if in_the_middle else max(1, users // 10)


SHAPES: Mapping[str, Callable[[float, int, float], int]] = {
    "constant": constant,
    "soak": constant,
    "step": step,
    "ramp": ramp,
    "spike": spike,
}
