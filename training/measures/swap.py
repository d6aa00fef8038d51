"""This is where it is measured how far another voice, or another user, reaches into the picture.

Mean absolute differences a pixel. With another's voice: the change of the lower face over that of
the upper (`voice_swap_lower_over_upper`). With another user: the change of the upper face over that
of the mouth, while the avatar speaks (`user_swap_upper_over_mouth_speaking`) and while it listens
(`…_listening`). Speaking lips are the voice's alone, so above 1 is the right way round; a
listener's smile is meant to reach the mouth.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

import numpy as np


def swap_figures(
    own: np.ndarray, other_voice: np.ndarray, other_user: np.ndarray, speaking: np.ndarray
) -> dict[str, float]:
    """How far swapping voice or user reaches; videos (T, H, W, 3) uint8, `speaking` (T,) bool."""
    place = regions(own.shape[1])
    figures = {
        "voice_swap_lower_over_upper": swap_ratio(other_voice, own, place["lower"], place["upper"])
    }
    for name, when in (("speaking", speaking), ("listening", ~speaking)):
        if when.any():
            ratio = swap_ratio(other_user[when], own[when], place["upper"], place["mouth"])
            figures[f"user_swap_upper_over_mouth_{name}"] = ratio
    return figures


def swap_ratio(
    changed: np.ndarray, own: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> float:
    """Mean absolute change of (T, H, W, 3) within the map `inside` (H, W) over that `outside`."""
    change = np.abs(changed.astype(np.float32) - own).mean((0, 3))
    return float(change[inside].mean()) / max(float(change[outside].mean()), 1e-6)


def regions(size: int) -> dict[str, np.ndarray]:
    """(H, W) bool maps of an aligned crop: the lower face, the upper face, the mouth."""
    y, x = np.mgrid[0:size, 0:size] / size
    face = ((x - 0.5) / 0.24) ** 2 + ((y - 0.53) / 0.32) ** 2 < 1
    mouth = ((x - 0.5) / 0.12) ** 2 + ((y - 0.68) / 0.07) ** 2 < 1
    return {"lower": face & (y > 0.58), "upper": face & (y < 0.52), "mouth": mouth}
