"""This is where pictures for the VAE are drawn, and changed: it is to see more than the corpus has.

They come in pairs, a portrait and another picture of the same person, changed alike.

Legend: B batch, H W pixels of a picture, S pixels a side of a detail, h w places of latents.
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
    """Pairs of pictures (B, 2, H, W, 3) uint8: a portrait, and what is to be made of it.

    Args:
        pool: pictures of people by kind; each person of a kind is drawn from equally often.
        shares: how much of a batch each kind is; kinds that the pool lacks are left out.
        augment: share of pairs that are moved, and of those that are recoloured.
    """
    kinds = [kind for kind, people in pool.items() if len(people) and shares.get(kind, 0) > 0]
    chosen = torch.multinomial(torch.tensor([shares[kind] for kind in kinds]), batch, True)
    pairs = []
    for kind in chosen.tolist():
        people = pool[kinds[kind]]
        person = people[int(torch.randint(len(people), ()))]
        pair = np.stack([person[n] for n in torch.randint(len(person), (2,)).tolist()])
        is_moved, is_recoloured, is_mirrored = torch.rand(3) < torch.tensor([augment, augment, 0.5])
        pair = moved(pair) if is_moved else pair
        pair = recoloured(pair) if is_recoloured else pair
        pairs.append(pair[:, :, ::-1] if is_mirrored else pair)
    return np.stack(pairs)


def moved(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, H, H, 3) uint8, all of them turned, shifted and scaled a little alike: other
    framings than aligned."""
    turn, shift_x, shift_y, scale = (torch.rand(4) * 2 - 1).tolist()
    size = pictures.shape[1]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), turn * LARGEST_TURN_DEG, 1 + scale * LARGEST_SCALE
    )
    matrix[:, 2] += (shift_x * LARGEST_SHIFT * size, shift_y * LARGEST_SHIFT * size)
    return np.stack(
        [
            cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
            for picture in pictures
        ]
    )


def recoloured(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8 with another gamma, and another gain a channel: other skins,
    lights and cameras than the corpus has."""
    gain = np.array(torch.empty(3).uniform_(0.7, 1.25))
    gamma = float(torch.exp(torch.empty(()).uniform_(-0.4, 0.4)))
    values = (np.arange(256) / 255) ** gamma
    table = np.clip(255 * values[:, None] * gain, 0, 255).round().astype(np.uint8)
    return np.stack([cv2.LUT(picture, table[:, None]) for picture in pictures])


def detail_corners(count: int, size: int, side: int, step: int, mouth_share: float) -> np.ndarray:
    """(count, 2) int64: left and top of a mouth or of eyes, S = `side`, in a picture of `size`.

    They are multiples of `step`: a latent's place in a detail is one that it has in a whole picture
    too.
    """
    is_mouth = torch.rand(count, 1) < mouth_share
    centers = torch.where(is_mouth, torch.tensor(MOUTH), torch.tensor(EYES))
    jitter = (torch.rand(count, 2) - 0.5) * side / 4
    corners = centers * size - side / 2 + jitter
    return (step * (corners / step).round()).clamp(0, size - side).long().numpy()


def details(frames: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """What begins at (B, 2) corners of (B, …, H, W, C): (B, …, S, S, C)."""
    return np.stack(
        [
            frame[..., top : top + side, left : left + side, :]
            for frame, (left, top) in zip(frames, corners, strict=True)
        ]
    )
