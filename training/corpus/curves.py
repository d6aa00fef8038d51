"""This is where values over time are made: named curves, bumps, envelopes, smooth noise.

Units: 25 frames a second, curves in [0, 1], times in s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from visavis.config import FRAME_RATE_HZ

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class CurveSet:
    """Turns named curve values into vectors over a fixed list of curve names."""

    names: tuple[str, ...]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {name: i for i, name in enumerate(self.names)})

    def columns(self, name: str) -> list[int]:
        """Column numbers of a curve, both sides if the name has none."""
        sided = (name, f"{name}Left", f"{name}Right")
        found = [self.index[candidate] for candidate in sided if candidate in self.index]
        if not found:
            raise KeyError(f"no curve named {name}")
        return found

    def vector(self, values: dict[str, float]) -> FloatArray:
        """Curve vector (52,) with the named values and zeros elsewhere."""
        vector = np.zeros(len(self.names), np.float32)
        for name, value in values.items():
            vector[self.columns(name)] = value
        return vector


def frame_times(frames: int) -> NDArray[np.float64]:
    """Time of the middle of every frame, in s."""
    return (np.arange(frames) + 0.5) / FRAME_RATE_HZ


def bump(times: NDArray[np.float64], start: float, end: float, margin: float) -> FloatArray:
    """1 in the middle of [start, end], falling smoothly to 0 at `margin` s outside of it."""
    half = max((end - start) / 2, 0.02) + margin
    ramp = np.clip(1.15 - np.abs(times - (start + end) / 2) / half, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def smooth_noise(rng: np.random.Generator, frames: int, seconds: float) -> FloatArray:
    """Unit-variance noise (T,) that changes over about `seconds`."""
    sigma = seconds * FRAME_RATE_HZ / 2
    noise = gaussian_filter1d(rng.standard_normal(frames + 200), sigma)[100 : 100 + frames]
    return (noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)).astype(np.float32)


def envelope(times: NDArray[np.float64], start: float, end: float, rise: float) -> FloatArray:
    """1 during [start, end], with smooth edges that take about `rise` s."""
    active = ((times >= start) & (times < end)).astype(np.float32)
    return np.asarray(gaussian_filter1d(active, 0.4 * rise * FRAME_RATE_HZ), np.float32)
