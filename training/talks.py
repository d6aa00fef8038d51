"""This is where a network's own predictions are kept for the decoder to learn from.

What a denoiser predicts is not what the VAE's encoder makes of any picture: it is nearer to the
mean of what may come, and more so as it goes on from its own. So each training track is talked
through once, true again every two seconds lest the head be elsewhere, and the decoder learns to
paint the true picture from the prediction. Every block has a portrait of its own, which may be any
frame: there will be portraits that show an open smile.

    folder/conversation_0007_a.npy        (T, C, h, w) float16

Legend: B batch, T frames, F block frames, C h w latents, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.batches import Place, batch_of
from training.data import Track
from training.denoising import Conditions, denoise_at_once, nobody
from training.hearing import hear
from training.precision import half_precision
from training.rollout import block_noise
from training.whole import whole
from visavis.nn.echo import Echo
from visavis.sampler import context

AT_ONCE = 11
AGAIN_TRUE = 10  # blocks, after which one is given the true latents before it


@dataclass(frozen=True)
class Talks:
    """Tracks, and the latents (T, C, h, w) that a network predicts of each."""

    tracks: Sequence[Track]
    predicted: Sequence[np.ndarray]
    block_frames: int

    def draw(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (B, 2, H, W, 3) uint8 of portrait and true picture, and for both of them latents
        (B, 2, h, w, C) float32: of the portrait true ones, of the picture those predicted."""
        pairs, latents = [], []
        for n in torch.randint(len(self.tracks), (batch,)).tolist():
            track, predicted = self.tracks[n], self.predicted[n]
            t = int(torch.randint(len(predicted), ()))
            portrait = portraits(track)[t // self.block_frames]
            pairs.append(np.stack([track.frames[portrait], track.frames[t]]))
            latents.append(np.stack([track.latents[portrait], predicted[t]]))
        moved = np.stack(latents).astype(np.float32).transpose(0, 1, 3, 4, 2)
        return np.stack(pairs), moved


def portraits(track: Track) -> list[int]:
    """The frame that is the portrait, of every block: any, but always the same one."""
    always = torch.Generator().manual_seed(0)
    return torch.randint(len(track.latents), (track.blocks,), generator=always).tolist()


def talks_of(echo: Echo, tracks: Sequence[Track], folder: Path) -> Talks:
    """What the network predicts of all tracks; those that are kept in the folder are not asked
    again."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{track.name.replace('/', '_')}.npy" for track in tracks]
    todo = [n for n, path in enumerate(paths) if not path.exists()]
    groups = [todo[first : first + AT_ONCE] for first in range(0, len(todo), AT_ONCE)]
    for group in tqdm(groups, desc="predictions", unit="group", disable=not groups):
        with torch.inference_mode(), half_precision(echo.device):
            blocks = list(predictions(echo, [tracks[n] for n in group]))
        latents = torch.cat(blocks, dim=1).cpu().half().numpy()
        for n, own in zip(group, latents, strict=True):
            with whole(paths[n]) as partial:
                np.save(partial, own)
    predicted = [np.load(path, mmap_mode="r") for path in paths]
    return Talks(tracks, predicted, echo.config.block_frames)


def predictions(echo: Echo, tracks: Sequence[Track]) -> Iterator[Tensor]:
    """Latents (B, F, C, h, w) of one block after another, to where the shortest track ends.

    Where one of them has no partner (`training.person`), none of them listens.
    """
    config, blocks = echo.config, min(track.blocks for track in tracks)
    heard: Tensor | None = None
    if all(track.partner.exists() for track in tracks):
        heard = hear(echo, [track.user for track in tracks], range(blocks), blocks)
    made: Tensor | None = None
    for block, (noise, _) in enumerate(block_noise(config, len(tracks), blocks, seed=0)):
        places = [Place(track, block, portraits(track)[block]) for track in tracks]
        batch = batch_of(places, config, echo.device)
        present = torch.ones(len(tracks), 2, device=echo.device)
        conditions = nobody(config, present[:, 0])
        if heard is not None:
            affect = echo.affect_encoder(batch.word_ids)
            conditions = Conditions(heard[:, block], affect, present)
        before = batch.previous_latents if made is None or block % AGAIN_TRUE == 0 else made
        previous = context(
            before,
            batch.reference_latents[:, None],
            config.denoiser.previous_frames,
            config.context_keep,
        )
        made = denoise_at_once(echo, noise.to(echo.device), batch, previous, conditions)
        yield made
