"""This is where pictures for the VAE are drawn, and changed: it is to see more than the corpus has.

Legend: B batch, H W pixels of a picture, S pixels a side of a detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch

Pool = Mapping[str, Sequence[np.ndarray]]  # kind -> people's pictures, (N, H, W, 3) uint8 each

# Where an aligned crop has its mouth and its eyes: x and y, the side being 1.
MOUTH, EYES = (0.5, 0.69), (0.5, 0.41)
LARGEST_TURN_DEG, LARGEST_SHIFT, LARGEST_SCALE = 8.0, 0.06, 0.15


def draw(pool: Pool, shares: Mapping[str, float], batch: int, augment: float) -> np.ndarray:
    """A batch of pictures (B, H, W, 3) uint8.

    Args:
        pool: pictures of people by kind; each person of a kind is drawn from equally often.
        shares: how much of a batch each kind is; kinds that the pool lacks are left out.
        augment: share of pictures that are moved, and of those that are recoloured.
    """
    kinds = [kind for kind, people in pool.items() if len(people) and shares.get(kind, 0) > 0]
    chosen = torch.multinomial(torch.tensor([shares[kind] for kind in kinds]), batch, True)
    frames = []
    for kind in chosen.tolist():
        people = pool[kinds[kind]]
        person = people[int(torch.randint(len(people), ()))]
        frame = np.asarray(person[int(torch.randint(len(person), ()))])
        is_moved, is_recoloured, is_mirrored = torch.rand(3) < torch.tensor([augment, augment, 0.5])
        frame = moved(frame) if is_moved else frame
        frame = recoloured(frame) if is_recoloured else frame
        frames.append(frame[:, ::-1] if is_mirrored else frame)
    return np.stack(frames)


def moved(frame: np.ndarray) -> np.ndarray:
    """A frame (H, H, 3) uint8 turned, shifted and scaled a little: other framings than aligned."""
    turn, shift_x, shift_y, scale = (torch.rand(4) * 2 - 1).tolist()
    size = frame.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), turn * LARGEST_TURN_DEG, 1 + scale * LARGEST_SCALE
    )
    matrix[:, 2] += (shift_x * LARGEST_SHIFT * size, shift_y * LARGEST_SHIFT * size)
    return cv2.warpAffine(frame, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def recoloured(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) uint8 with another gamma, and another gain a channel: other skins, lights
    and cameras than the corpus has."""
    gain = np.array(torch.empty(3).uniform_(0.7, 1.25))
    gamma = float(torch.exp(torch.empty(()).uniform_(-0.4, 0.4)))
    values = (np.arange(256) / 255) ** gamma
    table = np.clip(255 * values[:, None] * gain, 0, 255).round().astype(np.uint8)
    return cv2.LUT(frame, table[:, None])


def details(frames: np.ndarray, side: int, step: int, mouth_share: float) -> np.ndarray:
    """(B, S, S, 3): the mouth or the eyes of each frame, at corners that are multiples of `step`.

    A latent's place in a detail is then one that it has in a whole picture too.
    """
    size, found = frames.shape[1], []
    for frame in frames:
        x, y = MOUTH if torch.rand(()) < mouth_share else EYES
        jitter = (torch.rand(2) - 0.5) * side / 4
        corner = torch.tensor([x, y]) * size - side / 2 + jitter
        left, top = (step * (corner / step).round()).clamp(0, size - side).int().tolist()
        found.append(frame[top : top + side, left : left + side])
    return np.stack(found)
