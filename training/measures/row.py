"""This is where one system's observations become one row of figures.

A figure whose truth the corpus does not have, or that cannot be measured (no face was found, nobody
speaks), is left out of the row; `missing` says what the truth lacks. All are means over tracks
unless `measures.figures` says otherwise.

Legend: T frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data import Track
from training.identity import cosines, distances
from training.measures import lips
from training.measures.emotion import EmotionReader, Listening, listening_windows
from training.measures.listening import listening_figures, seam_jump
from training.measures.motion import STREAMS
from training.measures.observation import Observation
from training.measures.picture import set_figures
from training.measures.reactions import reaction_figures
from visavis.config import FRAME_RATE_HZ

# What of the truth the figures need that may be missing.
NEEDED_TRUTH = {
    "aperture": "mouth_r",
    "phoneme": "closure_pbm",
    "emotion": "emotion_agreement",
    "cause": "reaction_*",
}


@dataclass(frozen=True)
class Reference:
    """What all rows are measured against: the held-out people and what is seen of their truth."""

    people: Sequence[Track]
    truth: Sequence[Observation]
    portraits: np.ndarray  # (people, 128) identities of first frames
    block_frames: int
    reader: EmotionReader | None = None

    @property
    def partners(self) -> list[Observation]:
        """What is seen of each person's partner."""
        number = {track.folder: n for n, track in enumerate(self.people)}
        return [self.truth[number[track.partner]] for track in self.people]


def missing(people: Sequence[Track]) -> dict[str, str]:
    """Figures that no row can have, or only from some tracks, with the reason."""
    notes = {}
    for key, figure in NEEDED_TRUTH.items():
        lacking = sum(key not in track.truth for track in people)
        if lacking:
            notes[figure] = f"the truth of {lacking} of {len(people)} tracks has no `{key}`"
    return notes


def row(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    """All figures of one system, one observation a held-out track."""
    return {
        "face_found": float(np.mean([o.seen.mean() for o in seen])),
        **_identity(seen, reference),
        **_mouth(seen, reference),
        **_lip_sync(seen),
        **_picture(seen, reference),
        **_listening(seen, reference),
        **_emotion(seen, reference),
        **_reactions(seen, reference),
        **_own(seen),
    }


def motion_matrix(motion: Mapping[str, np.ndarray]) -> np.ndarray:
    """All streams side by side, (T, 15)."""
    return np.hstack([motion[stream] for stream in STREAMS])


def _identity(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    nearest, similar, distant = [], [], []
    for n, observation in enumerate(seen):
        away = distances(observation.identity, reference.portraits)
        nearest += list(away.argmin(1) == n)
        distant += list(away[:, n])
        similar += list(cosines(observation.identity, reference.portraits[n : n + 1])[:, 0])
    return {
        "own_portrait_nearest": float(np.mean(nearest)),
        "identity_similarity": float(np.mean(similar)),
        "identity_distance": float(np.mean(distant)),
    }


def _mouth(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    figures: dict[str, float] = {}
    r, ceiling, rest, closed, moved = [], [], [], [], []
    for ours, true, track in zip(seen, reference.truth, reference.people, strict=True):
        frames, truth = len(ours.apertures), track.truth
        speaking = truth["speaking"][:frames].astype(bool)
        if "aperture" in truth:
            aperture = truth["aperture"][:frames]
            r.append(lips.aperture_correlation(ours.apertures, aperture))
            ceiling.append(lips.aperture_correlation(true.apertures, aperture))
        moved.append(lips.amplitude(ours.apertures, true.apertures))
        rest.append(lips.rest_share(ours.apertures, true.apertures, lips.silent(speaking)))
        limit = lips.closed_limit(true.apertures, speaking)
        if "phoneme" in truth and limit is not None:
            places = lips.bilabials(truth["phoneme"][:frames])
            closed += list(lips.closures(ours.apertures, places, limit))
    if r:
        figures |= {"mouth_r": float(np.mean(r)), "mouth_r_worst": float(np.min(r))}
        figures["mouth_r_ceiling"] = float(np.mean(ceiling))
    for name, shares in (("mouth_amplitude", moved), ("mouth_at_rest", rest)):
        known = [share for share in shares if share is not None]
        if known:
            figures[name] = float(np.mean(known))
    if closed:
        figures["closure_pbm"] = float(np.mean(closed))
    return figures


def _lip_sync(seen: Sequence[Observation]) -> dict[str, float]:
    scores = [observation.lips for observation in seen if observation.lips is not None]
    if not scores:
        return {}
    offsets = np.array([score.offset_frames for score in scores])
    return {
        "lip_offset_frames": float(np.median(offsets)),
        "lip_in_sync": float(np.mean(np.abs(offsets) <= 1)),
        "lip_sync_confidence": float(np.mean([score.confidence for score in scores])),
        "lip_sync_distance": float(np.mean([score.distance for score in scores])),
    }


def _picture(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    # Alternate frames, so that the truth's own distance to itself is what sampling costs, not 0.
    ours = np.concatenate([observation.features[1::2] for observation in seen])
    true = np.concatenate([observation.features[::2] for observation in reference.truth])
    return {
        "psnr": float(np.mean([observation.psnr.mean() for observation in seen])),
        "ssim": float(np.mean([observation.ssim.mean() for observation in seen])),
        "perceptual_effnetlite0": float(np.mean([o.perceptual.mean() for o in seen])),
        **set_figures(ours, true),
    }


def _listening(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    sides = zip(seen, reference.truth, reference.partners, strict=True)
    clips = [
        (ours.motion, true.motion, partner.motion)
        for ours, true, partner in sides
        if ours.motion is not None and true.motion is not None and partner.motion is not None
    ]
    if not clips:
        return {}
    ours, true, partners = zip(*clips, strict=True)
    figures = listening_figures(ours, true, partners)
    for stream in STREAMS:
        jumps = [seam_jump(motion[stream], reference.block_frames) for motion in ours]
        if np.isfinite(jumps).any():
            figures[f"seam_jump_{stream}"] = float(np.nanmean(jumps))
    return figures


def listening_examples(
    motions: Sequence[Mapping[str, np.ndarray] | None], people: Sequence[Track], every: int = 1
) -> Iterator[Listening]:
    """Windows of listening and their due emotions, of tracks that have them.

    `every`: of how many frames of a track one was observed.
    """
    for motion, track in zip(motions, people, strict=True):
        if motion is None or "emotion" not in track.truth:
            continue
        matrix = motion_matrix(motion)
        truth = [track.truth[key][::every][: len(matrix)] for key in ("emotion", "speaking")]
        yield listening_windows(matrix, truth[0], truth[1], FRAME_RATE_HZ / every)


def _emotion(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    examples = list(listening_examples([o.motion for o in seen], reference.people))
    if reference.reader is None or not examples:
        return {}
    agreement = reference.reader.agreement(examples)
    return {} if agreement is None else {"emotion_agreement": agreement}


def _reactions(seen: Sequence[Observation], reference: Reference) -> dict[str, float]:
    clips = [
        (motion_matrix(ours.motion), motion_matrix(true.motion), track.truth["cause"])
        for ours, true, track in zip(seen, reference.truth, reference.people, strict=True)
        if "cause" in track.truth and ours.motion is not None and true.motion is not None
    ]
    return reaction_figures(*zip(*clips, strict=True)) if clips else {}


def _own(seen: Sequence[Observation]) -> dict[str, float]:
    names = {name: None for observation in seen for name in observation.own_figures}
    return {
        name: float(np.mean([o.own_figures[name] for o in seen if name in o.own_figures]))
        for name in names
    }
