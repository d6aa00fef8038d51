"""This is where a video is looked at once, and all that the measures need of it is kept.

Legend: T frames, S sampled frames (one in ten), N faces (one a second).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from visavis_client.face import FaceFinder

from training.data import Track
from training.identity import embeddings
from training.measures import lip_sync
from training.measures.motion import apertures, landmarks, motion, seen
from training.measures.picture import features_and_perceptual_distance, psnr, ssim
from training.measures.system import System
from visavis.config import FRAME_RATE_HZ, EchoConfig

PICTURE_EVERY = 10  # frames between two that are compared as pictures


@dataclass(frozen=True)
class Instruments:
    """The networks that look: MediaPipe's, and the lip scorer with the cache's size, if any."""

    finder: FaceFinder = field(default_factory=FaceFinder)
    scorer: lip_sync.LipSync | None = None
    size: EchoConfig | None = None


@dataclass(frozen=True)
class Observation:
    """What was seen of one video.

    seen: (T,) bool, a face was found. apertures: (T,), NaN without a face. motion: the streams
    (T, D) of `measures.motion`, None without a face. psnr, ssim, perceptual: (S,) against the true
    frames. features: (S, 1280) of EfficientNet-Lite0. identity: (N, 128) of dlib. lips: how they
    fit the track's own voice where it speaks, None without a scorer or speech. own_figures: the
    system's.
    """

    seen: np.ndarray
    apertures: np.ndarray
    motion: Mapping[str, np.ndarray] | None
    psnr: np.ndarray
    ssim: np.ndarray
    perceptual: np.ndarray
    features: np.ndarray
    identity: np.ndarray
    lips: lip_sync.LipSyncScore | None
    own_figures: Mapping[str, float]


def observe(
    instruments: Instruments, system: System, n: int, video: np.ndarray, track: Track
) -> Observation:
    """What is seen of the system's video (T, H, W, 3) uint8 of the held-out track n."""
    points = landmarks(instruments.finder, video)
    portrait = landmarks(instruments.finder, system.portrait(n)[None])
    sampled, true = video[::PICTURE_EVERY], track.frames[: len(video) : PICTURE_EVERY]
    features, perceptual = features_and_perceptual_distance(sampled, true)
    return Observation(
        seen=seen(points),
        apertures=apertures(points),
        motion=motion(points, portrait),
        psnr=psnr(sampled, true),
        ssim=ssim(sampled, true),
        perceptual=perceptual,
        features=features,
        identity=embeddings(video[::FRAME_RATE_HZ]),
        lips=_lips(instruments, video, track),
        own_figures=system.own_figures(n, video),
    )


def _lips(
    instruments: Instruments, video: np.ndarray, track: Track
) -> lip_sync.LipSyncScore | None:
    scorer, size = instruments.scorer, instruments.size
    if scorer is None or size is None:
        return None
    features = lip_sync.frame_features(track, size)[: len(video)]
    mouths = lip_sync.mouth_crops(video[: len(features)], scorer.config.mouth_size)
    speaking = track.truth["speaking"][: len(features)].astype(bool)
    return lip_sync.score(*lip_sync.embed(scorer, mouths, features), speaking)
