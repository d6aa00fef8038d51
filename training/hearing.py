"""This is where the LCU hears conversations that are already known, many blocks in one pass.

When serving, blocks come one by one and the LCU's state goes from each to the next. In training all
of a conversation is there: the scans take long pieces at once, what is remembered is averaged at
once, and only the blocks that are asked about are understood, all together. What comes out is the
same, which is a test; it is cheap enough to hear every conversation from its beginning, so that the
memory learns what it is for.

Legend: B conversations, n blocks, F block frames, K tokens a frame, D width, M memory tokens, S
blocks of one, A audio feature frames, C h w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.data import Track
from training.precision import half_precision
from visavis.contract import lcu_state
from visavis.nn.echo import Echo

PIECE_BLOCKS = 5  # in one pass: more take memory without being faster


def heard_blocks(echo: Echo, last: int, window_blocks: int | None = None) -> range:
    """The blocks that count for block `last`: as many as the memory holds, or the window's.

    A window may begin before its conversation does; nobody is there then.
    """
    if window_blocks is not None:
        return range(last + 1 - window_blocks, last + 1)
    lcu = echo.config.lcu
    return range(max(0, last + 1 - lcu.memory_tokens * lcu.memory_stride_blocks), last + 1)


@dataclass(frozen=True)
class Hindrance:
    """What keeps a few conversations from being learned by heart: how often voices or faces are
    withheld from whole conversations, and how much noise is on them, as a ratio of their spread.

    Words are known by heart first, being in the voice's finest features; that somebody speaks, or
    pauses, is heard through much noise.
    """

    voice_dropout: float = 0.3
    face_dropout: float = 0.1
    voice_noise: float = 1.0
    face_noise: float = 0.3

    def present(self, conversations: int) -> Tensor:
        """(B, 2), 0 for a voice or a face that is withheld."""
        dropout = torch.tensor([self.voice_dropout, self.face_dropout])
        return (torch.rand(conversations, 2) >= dropout).float()

    def roughen(self, voice: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """Both with noise."""
        voice = voice + self.voice_noise * voice.std() * torch.randn_like(voice)
        return voice, face + self.face_noise * face.std() * torch.randn_like(face)


def hear(
    echo: Echo,
    users: Sequence[Track],
    blocks: range,
    answers: int,
    *,
    learned_blocks: int = 0,
    half: bool = False,
    hindrance: Hindrance | None = None,
) -> Tensor:
    """f_pu (B, answers, F, K, D) of the last `answers` of the blocks, all before them heard.

    Gradients reach perception through the last `learned_blocks` alone; pooling for the memory and
    what understands it learn from all blocks. `half` computes in bfloat16 where it is safe.
    """
    device, lcu = echo.device, echo.lcu_encoder
    audio_state, video_state = (
        torch.zeros(len(users), *spec.dims, device=device) for spec in lcu_state(echo.config)[:2]
    )
    carried = [audio_state, video_state, _first_faces(echo, users, blocks)]
    present = hindrance.present(len(users)).to(device)[:, None] if hindrance else 1.0
    pooled, asked = [], []
    learns_from = blocks.stop - learned_blocks if torch.is_grad_enabled() else blocks.stop
    for piece in _pieces(blocks, learns_from):
        with torch.set_grad_enabled(piece.start >= learns_from), half_precision(device, half):
            voice, face, valid = _inputs(echo, users, piece)
            if hindrance is not None:
                voice, face = hindrance.roughen(voice, face)
            perceived, *carried = lcu.perception(voice, face, valid * present, *carried)
            perceived = perceived.unflatten(1, (len(piece), -1))  # (B, n, F, K, D)
        with half_precision(device, half):
            pooled.append(lcu.context_memory.pooled(perceived))
        asked.append(perceived[:, max(0, blocks.stop - answers - piece.start) :])
    with half_precision(device, half):
        memory, summary = remembered(echo, torch.cat(pooled, dim=1), blocks, answers)
        now = torch.cat(asked, dim=1)
        found = lcu.understand(now.flatten(0, 1), memory.flatten(0, 1), summary.flatten(0, 1))
    return found.unflatten(0, now.shape[:2])


def remembered(echo: Echo, pooled: Tensor, blocks: range, answers: int) -> tuple[Tensor, Tensor]:
    """What `ContextMemory` holds at the last `answers` of the blocks: (B, answers, M, D) and
    (B, answers, D).

    Args: pooled (B, n, D), of every block, `ContextMemory.pooled`.
    """
    lcu = echo.config.lcu
    stride = lcu.memory_stride_blocks
    before = blocks.start % stride  # blocks of the first token that were not heard, and count as 0
    after = -(before + len(blocks)) % stride
    padded = F.pad(pooled.float(), (0, 0, before, after))
    tokens = padded.unflatten(1, (-1, stride))  # (B, tokens, S, D)
    counts = torch.arange(1, stride + 1, device=pooled.device)[:, None]
    means = tokens.cumsum(2) / counts
    past = F.pad(means[:, :, -1], (0, 0, lcu.memory_tokens, 0))  # nothing, then whole tokens
    last = before + len(blocks)
    places = range(max(last - answers, before), last)
    memory = [past[:, (n + 1) // stride :][:, : lcu.memory_tokens] for n in places]
    return torch.stack(memory, dim=1), means.flatten(1, 2)[:, places.start : places.stop]


def _pieces(blocks: range, border: int) -> list[range]:
    """Ranges of at most `PIECE_BLOCKS` blocks, none of which crosses the border."""
    parts = (
        range(blocks.start, min(border, blocks.stop)),
        range(max(border, blocks.start), blocks.stop),
    )
    return [part[n : n + PIECE_BLOCKS] for part in parts for n in range(0, len(part), PIECE_BLOCKS)]


def _inputs(echo: Echo, users: Sequence[Track], blocks: range) -> tuple[Tensor, Tensor, Tensor]:
    """Voices (B, n·F, D), faces (B, n·F, C, h, w) of the block before, and who is there."""
    frames, device = echo.config.block_frames, echo.device
    voices = np.stack([_padded(user.user_features, blocks)[:, -frames:] for user in users])
    voices = voices.reshape(len(users), len(blocks) * frames, -1)
    faces = np.stack([_faces(echo, user, _frames_before(blocks, frames)) for user in users])
    there = torch.tensor([float(block > 0) for block in blocks]).repeat_interleave(frames)
    known = torch.tensor([[1.0, float(user.seen)] for user in users])
    valid = there[None, :, None] * known[:, None]
    voice, face = (torch.from_numpy(halves).to(device).float() for halves in (voices, faces))
    return voice, face, valid.to(device)


def _first_faces(echo: Echo, users: Sequence[Track], blocks: range) -> Tensor:
    """(B, C, h, w): the first of each user's faces that is seen in `blocks`."""
    first = max(0, _frames_before(blocks, echo.config.block_frames).start)
    faces = np.concatenate([_faces(echo, user, range(first, first + 1)) for user in users])
    return torch.from_numpy(faces).float().to(echo.device)


def _faces(echo: Echo, user: Track, frames: range) -> np.ndarray:
    """(n, C, h, w) latents; zeros before the beginning, and of whom nobody sees."""
    if user.seen:
        return _padded(user.latents, frames)
    return np.zeros((len(frames), *echo.config.latent_shape), np.float16)


def _frames_before(blocks: range, frames: int) -> range:
    return range((blocks.start - 1) * frames, (blocks.stop - 1) * frames)


def _padded(array: np.ndarray, rows: range) -> np.ndarray:
    """Rows of an array; zeros where there are none, before its beginning."""
    known = array[max(0, rows.start) : max(0, rows.stop)]
    missing = np.zeros((len(rows) - len(known), *array.shape[1:]), array.dtype)
    return np.concatenate([missing, known])
