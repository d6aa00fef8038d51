"""This is where a prepared conversation is written: voices and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import soundfile

from visavis.config import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

_PICTURES, _PICTURE_SIDE = 8, 128  # of a contact sheet's rows


def voice(path: Path, samples: np.ndarray, frames: int) -> None:
    """16-bit mono WAV of exactly 640 samples a frame; what is missing at the end is silence."""
    whole = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    whole[: len(samples)] = samples[: len(whole)]
    soundfile.write(path, whole, SAMPLE_RATE_HZ, subtype="PCM_16")


class ContactSheet:
    """Evenly spaced crops of each person, with the landmarks and the lip mask's center drawn in."""

    def __init__(self, frames: int) -> None:
        self.frames = set(np.linspace(0, frames - 1, _PICTURES + 2).astype(int)[1:-1].tolist())
        self._rows: list[list[np.ndarray]] = []

    def new_row(self) -> None:
        """The pictures of the next person follow."""
        self._rows.append([])

    def add(self, picture: np.ndarray, landmarks: np.ndarray, seen: bool) -> None:
        """picture (S, S, 3) uint8; landmarks (468, 2) in the crop; red where interpolated."""
        small = cv2.resize(picture, (_PICTURE_SIDE, _PICTURE_SIDE), interpolation=cv2.INTER_AREA)
        plain = small.copy()
        color = (90, 255, 90) if seen else (255, 60, 60)
        for x, y in (landmarks * _PICTURE_SIDE).round().astype(int)[::3].tolist():
            if 0 <= x < _PICTURE_SIDE and 0 <= y < _PICTURE_SIDE:
                small[y, x] = color
        self._rows[-1].append(np.vstack([plain, small]))

    def write(self, path: Path) -> None:
        """The sheet as a JPEG."""
        sheet = np.vstack([np.hstack(row) for row in self._rows])
        cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
