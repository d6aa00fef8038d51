"""This is where systems stand that know nothing, without which no figure means anything.

- `ground_truth`: the corpus's own video; what the instruments make of a perfect avatar
- `static_face`: the portrait, held still
- `training_mean`: the mean frame of the training split, a blurred face that stands for nobody
- `partner_mirrored`: the partner's video in a mirror; perfectly responsive, 0 ms late, and wrong
- `shuffled`: the true video of somebody in another conversation; natural, and responds to nobody

Two more need trained networks (`measures.avatar`): `reconstruction`, the truth through the VAE and
back, above which no denoiser can get; and `audio_only`, the avatar without its user.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from training.data import Track
from training.measures.system import System, portraits

MEAN_EVERY = 50  # frames of a training track


def others(people: Sequence[Track]) -> list[Track]:
    """For each person somebody of another conversation; `people` has both of each, in order."""
    if len(people) < 4:
        raise ValueError(
            f"test split: got {len(people)} tracks, expected at least two conversations of two, "
            "so that people can be swapped; render or prepare more"
        )
    return [*people[2:], *people[:2]]


def ground_truth(people: Sequence[Track], frames: int) -> System:
    """The corpus's videos."""
    return System(
        "ground_truth", lambda n: people[n].frames[:frames], portraits(people), "baseline"
    )


def static_face(people: Sequence[Track], frames: int) -> System:
    """The portraits, held still."""
    portrait = portraits(people)
    return System("static_face", lambda n: still(portrait(n), frames), portrait, "baseline")


def training_mean(train: Sequence[Track], frames: int) -> System:
    """The mean training frame, held still; its portrait is the mean first frame."""
    faces = tqdm(train, desc="training mean", unit="track")
    mean = _mean([track.frames[::MEAN_EVERY].mean(0, dtype=np.float64) for track in faces])
    portrait = _mean([track.frames[0].astype(np.float64) for track in train])
    return System("training_mean", lambda n: still(mean, frames), lambda n: portrait, "baseline")


def partner_mirrored(people: Sequence[Track], frames: int) -> System:
    """The partners' videos, left and right exchanged."""
    return System(
        "partner_mirrored",
        lambda n: people[n].user.frames[:frames, :, ::-1],
        lambda n: people[n].user.frames[0, :, ::-1],
        "baseline",
    )


def shuffled(people: Sequence[Track], frames: int) -> System:
    """True videos of other conversations."""
    swapped = others(people)
    return System("shuffled", lambda n: swapped[n].frames[:frames], portraits(swapped), "baseline")


def baselines(people: Sequence[Track], train: Sequence[Track], frames: int) -> list[System]:
    """All of them, the truth first; there is no training mean without a training split."""
    makers = (ground_truth, static_face, partner_mirrored, shuffled)
    systems = [maker(people, frames) for maker in makers]
    if train:
        systems.insert(2, training_mean(train, frames))
    return systems


def still(picture: np.ndarray, frames: int) -> np.ndarray:
    """(T, H, W, 3): the picture (H, W, 3) at every moment, in one picture's memory."""
    return np.broadcast_to(picture, (frames, *picture.shape))


def _mean(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(pictures, axis=0).round().astype(np.uint8)
