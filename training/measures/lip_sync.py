"""This is where a video is asked whether its lips belong to a voice, and how many frames early or
late they come.

Two small networks, one for a fifth of a second of mouth and one for as much of voice, learn to put
what belongs together in one place (SyncNet; Chung & Zisserman, 2016, Out of time). The voice comes
as the Whisper features that the cache has, so the audio network is little more than a projection.
Of one clip, every moment's mouth must find its own moment's voice among all others', and the other
way round (the multi-way matching of Chung, Chung & Kang, 2019, arXiv 1809.08001). Negatives are of
the same clip only: who somebody is says nothing about when.

`training.lip_sync` trains it. Its figures are its own, not SyncNet's LSE-C and LSE-D.

Legend: B clips, T frames, F window frames, W = T − F + 1 windows, S side of a mouth, D audio width,
E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import Track
from visavis import checkpoint
from visavis.config import EchoConfig

# The mouth's place in an aligned crop (`visavis_client.face`), as shares of its side.
MOUTH_ROWS, MOUTH_COLUMNS = (0.55, 0.83), (0.36, 0.64)
LEAST_CONTRAST = 2 / 255  # a mouth that moves less is a picture's noise
MAX_OFFSET = 10  # frames


@dataclass(frozen=True)
class LipSyncConfig:
    """The two networks' shape."""

    audio_width: int = 1536
    window_frames: int = 5
    mouth_size: int = 32
    mouth_widths: tuple[int, ...] = (24, 48, 96)
    voice_width: int = 96
    embedding: int = 64
    dropout: float = 0.2


@dataclass(frozen=True)
class LipSyncScore:
    """How lips and voice of one video fit.

    offset_frames: by how many frames the lips come after the voice; negative when they lead.
    distance: mean distance of embeddings at that offset, 0 to 2.
    confidence: the median over all offsets less that distance, as SyncNet's published code has it.
    curve: (2 · 10 + 1,) mean distances at offsets −10 to 10.
    """

    offset_frames: int
    distance: float
    confidence: float
    curve: np.ndarray


class MouthEncoder(nn.Module):
    """(N, F, S, S) windows of normalised grey mouths -> (N, E)."""

    def __init__(self, config: LipSyncConfig):
        super().__init__()
        layers: list[nn.Module] = []
        channels = config.window_frames
        for width in config.mouth_widths:
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(4, width), nn.SiLU()]
            channels = width
        side = config.mouth_size // 2 ** len(config.mouth_widths)
        layers += [nn.Flatten(), nn.Dropout(config.dropout)]
        layers += [nn.Linear(channels * side**2, config.embedding)]
        self.layers = nn.Sequential(*layers)

    def forward(self, windows: Tensor) -> Tensor:
        return self.layers(windows)


class VoiceEncoder(nn.Module):
    """(B, T, D) audio features -> (B, W, E)."""

    def __init__(self, config: LipSyncConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.audio_width, elementwise_affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(config.audio_width, config.voice_width)
        self.join = nn.Conv1d(config.voice_width, config.voice_width, config.window_frames)
        self.out = nn.Linear(config.voice_width, config.embedding)

    def forward(self, features: Tensor) -> Tensor:
        x = F.silu(self.project(self.dropout(self.norm(features))))
        joined = F.silu(self.join(x.transpose(1, 2))).transpose(1, 2)
        return self.out(joined)


class LipSync(nn.Module):
    """Mouths (B, T, S, S) and audio features (B, T, D) -> unit embeddings of both, (B, W, E)."""

    def __init__(self, config: LipSyncConfig):
        super().__init__()
        self.config = config
        self.mouth = MouthEncoder(config)
        self.voice = VoiceEncoder(config)
        self.sharpness = nn.Parameter(torch.tensor(2.0))  # logarithm of the logits' scale

    def forward(self, mouths: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        windows = mouths.unfold(1, self.config.window_frames, 1)  # (B, W, S, S, F)
        windows = windows.movedim(-1, 2)  # (B, W, F, S, S)
        seen = self.mouth(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return F.normalize(seen, dim=-1), F.normalize(self.voice(features), dim=-1)


def matching_loss(lips: Tensor, voices: Tensor, sharpness: Tensor) -> Tensor:
    """Cross-entropy of finding one's own among a clip's windows, both ways; (B, W, E) each."""
    logits = sharpness.exp() * lips @ voices.transpose(1, 2)  # (B, W, W)
    own = torch.arange(logits.shape[1]).expand(len(logits), -1)
    rows, columns = (F.cross_entropy(x, own) for x in (logits, logits.transpose(1, 2)))
    return (rows + columns) / 2


def mouth_crops(video: np.ndarray, size: int) -> np.ndarray:
    """(T, S, S) uint8 grey mouths of aligned crops (T, H, W, 3) uint8."""
    height, width = video.shape[1:3]
    rows = slice(*(round(edge * height) for edge in MOUTH_ROWS))
    columns = slice(*(round(edge * width) for edge in MOUTH_COLUMNS))
    return np.stack(
        [
            cv2.resize(
                cv2.cvtColor(np.ascontiguousarray(frame[rows, columns]), cv2.COLOR_RGB2GRAY),
                (size, size),
                interpolation=cv2.INTER_AREA,
            )
            for frame in video
        ]
    )


def normalised(mouths: np.ndarray) -> np.ndarray:
    """(T, S, S) uint8 mouths of one person as float32, less their mean and of unit contrast.

    What is left is movement: skin, light and beard are in the mean.
    """
    values = mouths.astype(np.float32) / 255
    values -= values.mean(0)
    return values / max(float(values.std()), LEAST_CONTRAST)


def frame_features(track: Track, config: EchoConfig) -> np.ndarray:
    """(T, D) float16: the audio features of every frame of whole blocks of a cached track."""
    first = config.audio.feature_frames - config.lookahead_frames - config.block_frames
    blocks = np.asarray(track.avatar_features)[:, first : first + config.block_frames]
    return blocks.reshape(-1, blocks.shape[-1])


@torch.inference_mode()
def embed(
    model: LipSync, mouths: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings (W, E) of one person's mouths (T, S, S) uint8 and of a voice (T, D)."""
    lips, voices = model(
        torch.from_numpy(normalised(mouths))[None],
        torch.from_numpy(np.asarray(features, np.float32))[None],
    )
    return lips[0].numpy(), voices[0].numpy()


def score(
    lips: np.ndarray, voices: np.ndarray, counted: np.ndarray | None = None
) -> LipSyncScore | None:
    """The score of embeddings (W, E) of lips and voice.

    `counted` (T,) bool are the frames that matter, such as those with speech: a mouth that rests
    fits every silence. All offsets are judged on the same lips, so ten windows at either end are
    left out. None when no counted frame is left.
    """
    middle = np.arange(MAX_OFFSET, len(lips) - MAX_OFFSET)
    if counted is not None:
        half = (len(counted) - len(lips)) // 2  # a window is where its middle frame is
        middle = middle[counted[middle + half]]
    if not len(middle):
        return None
    offsets = range(-MAX_OFFSET, MAX_OFFSET + 1)
    curve = np.array(
        [
            np.linalg.norm(lips[middle] - voices[middle - offset], axis=1).mean()
            for offset in offsets
        ]
    )
    best = int(curve.argmin())
    distance = float(curve[best])
    return LipSyncScore(offsets[best], distance, float(np.median(curve)) - distance, curve)


def save(folder: Path, model: LipSync, **facts: object) -> Path:
    """A checkpoint folder of the scorer, in the layout of `visavis.checkpoint`."""
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    return checkpoint.save(folder, "lip_sync", model.config, weights, **facts)


def load(folder: str | Path) -> LipSync:
    """The scorer of a checkpoint folder, in evaluation mode; CheckpointError for another's."""
    found = checkpoint.load_as(LipSyncConfig, folder, "lip_sync")
    model = LipSync(found.config)
    model.load_state_dict({name: torch.from_numpy(w) for name, w in found.weights.items()})
    return model.eval()
