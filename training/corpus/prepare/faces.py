"""This is where every face of a film is followed, shot by shot.

A face is looked for around its last place in every frame, and everywhere a few times a second, so
that who comes later is found too. A face that turns away for a moment is waited for; a cut ends
every trail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from visavis_client.face import EYES, Alignment, Face, FaceFinder

from training.corpus.prepare.shots import CutDetector

PATIENCE_FRAMES = 25  # that a face may be unseen before its trail ends
LOOK_EVERY_FRAMES = 10
_PARTS = (1.0, 0.55)  # of the picture's shorter side, where the client seeks a face in video
_REACH = 0.5  # of the crop's side, that a face may move in a frame
_PORTRAIT_EVERY_FRAMES, _PORTRAITS, _PORTRAIT_SIZE = 40, 5, 150  # dlib's network sees 150 pixels


@dataclass
class Trail:
    """One face in one shot, from its first frame to its last one seen."""

    shot: int
    start: int
    landmarks: list[np.ndarray | None] = field(default_factory=list)  # (468, 2) pixels a frame
    portraits: list[np.ndarray] = field(default_factory=list)  # a few aligned crops
    alignment: Alignment | None = None  # of the face when last seen
    unseen: int = 0

    @property
    def seen(self) -> int:
        """In how many frames the face was found."""
        return sum(points is not None for points in self.landmarks)

    @property
    def end(self) -> int:
        """The frame after the last one in which the face was found."""
        return self.start + len(self.landmarks) - self.unseen

    @property
    def weight(self) -> float:
        """Frames times the eyes' distance in pixels: how much of the film this face is."""
        points = [p for p in self.landmarks if p is not None]
        sizes = [np.linalg.norm(p[33] - p[263]) for p in points]  # the outer corners of the eyes
        return float(np.sum(sizes))

    def add(self, frame: np.ndarray, face: Face | None) -> None:
        """The next frame, and the face in it if it was found."""
        self.landmarks.append(None if face is None else face.landmarks.astype(np.float32))
        if face is None:
            self.unseen += 1
            return
        self.unseen = 0
        self.alignment = Alignment.of(face.eyes, face.mouth)
        age = len(self.landmarks) - 1
        if age % _PORTRAIT_EVERY_FRAMES == 0 and len(self.portraits) < _PORTRAITS:
            self.portraits.append(self.alignment.crop(frame, _PORTRAIT_SIZE))

    def has(self, face: Face) -> bool:
        """Whether a face in the current frame is this one."""
        return self.alignment is not None and abs(self.alignment.locate(face.eyes) - EYES) < _REACH

    def find(self, frame: np.ndarray, finder: FaceFinder) -> Face | None:
        """This face in the next frame."""
        alignment = self.alignment
        assert alignment is not None  # a trail begins with a face
        near = [face for face in finder.find_near(frame, alignment) if self.has(face)]
        return min(near, key=lambda face: abs(alignment.locate(face.eyes) - EYES), default=None)


def follow(frames: Iterable[np.ndarray], finder: FaceFinder) -> tuple[list[Trail], int]:
    """The trails of every face in (H, W, 3) uint8 frames, and how many frames there were."""
    ended: list[Trail] = []
    live: list[Trail] = []
    is_cut, shot, shot_start, count = CutDetector(), 0, 0, 0
    for count, frame in enumerate(frames, 1):
        if is_cut(frame):
            ended, live = ended + live, []
            shot, shot_start = shot + 1, count - 1
        for trail in live:
            trail.add(frame, trail.find(frame, finder))
        ended += [trail for trail in live if trail.unseen > PATIENCE_FRAMES]
        live = [trail for trail in live if trail.unseen <= PATIENCE_FRAMES]
        if (count - 1 - shot_start) % LOOK_EVERY_FRAMES == 0:
            live += _new_trails(frame, finder, live, shot, count - 1)
    return ended + live, count


def _new_trails(
    frame: np.ndarray, finder: FaceFinder, live: list[Trail], shot: int, number: int
) -> list[Trail]:
    trails = []
    for face in finder.find(frame, parts=_PARTS):
        if not any(trail.has(face) for trail in live):
            trails.append(Trail(shot, number))
            trails[-1].add(frame, face)
    return trails
