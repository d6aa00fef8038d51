"""This is where the soft lip and face masks of SDCM come from (ECHO, Fig. 2).

The shapes were fitted to the paper's own figure, the picture's side being 1: M_lip is a Gaussian of
sigma 0.10 at the mouth, M_face an elliptical one of sigma (0.20, 0.26) at the face times 1 - M_lip.
Their sum never passes 1. The user reaches the avatar through M_face alone.

Legend: B batch, g tokens a side, s samples a token's side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SIGMAS = ((0.10, 0.10), (0.20, 0.26))  # rows lip and face, columns x and y
SAMPLES = 4  # a token is as wide as sigma_lip, so its centre alone is a poor average


def region_masks(
    region_centers: Any, grid: int, exp: Callable[[Any], Any] = np.exp, samples: int = SAMPLES
) -> Any:
    """The masks' averages over every token.

    Args:
        region_centers: (B, 2, 2) float32, numpy's or torch's; rows lip and face, columns x and y
            (right and down), the picture's side being 1.
        grid: g, tokens a side.
        exp: the exponential of the arrays' library.
        samples: s, the average's samples a side of a token.
    Returns (B, 2, g, g) float32 in [0, 1], lip and face, indexed [row (y), column (x)].
    """
    side = grid * samples
    along = _like(region_centers, (np.arange(side) + 0.5) / side)  # (g·s,)
    narrowness = _like(region_centers, -0.5 / np.square(SIGMAS))  # (2, 2)
    falloff = exp(narrowness[:, :, None] * (along - region_centers[..., None]) ** 2)  # (B,2,2,g·s)
    gaussians = falloff[:, :, 1, :, None] * falloff[:, :, 0, None, :]  # (B, 2, g·s, g·s)
    is_face = _like(region_centers, np.array([0.0, 1.0]))[:, None, None]
    masks = gaussians * (1.0 - is_face * gaussians[:, :1])
    return masks.reshape(-1, 2, grid, samples, grid, samples).mean((3, 5))


def _like(array: Any, values: np.ndarray) -> Any:
    """`values` as float32 of the library (and device) of `array`."""
    if isinstance(array, np.ndarray):
        return values.astype(np.float32)
    return array.new_tensor(values.tolist())  # a constant in an export graph
