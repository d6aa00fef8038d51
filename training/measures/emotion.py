"""This is where a listener's face is asked which emotion it shows, and whether it is the due one.

A linear reader (multinomial logistic regression) of the motion of a second of listening is fitted
on the training split's true videos, whose due emotions are known. It sees what the measuring of
motion sees, so the true test videos say how well it reads at all, and a face that does not move is
at chance, one over the number of emotions, or below.

Legend: T frames, D channels, N windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

WINDOW_S = 1.0

Listening = tuple[np.ndarray, np.ndarray]  # windows (N, D) and due emotions (N,) str


def silent_windows(speaking: np.ndarray, frames: int) -> list[int]:
    """First frames of the windows, so many frames each, without a word; speaking (T,) bool."""
    starts = range(0, len(speaking) - frames + 1, frames)
    return [start for start in starts if not speaking[start : start + frames].any()]


def listening_windows(
    motion: np.ndarray, emotions: np.ndarray, speaking: np.ndarray, rate_hz: float
) -> Listening:
    """Mean motion of the seconds in which a person only listens and one emotion is due.

    motion: (T, D). emotions: (T,) str. speaking: (T,) bool. rate_hz: frames a second of all three.
    """
    frames = max(1, round(WINDOW_S * rate_hz))
    starts = [
        start
        for start in silent_windows(speaking[: len(motion)], frames)
        if (emotions[start : start + frames] == emotions[start]).all()
    ]
    means = [motion[start : start + frames].mean(0) for start in starts]
    return np.array(means).reshape(-1, motion.shape[1]), emotions[starts].astype(str)


class EmotionReader:
    """Tells the shown emotion from windows of motion, which `listening_windows` cuts."""

    def __init__(self, examples: Sequence[Listening]):
        """Fit on the true people of the training split; ValueError with fewer than two emotions."""
        windows, emotions = (np.concatenate(side) for side in zip(*examples, strict=True))
        if len(set(emotions)) < 2:
            raise ValueError(
                f"emotion reader: got the emotions {sorted(set(emotions))} in {len(windows)} "
                "listening windows, expected two or more; use a larger training split"
            )
        self._model: Pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        self._model.fit(windows, emotions)

    def agreement(self, examples: Sequence[Listening]) -> float | None:
        """The share of windows read as the due emotion, mean over due emotions; None without."""
        windows, due = (np.concatenate(side) for side in zip(*examples, strict=True))
        if not len(windows):
            return None
        shown = np.asarray(self._model.predict(windows))
        return float(np.mean([(shown[due == emotion] == emotion).mean() for emotion in set(due)]))
