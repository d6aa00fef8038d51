"""This is where a network's own predictions are kept for the decoder to learn from.

What a denoiser predicts is not what the VAE's encoder makes of any picture: it is nearer to the
mean of what may come. So each training track is talked through once, every block following the
true one, and the decoder learns to paint the true picture from the prediction.

    folder/conversation_0007_a.npy        (T, C, h, w) float16

Legend: B batch, T frames, C h w latents, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.data import Track, save_whole
from training.precision import half_precision
from training.rollout import RolloutConfig, rollout
from visavis.nn.echo import Echo

AT_ONCE = 11


@dataclass(frozen=True)
class Talks:
    """Tracks, and what a network predicts of their latents; the first frames are the portraits."""

    tracks: Sequence[Track]
    predicted: Sequence[np.ndarray]

    def draw(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (B, 2, H, W, 3) uint8 of portrait and true picture, and for both of them latents
        (B, 2, h, w, C) float32: of the portrait true ones, of the picture those predicted."""
        pairs, latents = [], []
        for n in torch.randint(len(self.tracks), (batch,)).tolist():
            track, predicted = self.tracks[n], self.predicted[n]
            t = int(torch.randint(len(predicted), ()))
            pairs.append(np.stack([track.frames[0], track.frames[t]]))
            latents.append(np.stack([track.latents[0], predicted[t]]))
        moved = np.stack(latents).astype(np.float32).transpose(0, 1, 3, 4, 2)
        return np.stack(pairs), moved


def talks_of(echo: Echo, tracks: Sequence[Track], folder: Path) -> Talks:
    """What the network predicts of all tracks; those that are kept in the folder are not asked
    again."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{track.name.replace('/', '_')}.npy" for track in tracks]
    todo = [n for n, path in enumerate(paths) if not path.exists()]
    groups = [todo[first : first + AT_ONCE] for first in range(0, len(todo), AT_ONCE)]
    for group in tqdm(groups, desc="predictions", unit="group", disable=not groups):
        talkers = [tracks[n] for n in group]
        settings = RolloutConfig(
            blocks=min(track.blocks for track in talkers), num_steps=1, teacher_forced=True
        )
        with torch.inference_mode(), half_precision(echo.device):
            latents = rollout(echo, talkers, settings)
        for n, own in zip(group, latents.half().numpy(), strict=True):
            save_whole(paths[n], own)
    return Talks(tracks, [np.load(path, mmap_mode="r") for path in paths])
