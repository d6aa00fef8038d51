"""This is where the user is perceived: LCU's Low-level Perception Encoding (ECHO, Fig. 2).

    P_usr = F_int( F_gm( A_usr, M_a(f_audio) ), M_v(mask(V_usr)) )

M_a scans the user's voice over time, M_v the user's face along a serpentine path through its tokens
and on through time; both are selective state-space models that carry their state, so they hear and
see the whole conversation at a constant cost a block.

F_gm gates the scan by the raw features (the skip in Fig. 2); F_int lets face and voice modulate
each other. "Mask" is not defined in the paper: here it weighs tokens by the face's place in the
crop. Ours too is that a face is seen as its change since it was first seen. Who somebody is shows
more in latents than what they do: without the difference, a network soon knows its few dozen people
by their looks, and sees nothing in a stranger's smile.

Without LPE (`EchoConfig.without`) nothing is scanned: what is left, a projection of each frame by
itself, feeds the memory of `visavis.nn.understanding` alone.

Legend: B batch, F frames, G video tokens a side, K tokens a frame, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.selective_scan import SelectiveScan


def serpentine_order(grid: int) -> list[int]:
    """Token indices of a grid, row by row, every other row backwards, so neighbours stay so."""
    rows = [[row * grid + column for column in range(grid)] for row in range(grid)]
    return [index for n, row in enumerate(rows) for index in (row if n % 2 == 0 else row[::-1])]


def first_seen(reference: Tensor, latents: Tensor, valid: Tensor) -> Tensor:
    """The reference (B, C, h, w); where there is none yet, a face (B, C, h, w) if valid (B,)."""
    seen = reference.abs().amax((1, 2, 3), keepdim=True) > 0
    return torch.where(seen, reference, valid[:, None, None, None] * latents)


class AudioScan(nn.Module):
    """M_a and F_gm: (B, F, D_audio) -> (B, F, D)."""

    def __init__(self, config: EchoConfig):
        super().__init__()
        lcu = config.lcu
        self.scans = "perception" not in config.without
        self.project = nn.Linear(config.audio.feature_width, lcu.width)
        self.absent = nn.Parameter(torch.zeros(lcu.width))
        self.scan = SelectiveScan(lcu.width, lcu.heads, lcu.scan_state)
        self.gate = nn.Linear(2 * lcu.width, lcu.width)

    def forward(self, features: Tensor, valid: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.project(features)
        raw = valid * raw + (1 - valid) * self.absent
        if not self.scans:
            return raw, state
        scanned, state = self.scan(raw, state)
        gate = torch.sigmoid(self.gate(torch.cat([raw, scanned], dim=-1)))
        return raw + gate * scanned, state


class VideoScan(nn.Module):
    """M_v over the change of the user's face: (B, F, C, h, w) -> (B, F, G², D).

    Each place has a projection of its own, as a mouth does not say what a cheek says, and tokens
    are averaged over quadrants in the end.
    """

    order: Tensor
    inverse: Tensor
    face_weight: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        lcu = config.lcu
        self.scans = "perception" not in config.without
        self.patch = config.latent_size // lcu.video_grid
        places, values = lcu.video_grid**2, config.latent_channels * self.patch**2
        self.project = nn.Parameter(torch.randn(places, values, lcu.width) * values**-0.5)
        self.position = nn.Parameter(torch.randn(places, lcu.width) * 0.02)
        self.absent = nn.Parameter(torch.zeros(lcu.width))
        self.scan = SelectiveScan(lcu.width, lcu.heads, lcu.scan_state)
        order = torch.tensor(serpentine_order(lcu.video_grid))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)
        # Aligned crops keep the face in place, so the mask is a constant: full over the face, a
        # fifth at the rim.
        axis = (torch.arange(lcu.video_grid) + 0.5) / lcu.video_grid
        distance = ((axis[:, None] - 0.55) / 0.35) ** 2 + ((axis[None, :] - 0.5) / 0.3) ** 2
        weight = 0.2 + 0.8 * torch.exp(-0.5 * distance)
        self.register_buffer("face_weight", weight.flatten()[:, None], persistent=False)

    def forward(self, change: Tensor, valid: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames = change.shape[:2]
        patches = F.pixel_unshuffle(change.flatten(0, 1), self.patch)  # (B·F, C·p², G, G)
        tokens = patches.flatten(2).permute(2, 0, 1) @ self.project  # (G², B·F, D)
        tokens = (tokens.transpose(0, 1) + self.position) * self.face_weight
        tokens = tokens.unflatten(0, (batch, frames))
        tokens = valid[..., None] * tokens + (1 - valid[..., None]) * self.absent
        if not self.scans:
            return tokens, state
        path = tokens[:, :, self.order].flatten(1, 2)  # (B, F·G², D)
        scanned, state = self.scan(path, state)
        scanned = (path + scanned).unflatten(1, (frames, -1))
        return scanned[:, :, self.inverse], state


class Perception(nn.Module):
    """LPE: the user's voice and face -> P_usr (B, F, K, D), the scans' states and the reference.

    F is a block's frames or any number of blocks'.

    Args of `forward`:
        audio_features: (B, F, D_audio) float32. latents: (B, F, C, h, w) float32.
        valid: (B, F or 1, 2) float32, whether voice and face are there.
        audio_state, video_state: (B, heads, D/heads, N) float32.
        reference: (B, C, h, w) float32, the user's face as it was first seen; 0 until then.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        lcu = config.lcu
        self.grid = lcu.video_grid
        self.audio_scan = AudioScan(config)
        self.video_scan = VideoScan(config)
        self.to_tokens = nn.Linear(lcu.width, lcu.width)
        self.modulation = nn.Linear(lcu.width, 2 * lcu.width)
        self.norm = nn.LayerNorm(lcu.width)
        self.kind = nn.Parameter(torch.randn(lcu.tokens_per_frame, lcu.width) * 0.02)

    def forward(
        self,
        audio_features: Tensor,
        latents: Tensor,
        valid: Tensor,
        audio_state: Tensor,
        video_state: Tensor,
        reference: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        voice, audio_state = self.audio_scan(audio_features, valid[..., :1], audio_state)
        reference = first_seen(reference, latents[:, 0], valid[:, 0, 1])
        change = latents - reference[:, None]
        face, video_state = self.video_scan(change, valid[..., 1:], video_state)
        quadrants = self._quadrants(face)  # (B, F, 4, D)
        scale, shift = self.modulation(voice)[:, :, None].chunk(2, dim=-1)
        quadrants = self.to_tokens(self.norm(quadrants)) * (1 + scale) + shift  # F_int
        perceived = torch.cat([voice[:, :, None], quadrants], dim=2)
        return perceived + self.kind, audio_state, video_state, reference

    def _quadrants(self, face: Tensor) -> Tensor:
        half = self.grid // 2
        grid = face.unflatten(2, (2, half, 2, half))  # (B, F, 2, G/2, 2, G/2, D)
        return grid.mean(dim=(3, 5)).flatten(2, 3)
