"""This is where it is seen how far back what a listener's face shows may lie.

News, good or bad, stay on a face: of the corpus's people for about a minute, on which they smile
more or less and their brows are raised (`training/corpus/causes.py`). So the expression of every
second of listening is compared with the true one, by how long ago the latest news were told: a face
that knows them is as like the true one later as soon after, and one that only knows the last two
seconds is not.

The single reactions would not tell: context makes them stronger or weaker, and which reaction it is
depends on what goes on now.

Legend: T frames, D channels, W seconds of listening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.measures.emotion import silent_windows
from training.measures.reactions import cosine, onsets
from visavis.config import FRAME_RATE_HZ

NEWS = ("bad_news", "good_news")  # causes
EDGES_S = (0.0, 10.0, 20.0, np.inf)  # of ages of the latest news
BEFORE = "before"  # the seconds of those who have no news yet


@dataclass(frozen=True)
class Reach:
    """Listening seconds whose latest news are equally old: how many, and how like true ones, r."""

    count: int
    r: float


def news_age_s(*causes: np.ndarray) -> np.ndarray:
    """Seconds since the latest news (T,), infinite before any; causes (T,) str of both people.

    News count from when somebody reacts to them.
    """
    told = {n for own in causes for n in onsets(own) if own[n] in NEWS}
    latest = np.full(min(map(len, causes)), -np.inf)
    for frame in sorted(told):
        latest[frame:] = frame
    return (np.arange(len(latest)) - latest) / FRAME_RATE_HZ


def reach_figures(
    motions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    speaking: Sequence[np.ndarray],
    ages_s: Sequence[np.ndarray],
) -> dict[str, Reach]:
    """How alike faces are while they listen, by how long ago the latest news were, in s.

    Args, one a track: motions and truths (T, D); speaking (T,) bool; ages_s (T,), `news_age_s`. A
    face counts as it differs from its mean over all seconds of listening, in channels of unit
    variance.
    """
    ours, true, ages = [], [], []
    for motion, truth, speaks, age_s in zip(motions, truths, speaking, ages_s, strict=True):
        starts = silent_windows(speaks[: len(motion)], FRAME_RATE_HZ)
        if starts:
            ours.append(deviations(motion, starts))
            true.append(deviations(truth, starts))
            ages.append(age_s[starts])
    if not ages:
        return {}
    found, expected, age_s = map(np.concatenate, (ours, true, ages))
    scale = expected.std(0)
    scale = np.where(scale > 0, scale, 1)
    within = {BEFORE: np.isinf(age_s)} | by_age(age_s, EDGES_S)
    return {
        age: Reach(int(these.sum()), cosine(found[these] / scale, expected[these] / scale))
        for age, these in within.items()
        if these.any()
    }


def by_age(age_s: np.ndarray, edges_s: Sequence[float]) -> dict[str, np.ndarray]:
    """Which of some ages lie between edges, by names such as `10-20` and, to infinity, `20+`."""
    return {
        f"{first:g}-{last:g}" if np.isfinite(last) else f"{first:g}+": (age_s >= first)
        & (age_s < last)
        for first, last in pairwise(edges_s)
    }


def deviations(motion: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """Means (W, D) of some seconds of a motion (T, D), less the mean of all of them."""
    means = np.stack([motion[n : n + FRAME_RATE_HZ].mean(0) for n in starts])
    return means - means.mean(0)
