"""This is where lips are compared with the truth: do they open with the voice, and do they close?

Apertures are measured from pictures (`measures.motion.apertures`), so no figure reaches 1 by
itself: what the true video reaches through the same eyes is the ceiling.

Legend: T frames.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.probe import correlation

QUIET_FRAMES = 5  # around speech, in which the mouth may still be moving
REST_SLACK = 0.02  # of the face's height
CLOSED_SHARE = 0.15  # of the way from the resting to the speaking mouth
BILABIALS = frozenset("pbm")


def silent(speaking: np.ndarray) -> np.ndarray:
    """(T,) bool: frames with no speech for a while before and after; `speaking` is (T,) bool."""
    reach = np.ones((1, 2 * QUIET_FRAMES + 1), np.uint8)
    return cv2.dilate(speaking.astype(np.uint8)[None], reach)[0] == 0


def aperture_correlation(measured: np.ndarray, true: np.ndarray) -> float:
    """Pearson's r of (T,) apertures over frames with a face; 0 when a mouth does not move."""
    known = np.isfinite(measured)
    return correlation(measured[known], true[known]) if known.any() else 0.0


def amplitude(measured: np.ndarray, reference: np.ndarray) -> float | None:
    """How far a mouth moves, as a share of the true video's: the ratio of standard deviations.

    Correlation does not see it: lips that follow the voice by a hair's breadth reach r = 1. Over
    frames with a face in both, (T,) apertures each; None where the true mouth does not move.
    """
    known = np.isfinite(measured) & np.isfinite(reference)
    if not known.any() or reference[known].std() < 1e-6:
        return None
    return float(measured[known].std() / reference[known].std())


def rest_share(measured: np.ndarray, reference: np.ndarray, quiet: np.ndarray) -> float | None:
    """Share of `quiet` frames whose aperture is one that the true video's quiet frames have.

    That is, up to their 99th percentile plus `REST_SLACK`. Frames without a face are not at rest.
    None when it is never quiet.
    """
    if not np.isfinite(reference[quiet]).any():
        return None
    limit = np.nanpercentile(reference[quiet], 99) + REST_SLACK
    return float(np.mean(measured[quiet] <= limit))


def closed_limit(reference: np.ndarray, speaking: np.ndarray) -> float | None:
    """The aperture up to which lips count as closed, from the true video's measured apertures.

    `CLOSED_SHARE` of the way from the median of its quiet frames to the 95th percentile of its
    speaking ones. None when it is never quiet or never speaks.
    """
    sides = [reference[when & np.isfinite(reference)] for when in (silent(speaking), speaking)]
    if not all(len(side) for side in sides):
        return None
    rest, wide = np.median(sides[0]), np.percentile(sides[1], 95)
    return float(rest + CLOSED_SHARE * (wide - rest))


def bilabials(phonemes: np.ndarray) -> list[slice]:
    """Where in (T,) phonemes, a str each, the P, B and M are: a slice of frames a phoneme.

    Stress marks and case do not matter; two of the same in succession count once.
    """
    names = np.array([str(p).lower().strip("ˈˌ012ː") for p in phonemes])
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    ends = np.r_[starts[1:], len(names)]
    return [
        slice(start, end)
        for start, end in zip(starts, ends, strict=True)
        if names[start] in BILABIALS
    ]


def closures(measured: np.ndarray, places: list[slice], limit: float) -> np.ndarray:
    """(places,) bool: whether the lips are closed in some frame of each, or next to it."""
    shut = measured <= limit  # False where there is no face
    return np.array([shut[max(0, s.start - 1) : s.stop + 1].any() for s in places], bool)
