"""This is where the two voices meet without mixing: ECHO's spatially decoupled cross-modal layer.

As drawn in ECHO, Fig. 2 (right):

    h_usr = CrossAttn1(h, f_pu)            h_avt = CrossAttn2(h, A_avt)
    g     = f_g( conv1(h_usr), conv2(h_avt) )
    h    += M_face ⊙ ( g ⊙ h_avt + (1 − g) ⊙ h_usr )  +  M_lip ⊙ h_avt

The user never enters through the lip mask. The paper does not draw f_g's activation or width: here
a sigmoid, one gate for each group of channels.

Legend: B batch, F frames, N = g² tokens a frame, D width, K user tokens a frame, S audio tokens a
frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.attention import Attention


class SDCM(nn.Module):
    """The change that SDCM adds to the hidden tokens.

    Args of `forward`:
        h: (B, F, N, D) float32, normalised hidden tokens.
        user_tokens: (B, F·K, D_lcu) float32, f_pu; every frame may look at all of them, since
            they are of the interval before.
        avatar_audio_tokens: (B, F, S, D) float32; a frame sees its own.
        lip_mask, face_mask: (B, 1, N, 1) float32.
    Returns (B, F, N, D) float32.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        width, heads = config.denoiser.width, config.denoiser.heads
        self.grid, self.groups = config.token_grid, config.denoiser.gate_groups
        self.user_attention = Attention(width, heads, config.lcu.width)  # CrossAttn1
        self.audio_attention = Attention(width, heads)  # CrossAttn2
        self.user_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.audio_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.gate = nn.Linear(2 * width, self.groups)  # f_g
        # The user is silent until stage 2 gives it something to say.
        nn.init.zeros_(self.user_attention.out.weight)
        nn.init.zeros_(self.user_attention.out.bias)

    def forward(
        self,
        h: Tensor,
        user_tokens: Tensor,
        avatar_audio_tokens: Tensor,
        lip_mask: Tensor,
        face_mask: Tensor,
    ) -> Tensor:
        batch, frames = h.shape[:2]
        h_usr = self.user_attention(h.flatten(1, 2), user_tokens).unflatten(1, (frames, -1))
        h_avt = self.audio_attention(h.flatten(0, 1), avatar_audio_tokens.flatten(0, 1))
        h_avt = h_avt.unflatten(0, (batch, frames))
        g = self._gate(h_usr, h_avt)
        blend = h_usr + g * (h_avt - h_usr)  # g ⊙ h_avt + (1 − g) ⊙ h_usr
        return face_mask * blend + lip_mask * h_avt

    def _gate(self, h_usr: Tensor, h_avt: Tensor) -> Tensor:
        both = [self._convolve(self.user_conv, h_usr), self._convolve(self.audio_conv, h_avt)]
        g = torch.sigmoid(self.gate(torch.cat(both, dim=-1)))  # (B, F, N, groups)
        return g.repeat_interleave(h_usr.shape[-1] // self.groups, dim=-1)

    def _convolve(self, conv: nn.Conv2d, h: Tensor) -> Tensor:
        batch, frames = h.shape[:2]
        plane = h.flatten(0, 1).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return conv(plane).flatten(2).transpose(1, 2).unflatten(0, (batch, frames))


class EntangledCrossAttention(nn.Module):
    """What stands in SDCM's place when its decoupling is left out: one attention over both voices.

    Args and result of `forward` as of `SDCM`; the masks are not used, the user reaches the lips.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        width, heads = config.denoiser.width, config.denoiser.heads
        self.user_project = nn.Linear(config.lcu.width, width)
        self.attention = Attention(width, heads)

    def forward(
        self,
        h: Tensor,
        user_tokens: Tensor,
        avatar_audio_tokens: Tensor,
        lip_mask: Tensor,
        face_mask: Tensor,
    ) -> Tensor:
        batch, frames = h.shape[:2]
        user = self.user_project(user_tokens)[:, None].expand(-1, frames, -1, -1)
        both = torch.cat([user, avatar_audio_tokens], dim=2)  # (B, F, F·K + S, D)
        mixed = self.attention(h.flatten(0, 1), both.flatten(0, 1))
        return mixed.unflatten(0, (batch, frames))
