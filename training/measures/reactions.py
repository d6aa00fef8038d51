"""This is where a listener's reactions are timed: how late they are, how alike and how strong.

The corpus says of every frame what caused the reaction that is seen in it. Where a cause begins,
the true person's next second and a half is the reaction R_e, a change from the frame of the onset,
in channels of unit variance. The system's change from `lag` frames later is S_e(lag). Over all
onsets e of all clips

    r(lag) = Σ_e R_e · S_e(lag) / √(Σ_e |R_e|² Σ_e |S_e(lag)|²)

and the delay is the lag of the highest r. A strong reaction so counts for more than a weak one, and
single noisy ones do not decide.

Legend: T frames, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.config import FRAME_RATE_HZ

REACTION_FRAMES = 38
LAGS = range(-10, 26)  # frames: 0.4 s before to 1 s after the truth
LEAST_CORRELATION = 0.1  # below it there is no reaction whose delay could be told


def onsets(causes: np.ndarray) -> np.ndarray:
    """Frames in which a cause begins; `causes` (T,) str or int, empty or 0 where there is none."""
    there = causes != causes.dtype.type()
    begins = np.r_[True, causes[1:] != causes[:-1]]
    return np.flatnonzero(there & begins)


def reaction_figures(
    motions: Sequence[np.ndarray], truths: Sequence[np.ndarray], causes: Sequence[np.ndarray]
) -> dict[str, float]:
    """`reaction_r`, `reaction_gain`, `reaction_delay_ms` of motions (T, D) against true ones.

    The gain is the least-squares factor of the truth's reactions in the system's; 1 is as strong.
    There is no delay below `LEAST_CORRELATION`, and nothing at all without onsets that leave room.
    """
    places = _places(motions, truths, causes)
    if not places:
        return {}
    true = np.stack([_change(t, onset) for _, t, onset in places])
    found = {lag: np.stack([_change(m, onset + lag) for m, _, onset in places]) for lag in LAGS}
    correlations = {lag: cosine(true, moved) for lag, moved in found.items()}
    best = max(correlations, key=lambda lag: correlations[lag])
    figures = {
        "reaction_r": correlations[best],
        "reaction_gain": float((true * found[best]).sum() / max((true**2).sum(), 1e-12)),
    }
    if correlations[best] >= LEAST_CORRELATION:
        figures["reaction_delay_ms"] = 1000 * best / FRAME_RATE_HZ
    return figures


def _places(
    motions: Sequence[np.ndarray], truths: Sequence[np.ndarray], causes: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Motion and truth in unit variance, and the onset of every reaction that has room."""
    scale = np.concatenate(truths).std(0)
    scale = np.where(scale > 0, scale, 1)
    return [
        (m / scale, t / scale, int(onset))
        for m, t, c in zip(motions, truths, causes, strict=True)
        for onset in onsets(c[: len(m)])
        if onset + LAGS.start >= 0 and onset + LAGS.stop + REACTION_FRAMES <= min(len(m), len(t))
    ]


def _change(motion: np.ndarray, start: int) -> np.ndarray:
    return motion[start : start + REACTION_FRAMES] - motion[start]


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of two arrays as vectors; 0 where one of them is 0."""
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0
