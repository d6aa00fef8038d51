"""This is where it is read in the avatar's voice how far its mouth opens.

How far it does is a matter of each frame's whole window of the voice, as the audio projectors of
talking heads read it (Xu et al., 2024, Hallo, arXiv 2406.08801, §3.2). It can be learned without a
picture, and a hundred times as fast as through the denoiser, which needs long to find it out by
attention (`training.articulate`). So the denoiser is told, as it is told how the head moves
(`visavis.nn.place_maps`), beside SDCM's attention to the voice.

Legend: B batch, F frames, A audio feature frames, S of them in a frame's window.
"""

from __future__ import annotations

from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.audio_tokens import window_of


class Articulation(nn.Module):
    """Speech features (B, A, D_audio) -> (B, F, 1): how far the mouth opens, in deviations from its
    mean."""

    window: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.register_buffer("window", window_of(config), persistent=False)
        features, width = config.audio.feature_width, config.denoiser.articulation_width
        self.layers = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, width),
            nn.Flatten(-2),
            nn.Dropout(0.0),  # `training.articulate` has some
            nn.Linear(self.window.shape[1] * width, 2 * width),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(2 * width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features[:, self.window])
