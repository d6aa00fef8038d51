"""This is where a waveform becomes speech features at 25 frames a second.

Whisper's encoder (Radford et al., 2022, arXiv 2212.04356) runs over a short window instead of its
padded 30 s, which takes 9 ms rather than 211 ms at tiny size on two cores. Middle layers keep the
sounds that the last one has begun to turn into words, so several layers are tapped.

Legend: B batch, S samples, M mel frames (100 Hz), P positions (50 Hz), A feature frames (25 Hz).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from visavis.config import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, AudioEncoderConfig

FFT_SAMPLES = 400
HOP_SAMPLES = 160


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram as convolution and product: (B, S) -> (B, mel_bins, M).

    The Fourier transform is a convolution with sines and cosines, because runtimes have no common
    short-time Fourier operator. Tests compare it with transformers' feature extractor.
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, mel_bins: int):
        super().__init__()
        bins = FFT_SAMPLES // 2 + 1
        angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(FFT_SAMPLES)) / FFT_SAMPLES
        window = np.hanning(FFT_SAMPLES + 1)[:-1]
        basis = np.concatenate([np.cos(angle), np.sin(angle)]) * window
        filters = mel_filter_bank(
            bins,
            mel_bins,
            0.0,
            SAMPLE_RATE_HZ / 2,
            SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("basis", torch.tensor(basis[:, None], dtype=torch.float32), False)
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), False)

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform[:, None], (FFT_SAMPLES // 2, FFT_SAMPLES // 2), mode="reflect")
        spectrum = F.conv1d(padded, self.basis, stride=HOP_SAMPLES)[..., :-1]
        real, imaginary = spectrum.chunk(2, dim=1)
        mel = self.filters @ (real**2 + imaginary**2)
        log_mel = torch.log10(mel.clamp(min=1e-10))
        floor = log_mel.amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(log_mel, floor) + 4.0) / 4.0


class AudioEncoder(nn.Module):
    """The served encoder: `avatar_waveform` and `user_waveform`, (B, S) float32 each, ->
    `avatar_audio_features` and `user_audio_features`, (B, A, D) float32 each.

    Both voices go through at once, as half of the time of a pass is for reading the weights.
    Features are those of the window's last A frames; two 50 Hz positions make one 25 Hz frame.
    """

    def __init__(self, config: AudioEncoderConfig):
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.mel_bins)
        self.encoder = WhisperEncoder(
            WhisperConfig(
                d_model=config.width,
                encoder_layers=config.layers,
                encoder_attention_heads=config.heads,
                encoder_ffn_dim=4 * config.width,
                num_mel_bins=config.mel_bins,
                max_source_positions=config.window_samples // SAMPLES_PER_FRAME * 2,
            )
        )
        self.encoder.requires_grad_(False).eval()

    def forward(self, avatar_waveform: Tensor, user_waveform: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([avatar_waveform, user_waveform]).flatten(0, 1)
        avatar, user = self.features(both).unflatten(0, (2, -1)).unbind(0)
        return avatar, user

    def features(self, waveform: Tensor) -> Tensor:
        """(B, A, D) of waveforms (B, S)."""
        hidden = self.encoder(self.log_mel(waveform), output_hidden_states=True).hidden_states
        tapped = torch.cat([hidden[layer] for layer in self.config.tapped_layers], dim=-1)
        frames = tapped.unflatten(1, (-1, 2)).flatten(2)  # (B, P/2, 2·D)
        return frames[:, -self.config.feature_frames :]
