"""This is where systems are looked at and become rows, all against the same held-out people.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm
from visavis_client.face import FaceFinder

from training.data import Track
from training.film import write_video
from training.identity import embeddings
from training.measures.baselines import ground_truth
from training.measures.emotion import EmotionReader
from training.measures.lip_sync import LipSync
from training.measures.montage import strip
from training.measures.motion import landmarks, motion
from training.measures.observation import Instruments, Observation, observe
from training.measures.row import Reference, listening_examples, missing, row
from training.measures.system import System
from visavis.config import EchoConfig

READER_TRACKS, READER_EVERY = 24, 5  # training tracks, and frames of them, that teach the reader
SHOWN_TRACKS = 4  # whose strips are kept


@dataclass
class Shown:
    """What is kept of a system's videos to be looked at: all of the first track, strips of some."""

    first: np.ndarray
    strips: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class Sight:
    """What was seen of a system: an observation a held-out track, and pictures to look at."""

    observations: list[Observation]
    shown: Shown


class Judge:
    """Measures systems on the first `frames` of the held-out people; sees the truth first.

    Args:
        people, train: held-out tracks, and those that teach the reader of emotions.
        frames: of each track.
        size: of the cache.
        scorer: tells how late lips are; without it nothing is said of that.
        keep: where the videos of systems that are generated go, if anywhere.
    """

    def __init__(
        self,
        people: Sequence[Track],
        train: Sequence[Track],
        frames: int,
        size: EchoConfig,
        scorer: LipSync | None = None,
        keep: Path | None = None,
    ):
        self.people, self.frames, self.keep = people, frames, keep
        self.instruments = Instruments(FaceFinder(), scorer, size)
        self.truth = self.look(ground_truth(people, frames))
        self.reference = Reference(
            people,
            self.truth.observations,
            embeddings([track.frames[0] for track in people]),
            size.block_frames,
            emotion_reader(self.instruments.finder, train),
        )

    def look(self, system: System) -> Sight:
        """Look once at every video of a system."""
        seen, shown = [], None
        for n, track in enumerate(bar := tqdm(self.people, desc=system.name, unit="video")):
            bar.set_postfix_str(track.name)
            video = system.video(n)
            seen.append(observe(self.instruments, system, n, video, track))
            shown = shown or Shown(video)
            if n < SHOWN_TRACKS:
                shown.strips.append(strip(video))
            if system.kind == "generated" and self.keep is not None:
                write_video(self.keep / system.name / f"{track.name}.mp4", video)
        assert shown is not None
        return Sight(seen, shown)

    def row(self, sight: Sight) -> dict[str, float]:
        """All figures of a system."""
        return row(sight.observations, self.reference)

    @property
    def notes(self) -> dict[str, str]:
        """Figures that no row can have, with the reason."""
        notes = missing(self.people)
        if self.instruments.scorer is None:
            notes["lip_sync_*, lip_offset_frames"] = "no lip scorer was given (--lip-sync)"
        if self.reference.reader is None:
            notes["emotion_agreement"] = "the training split shows fewer than two emotions"
        return notes


def emotion_reader(finder: FaceFinder, train: Sequence[Track]) -> EmotionReader | None:
    """The reader of emotions, fitted on true training videos; None if they show only one."""
    some = [t for t in train if "emotion" in t.truth][:: max(1, len(train) // READER_TRACKS)]
    motions = []
    for track in tqdm(some, desc="emotion reader", unit="track"):
        points = landmarks(finder, track.frames[::READER_EVERY])
        motions.append(motion(points, landmarks(finder, track.frames[:1])))
    examples = list(listening_examples(motions, some, READER_EVERY))
    emotions = {emotion for _, due in examples for emotion in due}
    return EmotionReader(examples) if len(emotions) > 1 else None
