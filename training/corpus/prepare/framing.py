"""This is where crops get their place, and where the stretches are found in which both are seen.

As in the client, one transform holds while the head moves about its place, and a new one is made
only when the face has left it: then a new stretch begins, so that no crop ever jumps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from visavis_client.face import EYES, MOUTH, Alignment, Face

from training.corpus.prepare.person import PersonTrack
from visavis.config import FRAME_RATE_HZ

# As in visavis_client.face, whose FaceTrack looks every 5 frames and waits for 3 looks.
AWAY = 0.15  # of the crop's side
ZOOM = 1.4
AWAY_FRAMES = 15
MAX_BEYOND = 0.3  # of the crop, that may lie outside the picture
MIN_SCALE = 0.5  # pixels of the film to a pixel of the crop

KEPT = "kept"
LONGER = "one file is longer than the other"


@dataclass(frozen=True)
class Framing:
    """The crop's place in the frames from `start` to before `end`."""

    start: int
    end: int
    alignment: Alignment


@dataclass(frozen=True)
class Stretch:
    """Frames in which both people are seen, and where."""

    start: int
    end: int
    alignments: Mapping[str, Alignment]

    @property
    def frames(self) -> int:
        """How many."""
        return self.end - self.start


def framings(track: PersonTrack) -> list[Framing]:
    """Where a person is, in order of time."""
    return [
        framing
        for start, end in runs(track.trail)
        if track.trail[start] >= 0
        for framing in _steady(track.landmarks, start, end)
    ]


def runs(values: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of the runs of equal values in a (T,) array."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end) for start, end in pairwise(edges) if end > start]


def _steady(landmarks: np.ndarray, start: int, end: int) -> list[Framing]:
    """The parts of a trail in which the face keeps its place."""
    seen = ~np.isnan(landmarks[start:end, 0, 0])
    if not seen.any():
        return []
    middle = _face(np.nanmedian(landmarks[start:end], axis=0))
    alignment = Alignment.of(middle.eyes, middle.mouth)
    left = np.zeros(end - start, bool)
    left[seen] = [_has_left(_face(points), alignment) for points in landmarks[start:end][seen]]
    away = [run for run in runs(left) if left[run[0]] and run[1] - run[0] >= AWAY_FRAMES]
    if not away:
        return [Framing(start, end, alignment)]
    inner = {start + edge for run in away for edge in run} - {start, end}
    edges = sorted({start, *(inner or {(start + end) // 2}), end})
    return [part for pair in pairwise(edges) for part in _steady(landmarks, *pair)]


def _face(points: np.ndarray) -> Face:
    return Face((0.0, 0.0, 0.0, 0.0), points, 1.0)


def _has_left(face: Face, alignment: Alignment) -> bool:
    eyes, mouth = alignment.locate(face.eyes), alignment.locate(face.mouth)
    zoom = abs(mouth - eyes) / abs(MOUTH - EYES)
    return abs((eyes + mouth) / 2 - (EYES + MOUTH) / 2) > AWAY or not 1 / ZOOM < zoom < ZOOM


def fault(alignment: Alignment, picture: tuple[int, ...], size: int) -> str | None:
    """What is wrong with a crop of side `size` from a picture (H, W, 3); None if nothing."""
    side = abs(alignment.turn)
    if side < MIN_SCALE * size:
        return f"face too small for crops of {size} pixels (a smaller --size takes it)"
    if alignment.beyond(*picture[:2]) > MAX_BEYOND:
        return "face cut by the edge of the picture"
    return None


def stretches(
    people: Mapping[str, Sequence[Framing]], shortest: int, longest: int
) -> list[Stretch]:
    """What both people's framings share, at least `shortest` and at most `longest` frames each."""
    shared = []
    for a in people["a"]:
        for b in people["b"]:
            start, end = max(a.start, b.start), min(a.end, b.end)
            pieces = -(-(end - start) // longest)
            edges = np.linspace(start, end, pieces + 1).round().astype(int) if pieces > 0 else []
            alignments = {"a": a.alignment, "b": b.alignment}
            shared += [Stretch(int(s), int(e), alignments) for s, e in pairwise(edges)]
    return [stretch for stretch in shared if stretch.frames >= shortest]


def losses(
    tracks: Mapping[str, PersonTrack],
    faults: Sequence[tuple[Framing, str]],
    kept: Sequence[Stretch],
) -> dict[str, float]:
    """Seconds that were lost, by reason."""
    lengths = [len(track.trail) for track in tracks.values()]
    fate = np.full(max(lengths), "stretch too short", dtype=object)
    for framing, reason in faults:
        fate[framing.start : framing.end] = reason
    for person, track in tracks.items():
        fate[: len(track.trail)][track.trail < 0] = f"no face of {person}"
    fate[min(lengths) :] = LONGER
    for stretch in kept:
        fate[stretch.start : stretch.end] = KEPT
    counts = Counter(fate.tolist())
    del counts[KEPT]
    return {reason: round(count / FRAME_RATE_HZ, 2) for reason, count in counts.items()}
