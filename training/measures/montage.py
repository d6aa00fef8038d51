"""This is where systems are put side by side for people to look at and listen to.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import soundfile

from training.data import Track
from visavis.config import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

PANE = 256
CAPTION = 28
COLUMNS = 4


def strip(video: np.ndarray, columns: int = 12) -> np.ndarray:
    """(H, columns · W, 3) uint8: pictures of a video (T, H, W, 3) at evenly spaced moments."""
    return np.hstack([video[n] for n in np.linspace(0, len(video) - 1, columns).astype(int)])


def side_by_side(videos: Mapping[str, np.ndarray]) -> np.ndarray:
    """Videos (T, H, W, 3) uint8 by caption, as panes of one: (T, H', W', 3) uint8."""
    frames = min(len(video) for video in videos.values())
    columns = min(COLUMNS, len(videos))
    panes = [_pane(caption, video[:frames]) for caption, video in videos.items()]
    panes += [np.zeros_like(panes[0])] * (-len(panes) % columns)
    rows = [np.concatenate(panes[n : n + columns], 2) for n in range(0, len(panes), columns)]
    return np.concatenate(rows, axis=1)


def captioned(strip: np.ndarray, caption: str) -> np.ndarray:
    """A strip of pictures (H, W, 3) uint8 with its name written into its lower left corner."""
    picture, place = np.ascontiguousarray(strip).copy(), (8, len(strip) - 8)
    for color, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, caption, place, font, 0.6, color, width, cv2.LINE_AA)
    return picture


def conversation_audio(voices: Path, track: Track, frames: int) -> np.ndarray | None:
    """(samples,) float32: both voices of a track's conversation, mixed; None where there are none.

    `voices` has them as the corpus does, `conversation_0007/a.wav`, 16 kHz mono.
    """
    paths = [voices / f"{person.name}.wav" for person in (track, track.user)]
    if not all(path.is_file() for path in paths):
        return None
    mixed = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    for path in paths:
        voice, rate = soundfile.read(path, dtype="float32", frames=len(mixed))
        if rate != SAMPLE_RATE_HZ or voice.ndim != 1:
            raise ValueError(
                f"{path}: got {rate} Hz and {voice.ndim} axes, expected {SAMPLE_RATE_HZ} Hz mono; "
                "resample it"
            )
        mixed[: len(voice)] += voice
    return np.clip(mixed, -1, 1)


def _pane(caption: str, video: np.ndarray) -> np.ndarray:
    """(T, CAPTION + PANE, PANE, 3): the video, scaled, under its name."""
    pane = np.zeros((len(video), CAPTION + PANE, PANE, 3), np.uint8)
    for n, frame in enumerate(video):
        pane[n, CAPTION:] = cv2.resize(
            np.ascontiguousarray(frame), (PANE, PANE), interpolation=cv2.INTER_AREA
        )
    title = np.zeros((CAPTION, PANE, 3), np.uint8)
    place, white = (8, CAPTION - 9), (255, 255, 255)
    cv2.putText(title, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, white, 1, cv2.LINE_AA)
    pane[:, :CAPTION] = title
    return pane
