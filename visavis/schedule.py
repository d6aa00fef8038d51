"""This is where time grids come from: pure functions that return Python floats.

Python floats, not numpy's: under numpy 2 a `np.float64` scalar would turn a float32 array into
float64, which Triton then refuses.
"""

from __future__ import annotations


def timesteps(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """`num_steps + 1` times from 1 (noise) down to 0 (clean), strictly falling.

    `shift` above 1 spends more of the steps near the noise (Esser et al., 2024, arXiv 2403.03206,
    Eq. 23); 1 is the even grid.

    Raises:
        ValueError: `num_steps` below 1 or `shift` not above 0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: got {num_steps}, expected at least 1; ask for more steps")
    if not shift > 0:
        raise ValueError(f"shift: got {shift}, expected above 0; 1 is the even grid")
    even = (1.0 - step / num_steps for step in range(num_steps + 1))
    return tuple(shift * t / (1.0 + (shift - 1.0) * t) for t in even)
