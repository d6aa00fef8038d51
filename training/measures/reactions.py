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
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from visavis.config import FRAME_RATE_HZ

REACTION_FRAMES = 38
LAGS = range(-10, 26)  # frames: 0.4 s before to 1 s after the truth
REACH_S = (0.0, 4.0, 8.0, 12.0, 20.0, np.inf)  # edges of ages of what sways a reaction
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
    true = np.stack([_change(t, onset) for _, t, onset, _ in places])
    found = {lag: np.stack([_change(m, onset + lag) for m, _, onset, _ in places]) for lag in LAGS}
    correlations = {lag: _cosine(true, moved) for lag, moved in found.items()}
    best = max(correlations, key=lambda lag: correlations[lag])
    figures = {
        "reaction_r": correlations[best],
        "reaction_gain": float((true * found[best]).sum() / max((true**2).sum(), 1e-12)),
    }
    if correlations[best] >= LEAST_CORRELATION:
        figures["reaction_delay_ms"] = 1000 * best / FRAME_RATE_HZ
    return figures


@dataclass(frozen=True)
class Reach:
    """Reactions whose cause lies equally far back: how many, and how alike the true ones, r."""

    count: int
    r: float


def reach_figures(
    motions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    causes: Sequence[np.ndarray],
    contexts: Sequence[np.ndarray],
) -> dict[str, Reach]:
    """How alike reactions are by how far back lies what they depend on, in s, by `REACH_S`.

    That is what sways a reaction (`contexts` (T,), its frame), or, where there is none (-1), the
    cause itself, which the partner gives within a second: "now". No lag is searched for.
    """
    sums: dict[str, list[np.ndarray]] = {}
    for moved, true, onset, clip in _places(motions, truths, causes):
        since = int(contexts[clip][onset])
        age = "now" if since < 0 else _reach((onset - since) / FRAME_RATE_HZ)
        ours, theirs = _change(moved, onset), _change(true, onset)
        products = [(ours * theirs).sum(), (ours**2).sum(), (theirs**2).sum()]
        sums.setdefault(age, []).append(np.array(products))
    figures = {}
    for age in ("now", *map(_name, pairwise(REACH_S))):
        if age in sums:
            both, ours, theirs = np.sum(sums[age], axis=0)
            r = float(both / np.sqrt(ours * theirs)) if ours * theirs > 0 else 0.0
            figures[age] = Reach(len(sums[age]), r)
    return figures


def _reach(age_s: float) -> str:
    edges = REACH_S[1:-1]
    return list(map(_name, pairwise(REACH_S)))[int(np.searchsorted(edges, age_s, side="right"))]


def _name(ends: tuple[float, float]) -> str:
    first, last = ends
    return f"{first:g}-{last:g}" if np.isfinite(last) else f"{first:g}+"


def _places(
    motions: Sequence[np.ndarray], truths: Sequence[np.ndarray], causes: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, int, int]]:
    """Motion and truth in unit variance, onset and clip of every reaction that has room."""
    scale = np.concatenate(truths).std(0)
    scale = np.where(scale > 0, scale, 1)
    return [
        (m / scale, t / scale, int(onset), clip)
        for clip, (m, t, c) in enumerate(zip(motions, truths, causes, strict=True))
        for onset in onsets(c[: len(m)])
        if onset + LAGS.start >= 0 and onset + LAGS.stop + REACTION_FRAMES <= min(len(m), len(t))
    ]


def _change(motion: np.ndarray, start: int) -> np.ndarray:
    return motion[start : start + REACTION_FRAMES] - motion[start]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0
