"""This is where whatever makes videos of the held-out people becomes one row of the table.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from training.data import Track, video_frames


def nothing(n: int, video: np.ndarray) -> Mapping[str, float]:
    """The figures that only this system could have: none."""
    return {}


@dataclass(frozen=True)
class System:
    """One row: a name, and the videos of the held-out tracks by their number.

    video: the (T, H, W, 3) uint8 aligned frames of track n, from its first frame on.
    portrait: the (H, W, 3) uint8 face at rest of whoever is seen in it.
    kind: whether it is there for comparison, made here, or made elsewhere.
    own_figures: what only this system can be asked, from track n and its video.
    """

    name: str
    video: Callable[[int], np.ndarray]
    portrait: Callable[[int], np.ndarray]
    kind: Literal["baseline", "generated", "folder"]
    own_figures: Callable[[int, np.ndarray], Mapping[str, float]] = nothing


def portraits(people: Sequence[Track]) -> Callable[[int], np.ndarray]:
    """The portrait that avatars are given: the first frame of each track."""
    return lambda n: np.asarray(people[n].frames[0])


def from_folder(name: str, folder: Path, people: Sequence[Track], frames: int) -> System:
    """Videos made elsewhere, `folder/conversation_0007/a.mp4` for each held-out track.

    They are aligned crops at 25 frames a second, which begin with the track; of any square size.
    Errors name the first video that is missing or too short.
    """
    for track in people:
        if not _path(folder, track).is_file():
            raise FileNotFoundError(
                f"{name}: got no {_path(folder, track)}, expected one video for each of the "
                f"{len(people)} held-out tracks; make it, or leave this system out"
            )

    def video(n: int) -> np.ndarray:
        path, size = _path(folder, people[n]), people[n].frames.shape[1]
        found = video_frames(path, size)
        if len(found) < frames:
            raise ValueError(
                f"{path}: got {len(found)} frames, expected at least {frames}; make it longer, or "
                "evaluate fewer seconds"
            )
        return found[:frames]

    return System(name, video, portraits(people), "folder")


def _path(folder: Path, track: Track) -> Path:
    return folder / f"{track.name}.mp4"
