"""This is where batches of blocks are drawn from the cache.

Legend: B batch, F block frames, P previous frames, C h w latents, A audio feature frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from training.data import Track
from training.sentences import due, told
from visavis.affect import word_ids
from visavis.config import EchoConfig

# Aligned crops put the mouth and the face here; rows lip and face, columns x and y.
ALIGNED_CENTERS = ((0.50, 0.68), (0.50, 0.53))
STRAYS = 24  # times of which a stray is the one with the head held most alike
STRAY_APART = 15  # blocks between, at least: expressions last for seconds


@dataclass(frozen=True)
class Place:
    """One block of one track, and the frame of it that is the portrait.

    told: whether its sentence is what a server would make of the transcript, of which no more than
    `window_blocks` are heard; else it names what is due.
    """

    track: Track
    block: int
    reference_frame: int
    told: bool = True
    window_blocks: int | None = None

    def later(self, blocks: int) -> Place:
        """The place `blocks` further on (back, when negative), under the same portrait."""
        return replace(self, block=self.block + blocks)


@dataclass(frozen=True)
class BlockBatch:
    """What the denoiser needs of B blocks; float32 but for the words."""

    x_0: Tensor  # (B, F, C, h, w)
    previous_latents: Tensor  # (B, P, C, h, w)
    reference_latents: Tensor  # (B, C, h, w)
    avatar_audio_features: Tensor  # (B, A, D)
    motion: Tensor  # (B, F, M), from the portrait on
    speaking: Tensor  # (B, F), 1 where the avatar's voice is heard
    word_ids: Tensor  # (B, W) int64

    def rows(self, index: Sequence[int]) -> BlockBatch:
        """Some of the blocks."""
        rows = list(index)
        return BlockBatch(*(getattr(self, field.name)[rows] for field in fields(self)))


def batch_of(places: list[Place], config: EchoConfig, device: torch.device) -> BlockBatch:
    """The blocks of `places`, stacked."""
    blocks = [_block_of(place, config) for place in places]
    arrays = {key: np.stack([b[key] for b in blocks]).astype(np.float32) for key in blocks[0]}
    words = np.stack([affect_words(place, config) for place in places])
    stacked = {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}
    return BlockBatch(**stacked, word_ids=torch.from_numpy(words).to(device))


def affect_words(place: Place, config: EchoConfig) -> np.ndarray:
    """(W,) word ids of the sentence that states the avatar's emotion in this block."""
    track, frames = place.track, config.block_frames
    first = place.block * frames
    if place.told:
        window = None if place.window_blocks is None else place.window_blocks * frames
        return word_ids(told(track, first, window), config.affect)
    return word_ids(due(track, min(first + frames // 2, len(track.latents) - 1)), config.affect)


def draw_places(
    pool: Sequence[Track], count: int, config: EchoConfig, speaking_share: float
) -> list[Place]:
    """Random blocks of random tracks, each with a random frame of its track as the portrait.

    People in a conversation are silent more than half of the time; `speaking_share` of the blocks
    are drawn where they speak.
    """
    places = []
    for index in torch.randint(len(pool), (count,)).tolist():
        track = pool[index]
        spoken = track.speaking_blocks(config.block_frames)
        if len(spoken) and torch.rand(()) < speaking_share:
            block = int(spoken[int(torch.randint(len(spoken), ()))])
        else:
            block = int(torch.randint(track.blocks, ()))
        places.append(Place(track, block, draw_reference(track)))
    return places


def draw_reference(track: Track) -> int:
    """Any frame of a track may be its portrait."""
    return int(torch.randint(len(track.truth["speaking"]), ()))


def stray(place: Place, block_frames: int, *, alike: bool) -> Place:
    """Another time of the track; if `alike`, one with the head held much as it is then."""
    pose, blocks = place.track.truth["pose"], place.track.blocks
    apart = min(STRAY_APART, blocks // 3)
    drawn = (
        place.block + torch.randint(apart, blocks - apart + 1, (STRAYS if alike else 1,)).numpy()
    ) % blocks
    last = [max(0, block * block_frames - 1) for block in (place.block, *drawn)]
    turned = np.abs(pose[last[1:]] - pose[last[0]]).sum(axis=1)
    return replace(place, block=int(drawn[turned.argmin()]))


def _block_of(place: Place, config: EchoConfig) -> dict[str, np.ndarray]:
    """One block's arrays; the frames before block 0 are the portrait, as when serving."""
    track, frames, past = place.track, config.block_frames, config.denoiser.previous_frames
    first = place.block * frames
    reference = track.latents[place.reference_frame]
    before = [track.latents[n] if n >= 0 else reference for n in range(first - past, first)]
    return {
        "x_0": track.latents[first : first + frames],
        "previous_latents": np.stack(before),
        "reference_latents": reference,
        "avatar_audio_features": track.avatar_features[place.block],
        "motion": track.motion[first : first + frames] - track.motion[place.reference_frame],
        "speaking": track.truth["speaking"][first : first + frames],
    }
