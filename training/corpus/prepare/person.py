"""This is where it is decided whose track a film is, among all the faces in it.

The person is who fills the film: the face whose trails, over all shots, are the longest and the
largest. Trails are of one person when dlib's face embeddings are near; its authors' threshold is
0.6 (dlib, face_recognition_model_v1). With one trail there is nothing to decide, and no network is
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.corpus.prepare.faces import Trail
from training.corpus.prepare.source import Dropped

SAME_PERSON = 0.6
MIN_TRAIL_FRAMES = 25


@dataclass(frozen=True, eq=False)
class PersonTrack:
    """One person through a film.

    landmarks: (T, 468, 2) float32 pixels, NaN where the face was not found. shot: (T,) int32, the
    trail that the frame belongs to, and -1 where the person is not there.
    """

    landmarks: np.ndarray
    trail: np.ndarray


def choose(trails: Sequence[Trail], frames: int) -> PersonTrack:
    """The track of the person who fills the film; Dropped when there is no face."""
    landmarks = np.full((frames, 468, 2), np.nan, np.float32)
    owner = np.full(frames, -1, np.int32)
    for number, trail in enumerate(_of_one_person(trails)):
        span = slice(trail.start, trail.end)
        points = np.full((trail.end - trail.start, 468, 2), np.nan, np.float32)
        for n, found in enumerate(trail.landmarks[: len(points)]):
            if found is not None:
                points[n] = found
        free = owner[span] < 0
        landmarks[span][free] = points[free]
        owner[span][free] = number
    return PersonTrack(landmarks, owner)


def _of_one_person(trails: Sequence[Trail]) -> list[Trail]:
    """The trails of that person, the heaviest first."""
    steady = [trail for trail in trails if trail.seen >= MIN_TRAIL_FRAMES]
    steady.sort(key=lambda trail: -trail.weight)
    if not steady:
        raise Dropped("no face for a second or longer, expected one that looks at the camera")
    if len(steady) == 1:
        return steady
    from training.identity import distances, embeddings  # dlib, 100 MB: only when needed

    portraits = [trail.portraits[len(trail.portraits) // 2] for trail in steady]
    known = embeddings(portraits)
    same = distances(known, known) < SAME_PERSON
    chosen = same[np.argmax(same @ [trail.weight for trail in steady])]
    return [trail for trail, is_same in zip(steady, chosen, strict=True) if is_same]
