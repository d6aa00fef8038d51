"""This is where a conversation is made as long as anybody wants: it begins again when it ends.

Legend: T frames, S pixels a side, A audio feature frames, C h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from training.data import Track
from visavis.affect import Turn
from visavis.config import FRAME_RATE_HZ


@dataclass(frozen=True)
class Tiled:
    """An array (n, …) over and over, `length` long, in no more memory than once."""

    array: np.ndarray
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int | slice) -> np.ndarray:
        return self.array[np.arange(self.length)[index] % len(self.array)]

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (self.length, *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As an array's."""
        return self.array.dtype


@dataclass(frozen=True)
class Repeated(Track):
    """A track whose conversation begins again whenever it ends; its partner's does so with it."""

    length_blocks: int
    block_frames: int

    @cached_property
    def once(self) -> Track:
        """The track as it is."""
        return Track(self.folder, self.partner)

    @cached_property
    def user(self) -> Repeated:
        """The partner's, repeated alike."""
        return Repeated(self.partner, self.folder, self.length_blocks, self.block_frames)

    @cached_property
    def frames(self) -> Tiled:
        """(T, H, W, 3) uint8."""
        return self._tiled(self.once.frames, self.block_frames)

    @cached_property
    def latents(self) -> Tiled:
        """(T, C, h, w) float16."""
        return self._tiled(self.once.latents, self.block_frames)

    @cached_property
    def avatar_features(self) -> Tiled:
        """(blocks, A, D) float16."""
        return self._tiled(self.once.avatar_features, 1)

    @cached_property
    def user_features(self) -> Tiled:
        """(blocks, A, D) float16."""
        return self._tiled(self.once.user_features, 1)

    @cached_property
    def truth(self) -> dict[str, Tiled]:
        """The corpus's truth that is of a frame each."""
        known = self.once.truth
        return {key: self._tiled(x, self.block_frames) for key, x in known.items() if x.ndim}

    @cached_property
    def motion(self) -> Tiled:
        """(T, M) float32."""
        return self._tiled(self.once.motion, self.block_frames)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """Who said what from when on, again and again."""
        passes = ceil(self.length_blocks / self.pass_blocks)
        once = [turn for turn in self.once.turns if turn.start_s < self.pass_s]
        return tuple(
            replace(turn, start_s=turn.start_s + nth * self.pass_s)
            for nth in range(passes)
            for turn in once
        )

    @property
    def pass_blocks(self) -> int:
        """How long the conversation is once: as many blocks as both people have whole."""
        return min(self.once.blocks, self.once.user.blocks)

    @property
    def pass_s(self) -> float:
        """The same in seconds."""
        return self.pass_blocks * self.block_frames / FRAME_RATE_HZ

    def _tiled(self, array: np.ndarray, rows_a_block: int) -> Tiled:
        return Tiled(array[: self.pass_blocks * rows_a_block], self.length_blocks * rows_a_block)
