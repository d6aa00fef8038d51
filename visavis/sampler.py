"""This is where noise becomes latents: the one sampling loop of training, export and serving.

Flow matching on straight paths, x_t = (1 - t) x_0 + t noise, by a network that predicts x_0
(Liu et al., 2022, arXiv 2209.03003). Arithmetic operators only, so the arrays may be torch's or
numpy's and `denoise` a network, an ONNX Runtime session or a call to a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from visavis.guidance import Denoise


def context(latents: Any, reference_latents: Any, frames: int, keep: float) -> Any:
    """What the next block is told of this one: its last `frames` latents, drawn to the portrait.

    Args: latents (…, F, C, h, w) and reference_latents (…, 1, C, h, w), clean; `keep` in [0, 1] is
    the share of their difference that is left. Below 1, errors fade instead of adding up.
    Returns (…, frames, C, h, w).
    """
    last = latents[..., -frames:, :, :, :]
    return reference_latents + keep * (last - reference_latents)


def settled(
    latents: Any, previous_latents: Any, reference_latents: Any, keep: float, weights: Any
) -> Any:
    """A block that begins nearer to where the one before ended.

    A block is painted apart from the one before it and never fits quite; at every border a viewer
    would see it jump. So what its first step is larger than its second is taken back, in part, and
    the less the later a frame is.

    Args: latents (…, F, C, h, w) of the block; previous_latents (…, P, C, h, w), what `context`
    made of the block before with `keep`; reference_latents (…, 1, C, h, w); weights (F, 1, 1, 1),
    the parts, see `settling_weights`.
    """
    last = reference_latents + (previous_latents[..., -1:, :, :, :] - reference_latents) / keep
    first, second = latents[..., :1, :, :, :], latents[..., 1:2, :, :, :]
    return latents - weights * ((first - last) - (second - first))


def settling_weights(settling: float, frames: int) -> list[float]:
    """How much of a jump each frame of a block takes back: `settling` of it, then of what is left
    of that, and so on."""
    return [settling ** (frame + 1) for frame in range(frames)]


def sample(denoise: Denoise, noise: Any, schedule: Sequence[float]) -> Any:
    """Euler steps along `schedule` (1 … 0) from `noise`: (...) float32 -> x_0 of the same shape.

    `denoise(x_t, t)` predicts x_0. Noise comes in as an argument, so a run repeats bit for bit.
    """
    x_t = noise
    for t, t_next in pairwise(schedule):
        x_0 = denoise(x_t, t)
        v = (x_t - x_0) / t
        x_t = x_t + (t_next - t) * v
    return x_t
