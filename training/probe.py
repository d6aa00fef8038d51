"""This is where latents are asked, cheaply, how far a mouth is open.

A ridge regression from the latents around the mouth, less the track's first frame, to the corpus's
true aperture. It needs no decoding and no landmark detector, so training can watch the audio-mouth
correlation as it goes; the shipped figures come from decoded video and landmarks
(`training.evaluate`).

Legend: T frames, C h w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data import Track


@dataclass(frozen=True)
class ApertureProbe:
    """A linear reading of mouth latents."""

    weight: np.ndarray  # (values,)

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """(T, C, h, w) latents of one track -> (T,) apertures, up to an offset."""
        return mouth_values(latents) @ self.weight


def mouth_values(latents: np.ndarray) -> np.ndarray:
    """(T, values) float32: the latents of the mouth region, less their mean over the track."""
    size = latents.shape[-1]
    rows, columns = slice(size * 5 // 8, size * 7 // 8), slice(size * 3 // 8, size * 5 // 8)
    values = latents[:, :, rows, columns].reshape(len(latents), -1).astype(np.float32)
    return values - values.mean(0)


def fit_probe(tracks: Sequence[Track], ridge: float = 30.0) -> ApertureProbe:
    """The probe that fits the true latents of training tracks best."""
    values = np.concatenate([mouth_values(track.latents) for track in tracks])
    apertures = np.concatenate([_centred(track.truth["aperture"]) for track in tracks])
    gram = values.T @ values + ridge * np.eye(values.shape[1], dtype=np.float32)
    return ApertureProbe(np.linalg.solve(gram, values.T @ apertures))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two series; 0 when one does not move."""
    a, b = _centred(a), _centred(b)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def _centred(series: np.ndarray) -> np.ndarray:
    return np.asarray(series, np.float32) - np.mean(series, dtype=np.float32)
