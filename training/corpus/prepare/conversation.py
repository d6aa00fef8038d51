"""This is where one conversation goes through all steps, from its files to its folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from visavis_client import media
from visavis_client.face import FaceFinder

from training.corpus.prepare import (
    dualtalk,
    faces,
    framing,
    mesh,
    person,
    speech,
    transcripts,
    voices,
    write,
)
from training.corpus.prepare.source import PEOPLE, Dropped, Recording, Source
from training.film import Film
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME


@dataclass(frozen=True)
class Settings:
    """How conversations are prepared."""

    size: int = 256  # pixels a side of the crops
    shortest_s: float = 4.0  # a stretch that is worth keeping
    longest_s: float = 300.0  # a longer one is divided
    loudness_lufs: float = -23.0  # that voices are brought to; EBU R 128's level

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size: got {self.size}, expected an even number, 32 or more")
        if not 0 < self.shortest_s <= self.longest_s / 2:
            raise ValueError(
                f"shortest_s: got {self.shortest_s}, expected more than 0 and at most half of "
                f"longest_s, {self.longest_s}, or divided stretches would be lost"
            )


@dataclass(frozen=True)
class Kept:
    """One folder that was written."""

    folder: str
    seconds: float
    speaking_s: Mapping[str, float]  # by person


@dataclass(frozen=True)
class Outcome:
    """What became of one conversation. Without `kept`, `reason` says why."""

    name: str
    split: str
    kept: list[Kept] = field(default_factory=list)
    reason: str | None = None
    lost_s: Mapping[str, float] = field(default_factory=dict)  # by reason
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Heard:
    """The voices (n,) float32 of both people, when they are active, and how they were got."""

    voices: Mapping[str, np.ndarray]
    activity: Mapping[str, speech.Spans]
    gains_db: Mapping[str, float]
    mixed: bool


def safe(name: str) -> str:
    """`name` as part of a file's name."""
    return re.sub(r"[^\w.-]", "_", name)


def prepare(source: Source, out: Path, settings: Settings) -> Outcome:
    """Writes the folders of one conversation; Dropped or InputError when it has none to give."""
    lines = transcripts.read(source)
    sound = voices.read(source)
    if source.a.motion is not None:
        return _prepare_motion(source, out, settings, sound, lines)
    tracks = _tracks(source)
    mouths = {key: mesh.aperture(track.landmarks) for key, track in tracks.items()}
    heard = _hear(source, sound, mouths, settings)
    stretches, lost = _stretches(source, tracks, settings)
    if not stretches:
        worst = max(lost, key=lost.__getitem__, default="no frames")
        raise Dropped(
            f"no {settings.shortest_s:g} s in which both people are seen; most often: {worst}"
        )
    kept = _write(source, stretches, tracks, heard, lines, out, settings)
    return Outcome(source.name, source.split, kept, lost_s=lost, notes=_notes(heard))


def _tracks(source: Source) -> dict[str, person.PersonTrack]:
    finder = FaceFinder()
    tracks = {}
    for key in PEOPLE:
        trails, frames = faces.follow(_frames(source[key]), finder)
        try:
            tracks[key] = person.choose(trails, frames)
        except Dropped as reason:
            raise Dropped(f"{_file(source[key])}: {reason}") from reason
    return tracks


def _stretches(
    source: Source, tracks: Mapping[str, person.PersonTrack], settings: Settings
) -> tuple[list[framing.Stretch], dict[str, float]]:
    """What can be kept, and the seconds that are lost by reason."""
    good, faults = {}, []
    for key, track in tracks.items():
        picture = next(_frames(source[key])).shape
        placed = framing.framings(track)
        found = [framing.fault(place.alignment, picture, settings.size) for place in placed]
        good[key] = [place for place, fault in zip(placed, found, strict=True) if not fault]
        faults += [(p, f"{fault} ({key})") for p, fault in zip(placed, found, strict=True) if fault]
    shortest, longest = (
        round(limit_s * FRAME_RATE_HZ) for limit_s in (settings.shortest_s, settings.longest_s)
    )
    stretches = framing.stretches(good, shortest, longest)
    return stretches, framing.losses(tracks, faults, stretches)


def _prepare_motion(
    source: Source,
    out: Path,
    settings: Settings,
    sound: voices.Voices | np.ndarray,
    lines: list[transcripts.Line] | None,
) -> Outcome:
    motions = {}
    for key in PEOPLE:
        path = source[key].motion
        if path is None:
            raise Dropped(f"motion of {key}: there is none, expected it for both people")
        motions[key] = dualtalk.read_motion(path)
    heard = _hear(source, sound, None, settings)
    frames = min(
        *(len(motion) for motion in motions.values()),
        *(len(voice) // SAMPLES_PER_FRAME for voice in heard.voices.values()),
    )
    if frames < settings.shortest_s * FRAME_RATE_HZ:
        raise Dropped(
            f"got {frames / FRAME_RATE_HZ:g} s in all of its files, expected "
            f"{settings.shortest_s:g} or more"
        )
    truth: dict[str, Any] = {f"{key}_motion": motions[key][:frames] for key in PEOPLE}
    folder = _Folder(out, source, 0)
    kept = folder.finish(source, 0, frames, heard, lines, truth)
    rest = max(len(motion) for motion in motions.values()) - frames
    lost = {framing.LONGER: rest / FRAME_RATE_HZ} if rest > 0 else {}
    return Outcome(source.name, source.split, [kept], lost_s=lost)


def _frames(recording: Recording) -> Iterator[np.ndarray]:
    """The (H, W, 3) uint8 frames of a person's film, 25 a second; a half of it if so recorded."""
    assert recording.video is not None
    for frame in media.read_video(recording.video):
        if recording.half is None:
            yield frame
            continue
        axis = int(frame.shape[1] >= frame.shape[0])  # the longer side
        halves = np.array_split(frame, 2, axis=axis)
        yield np.ascontiguousarray(halves[recording.half])


def _file(recording: Recording) -> str:
    assert recording.video is not None
    parts = {None: "", 0: " (left or upper half)", 1: " (right or lower half)"}
    return recording.video.name + parts[recording.half]


def _hear(
    source: Source,
    sound: voices.Voices | np.ndarray,
    mouths: Mapping[str, np.ndarray] | None,
    settings: Settings,
) -> Heard:
    mixed = isinstance(sound, np.ndarray)
    if isinstance(sound, np.ndarray):
        each, activity = voices.attribute(sound, speech.voice_activity(sound), mouths)
    else:
        each, activity = {}, {}
        for key, other in zip(PEOPLE, PEOPLE[::-1], strict=True):
            spans = _activity(source[key], sound[key])
            each[key], activity[key] = voices.without_bleed(sound[key], sound[other], spans)
    if not any(activity.values()):
        raise Dropped("nobody speaks, expected at least one voice")
    gains = {}
    for key in PEOPLE:
        level = speech.loudness(each[key], activity[key])
        gains[key] = speech.gain_db(each[key], level, settings.loudness_lufs)
    louder = {key: each[key] * np.float32(10 ** (gains[key] / 20)) for key in PEOPLE}
    return Heard(louder, activity, gains, mixed)


def _activity(recording: Recording, voice: np.ndarray) -> speech.Spans:
    known = None if recording.activity is None else speech.read_activity(recording.activity)
    return speech.voice_activity(voice) if known is None else known


def _notes(heard: Heard) -> list[str]:
    mixed = "both voices were mixed in one sound; each utterance went to whose lips moved more"
    return [mixed] if heard.mixed else []


def _write(
    source: Source,
    stretches: list[framing.Stretch],
    tracks: Mapping[str, person.PersonTrack],
    heard: Heard,
    lines: list[transcripts.Line] | None,
    out: Path,
    settings: Settings,
) -> list[Kept]:
    folders = [_Folder(out, source, number) for number in range(len(stretches))]
    sheets = [write.ContactSheet(stretch.frames) for stretch in stretches]
    truths: list[dict[str, Any]] = [{} for _ in stretches]
    for key in PEOPLE:
        frames, position = _frames(source[key]), 0
        for stretch, folder, sheet, truth in zip(stretches, folders, sheets, truths, strict=True):
            part = islice(frames, stretch.start - position, stretch.end - position)
            position = stretch.end
            alignment = stretch.alignments[key]
            pixels, seen = mesh.filled(tracks[key].landmarks[stretch.start : stretch.end])
            landmarks = mesh.in_crop(pixels, alignment)
            sheet.new_row()
            with Film.open(folder.path / f"{key}.mp4", settings.size) as film:
                for n, frame in enumerate(part):
                    crop = alignment.crop(frame, settings.size)
                    film.add(crop)
                    if n in sheet.frames:
                        sheet.add(crop, landmarks[n], bool(seen[n]))
            truth |= {
                f"{key}_landmarks": landmarks.astype(np.float16),
                f"{key}_seen": seen,
                f"{key}_aperture": mesh.aperture(landmarks),
                f"{key}_pose": mesh.head_pose(landmarks),
                f"{key}_region_centers": mesh.region_centers(landmarks),
            }
    kept = []
    for stretch, folder, sheet, truth in zip(stretches, folders, sheets, truths, strict=True):
        sheet.write(folder.path / "preview.jpg")
        kept.append(folder.finish(source, stretch.start, stretch.end, heard, lines, truth))
    return kept


class _Folder:
    """A conversation's folder, which has its name only when all is in it."""

    def __init__(self, out: Path, source: Source, number: int) -> None:
        name = f"conversation_{safe(source.name)}_{number:03d}"
        self._finished = out / safe(source.split) / name
        self.path = self._finished.with_name(f".{name}.partial")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def finish(
        self,
        source: Source,
        start: int,
        end: int,
        heard: Heard,
        lines: list[transcripts.Line] | None,
        truth: Mapping[str, Any],
    ) -> Kept:
        """Adds sound and truth of frames `start` to before `end`."""
        known: dict[str, Any] = dict(truth)
        speaking_s = {}
        for key in PEOPLE:
            voice = heard.voices[key][start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
            write.voice(self.path / f"{key}.wav", voice, end - start)
            speaking = speech.active_frames(heard.activity[key], end)[start:]
            known[f"{key}_speaking"] = speaking
            known[f"{key}_identity"] = json.dumps(
                {
                    "person": source[key].person,
                    "start_s": start / FRAME_RATE_HZ,
                    "gain_db": round(heard.gains_db[key], 2),
                    "voice": "mixture, by lips" if heard.mixed else "own track",
                }
            )
            speaking_s[key] = round(float(speaking.sum()) / FRAME_RATE_HZ, 2)
        if lines is not None:
            known["transcript"] = json.dumps(transcripts.rows(lines, start, end))
        np.savez_compressed(self.path / "truth.npz", **known)
        shutil.rmtree(self._finished, ignore_errors=True)
        self.path.rename(self._finished)
        relative = self._finished.relative_to(self._finished.parents[1])
        return Kept(str(relative), (end - start) / FRAME_RATE_HZ, speaking_s)
