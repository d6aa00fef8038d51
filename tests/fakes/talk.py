"""This is where a conversation of noise comes from, for what sends one."""

from __future__ import annotations

import numpy as np
from visavis_client import Portrait, Turn

from benchmarks.live import Talk
from visavis.config import SAMPLES_PER_FRAME


def noise(size: int, frames: int = 40) -> Talk:
    """Two people of pictures of `size`, one of whom says hello after half a second."""
    rng = np.random.default_rng(0)
    avatar, user = rng.uniform(-0.5, 0.5, (2, frames * SAMPLES_PER_FRAME)).astype(np.float32)
    return Talk(
        Portrait(
            np.full((size, size, 3), 128, np.uint8),
            np.array([[0.5, 0.68], [0.5, 0.53]], np.float32),
        ),
        avatar,
        user,
        rng.integers(0, 256, (frames, size, size, 3), np.uint8),
        (Turn("user", "hello", 0.5),),
    )
