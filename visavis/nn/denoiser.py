"""This is where one block of the avatar's latents is denoised (ECHO, Fig. 2, "Avatar Generator").

    L × [ self-attention → cross-attention (reference, c_emo) → SDCM → feed-forward ]

The network predicts x_0 as the reference plus a change, through a convolutional stem and head: at
small training budgets that learns lips where plain velocity prediction over linear patches did not.
The reference and the previous latents are concatenated to every noisy frame (the Ⓒ of Fig. 2),
which makes the seam to the block before a local matter. Conditioning on time is shared by all
blocks (adaLN-single: Chen et al., 2023, arXiv 2310.00426). The paper's door for c_emo is the
cross-attention; there a few tokens of feeling stand beside many of looks, and on a small corpus the
network never came to heed them. So their mean also joins every token and the shared modulation.

Legend: B batch, F frames, P previous frames, C h w latents, g token grid, N = g² tokens a frame,
D width, A audio feature frames, S audio tokens a frame, K user tokens a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis import motion as motions
from visavis.config import EchoConfig
from visavis.nn.articulation import Articulation
from visavis.nn.attention import Attention, FeedForward, sinusoidal_embedding
from visavis.nn.audio_tokens import AudioTokens
from visavis.nn.place_maps import PlaceMaps
from visavis.nn.residual import ResidualBlock
from visavis.nn.sdcm import SDCM, EntangledCrossAttention

TIMESTEP_WIDTH = 128


class DenoiserBlock(nn.Module):
    """One block of Fig. 2, with its part of the shared time conditioning."""

    def __init__(self, config: EchoConfig):
        super().__init__()
        denoiser = config.denoiser
        width, heads = denoiser.width, denoiser.heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.sdcm_norm = nn.LayerNorm(width)
        self.cross_norm = nn.LayerNorm(width)
        decoupled = "decoupling" not in config.without
        self.sdcm = SDCM(config) if decoupled else EntangledCrossAttention(config)
        self.feed_forward = FeedForward(width, denoiser.mlp_ratio)
        table = torch.zeros(6, width)
        table[2], table[5] = 0.3, 0.3  # gates start part open: small budgets have no time for zero
        self.modulation = nn.Parameter(table)

    def forward(
        self,
        h: Tensor,
        time: Tensor,
        context: Tensor,
        user_tokens: Tensor,
        audio_tokens: Tensor,
        lip_mask: Tensor,
        face_mask: Tensor,
    ) -> Tensor:
        """h (B, F, N, D), time (B, F, 6, D), context (B, R + E, D), the rest as in `SDCM`."""
        frames = h.shape[1]
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = (time + self.modulation)[
            :, :, :, None
        ].unbind(2)  # six of (B, F, 1, D)
        x = self.norm(h) * (1 + scale_1) + shift_1
        h = h + gate_1 * self.self_attention(x.flatten(1, 2)).unflatten(1, (frames, -1))
        x = self.cross_norm(h).flatten(1, 2)
        h = h + self.cross_attention(x, context).unflatten(1, (frames, -1))
        h = h + self.sdcm(self.sdcm_norm(h), user_tokens, audio_tokens, lip_mask, face_mask)
        x = self.norm(h) * (1 + scale_2) + shift_2
        return h + gate_2 * self.feed_forward(x)


class SDCMDenoiser(nn.Module):
    """Predicts clean latents x_0 from noisy ones (names and shapes as in `visavis.contract`).

    Args of `forward`, all float32:
        x_t: (B, F, C, h, w). timestep: (B, 1) in [0, 1], 1 is pure noise.
        condition_mask: (B, 2), 0 drops the avatar's voice, or the user with c_emo (for guidance).
        reference_latents: (B, C, h, w). previous_latents: (B, P, C, h, w).
        reference_tokens: (B, R, D). affect_tokens: (B, E, D_affect).
        avatar_audio_features: (B, A, D_audio). user_tokens: (B, F, K, D_lcu).
        region_masks: (B, 2, g, g), lip and face. motion: (B, F, M), see `visavis.motion`.
    Returns x_0: (B, F, C, h, w).
    """

    motion_scales: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.config = config
        self.feels, self.moves, self.articulates = (
            part not in config.without for part in ("affect", "motion", "articulation")
        )
        denoiser = config.denoiser
        width, stem, patch = denoiser.width, denoiser.stem_width, denoiser.patch
        channels = config.latent_channels
        self.stem = nn.Sequential(
            nn.Conv2d((2 + denoiser.previous_frames) * channels, stem, 3, padding=1),
            ResidualBlock(stem),
        )
        self.to_tokens = nn.Conv2d(stem, width, patch, patch)
        self.position = nn.Parameter(torch.randn(config.token_grid**2, width) * 0.02)
        self.frame_position = nn.Parameter(torch.randn(config.block_frames, 1, width) * 0.02)
        self.time = nn.Sequential(
            nn.Linear(TIMESTEP_WIDTH, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.time_modulation = nn.Linear(width, 6 * width)
        self.audio_tokens = AudioTokens(config)
        self.register_buffer("motion_scales", torch.tensor(motions.SCALES), persistent=False)
        self.motion = PlaceMaps(config, len(motions.NAMES))
        self.articulation = Articulation(config)
        self.articulation_maps = PlaceMaps(config, 1)
        self.affect_project = nn.Linear(config.affect.width, width)
        self.affect_modulation = nn.Linear(config.affect.width, 6 * width)
        self.affect_input = nn.Linear(config.affect.width, width)
        self.user_absent = nn.Parameter(torch.zeros(config.lcu.width))
        self.blocks = nn.ModuleList(DenoiserBlock(config) for _ in range(denoiser.depth))
        self.norm = nn.LayerNorm(width)
        self.from_tokens = nn.Linear(width, stem * patch**2)
        self.head = nn.Sequential(
            nn.Conv2d(2 * stem, stem, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(stem),
            nn.Conv2d(stem, channels, 3, padding=1),
        )
        for layer in (self.time_modulation, self.affect_modulation, self.affect_input):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)  # an untrained avatar is its own portrait
        nn.init.zeros_(last.bias)

    def forward(
        self,
        x_t: Tensor,
        timestep: Tensor,
        condition_mask: Tensor,
        reference_latents: Tensor,
        previous_latents: Tensor,
        reference_tokens: Tensor,
        affect_tokens: Tensor,
        avatar_audio_features: Tensor,
        user_tokens: Tensor,
        region_masks: Tensor,
        motion: Tensor,
    ) -> Tensor:
        batch, frames = x_t.shape[:2]
        has_audio, has_user = condition_mask[:, :1, None], condition_mask[:, 1:, None]
        told = self._told(motion, avatar_audio_features, has_audio)
        planes = self._stem(x_t, reference_latents, previous_latents)  # (B·F, stem, h, w)
        for maps, numbers in told:
            planes = maps.planes(planes, numbers)
        h = self.to_tokens(planes).flatten(2).transpose(1, 2)
        h = h.unflatten(0, (batch, frames)) + self.position + self.frame_position

        time = self.time(sinusoidal_embedding(timestep[:, 0] * 1000, TIMESTEP_WIDTH))
        modulation = self.time_modulation(time).unflatten(1, (6, -1))
        if self.feels:
            felt = has_user[:, 0] * affect_tokens.mean(1)
            modulation = modulation + self.affect_modulation(felt).unflatten(1, (6, -1))
            h = h + self.affect_input(felt)[:, None, None]
        modulation = modulation[:, None]  # a frame each
        for maps, numbers in told:
            modulation = modulation + maps.modulation(numbers)
            h = h + maps.tokens(numbers)
        audio_tokens = self.audio_tokens(avatar_audio_features, has_audio)
        user = has_user * user_tokens.flatten(1, 2) + (1 - has_user) * self.user_absent
        context = reference_tokens
        if self.feels:
            affect = has_user * self.affect_project(affect_tokens)
            context = torch.cat([context, affect], dim=1)
        masks = region_masks.flatten(2)[:, :, None, :, None]  # (B, 2, 1, N, 1)
        lip_mask, face_mask = masks[:, 0], masks[:, 1]

        for block in self.blocks:
            h = block(h, modulation, context, user, audio_tokens, lip_mask, face_mask)
        return reference_latents[:, None] + self._head(h, planes)

    def _told(
        self, motion: Tensor, voice: Tensor, has_audio: Tensor
    ) -> list[tuple[PlaceMaps, Tensor]]:
        """The numbers (B, F, M) that say what the face is to do, each with its maps."""
        told = []
        if self.moves:
            told.append((self.motion, motion / self.motion_scales))
        if self.articulates:
            opening = self.config.denoiser.articulation_gain * self.articulation(voice)
            told.append((self.articulation_maps, has_audio * opening))
        return told

    def _stem(self, x_t: Tensor, reference: Tensor, previous: Tensor) -> Tensor:
        frames = x_t.shape[1]
        known = torch.cat([reference, previous.flatten(1, 2)], dim=1)  # (B, (1+P)·C, h, w)
        known = known[:, None].expand(-1, frames, -1, -1, -1)
        return self.stem(torch.cat([x_t, known], dim=2).flatten(0, 1))

    def _head(self, h: Tensor, planes: Tensor) -> Tensor:
        batch, frames = h.shape[:2]
        grid, patch = self.config.token_grid, self.config.denoiser.patch
        tokens = self.from_tokens(self.norm(h)).flatten(0, 1).transpose(1, 2)
        decoded = F.pixel_shuffle(tokens.unflatten(2, (grid, grid)), patch)
        change = self.head(torch.cat([decoded, planes], dim=1))
        return change.unflatten(0, (batch, frames))
