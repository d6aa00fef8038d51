"""This is where generated pictures are compared with true ones: one by one, and as a set.

- `psnr` in dB and `ssim` (Wang et al., 2004), frame by frame against the true frame of that moment.
  A listener may rightly nod at another moment than the true one did, so they bound nothing; they
  tell whether the picture is the same place, person and light.
- `perceptual_effnetlite0`: the distance of two pictures over normalised taps of EfficientNet-Lite0,
  as LPIPS without learned weights (Zhang et al., 2018, arXiv 1801.03924, Eq. 1 with w = 1).
- `fd_effnetlite0`, `kd_effnetlite0`: Fréchet and kernel distance of sets of frames on that
  network's 1280 features. The Fréchet distance is of their first 64 principal components, because
  some hundred frames do not determine 1280 × 1280 covariances; the components are the true frames'.

Legend: N pictures, H W pixels, C h w channels and places of a tap.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from training.measures.efficientnet_lite import as_input, efficientnet_lite0
from training.measures.frechet import frechet_distance, kernel_distance

COMPONENTS = 64
BATCH = 16
MAX_PSNR_DB = 100.0  # of equal pictures, whose ratio is infinite


def psnr(images: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N,) dB of (N, H, W, 3) uint8 pictures against true ones; at most 100."""
    with np.errstate(divide="ignore"):
        values = [peak_signal_noise_ratio(t, i) for i, t in zip(images, true, strict=True)]
    return np.minimum(values, MAX_PSNR_DB)


def ssim(images: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N,) structural similarity of (N, H, W, 3) uint8 pictures to true ones."""
    pairs = zip(images, true, strict=True)
    return np.array([structural_similarity(t, i, channel_axis=2) for i, t in pairs])


@torch.inference_mode()
def features_and_perceptual_distance(
    images: np.ndarray, true: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 1280) features of (N, H, W, 3) uint8 pictures, and (N,) distances to the true ones."""
    network = efficientnet_lite0()
    features, distances = [], []
    for start in range(0, len(images), BATCH):
        some = slice(start, start + BATCH)
        values, taps = network(as_input(images[some]))
        _, true_taps = network(as_input(true[some]))
        features.append(values.numpy())
        distances.append(tap_distance(taps, true_taps).numpy())
    return np.concatenate(features), np.concatenate(distances)


def tap_distance(taps: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """(N,) sums over taps (N, C, h, w) of the mean squared distance of unit vectors of channels."""
    parts = [
        (_unit(tap) - _unit(other)).square().sum(1).mean((1, 2))
        for tap, other in zip(taps, others, strict=True)
    ]
    return torch.stack(parts).sum(0)


def set_figures(features: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Fréchet and kernel distance of features (N, 1280) to true ones (M, 1280)."""
    center = true.mean(0)
    _, _, components = np.linalg.svd(true - center, full_matrices=False)
    axes = components[:COMPONENTS].T
    return {
        "fd_effnetlite0": frechet_distance((features - center) @ axes, (true - center) @ axes),
        "kd_effnetlite0": kernel_distance(features, true),
    }


def _unit(tap: Tensor) -> Tensor:
    return tap / tap.norm(dim=1, keepdim=True).clamp(min=1e-6)
