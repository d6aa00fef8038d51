"""This is where each person gets a sound track with their voice alone.

Two files, two sound tracks of one file, or two different channels of one track are a voice each.
A sound that holds both voices cannot be taken apart; its utterances are given, one by one, to
whose lips move more meanwhile. An overlap then goes to one of the two, and the report says so.
What a microphone hears of the other person's voice is silenced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import soxr
from visavis_client import media

from training.corpus.prepare.source import PEOPLE, Dropped, Source
from training.corpus.prepare.speech import Spans
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ

SAME_SOUND = 0.9  # correlation of two tracks above which both hold the same voices
BLEED_RATIO = 0.5  # own amplitude over the other's, below which an utterance may be the other's
BLEED_LIKENESS = 0.8  # correlation of loudness in time, above which it is
_STEP = 320  # samples of 20 ms: the grain of loudness in time
_MAX_LAG_STEPS = 10
_FADE_S = 0.01
_SILENCE = 1e-4
_MICROSECONDS = 1_000_000  # FFmpeg's unit of a container's start

Voices = dict[str, np.ndarray]  # by person, (n,) float32 at 16 kHz


def read(source: Source) -> Voices | np.ndarray:
    """The two voices, or, where they are mixed, (n,) float32 of the mixture."""
    files = {person: source[person].audio for person in PEOPLE}
    if files["a"] is not None and files["a"] == files["b"]:
        tracks = _tracks(files["a"])
        if _are_two_voices(tracks):
            return dict(zip(PEOPLE, tracks, strict=False))
        return media.read_audio(files["a"])
    voices = {
        person: np.zeros(0, np.float32) if path is None else media.read_audio(path)
        for person, path in files.items()
    }
    return voices["a"] if alike(voices["a"], voices["b"]) else voices


def _are_two_voices(tracks: list[np.ndarray]) -> bool:
    """A silent second channel is no voice, and a second one that is the first neither."""
    loud = [track for track in tracks[:2] if np.abs(track).max(initial=0.0) > _SILENCE]
    return len(loud) == 2 and not alike(*loud)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two tracks are one sound, at whatever level."""
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    if min(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)) < _SILENCE:
        return False
    return abs(float(np.corrcoef(a, b)[0, 1])) > SAME_SOUND


def _tracks(path: Path) -> list[np.ndarray]:
    """The sound tracks of a file if it has several, or else the channels of its only one."""
    if not media.has_audio(path):
        raise Dropped(f"{path.name}: no sound in it")
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    if count > 1:
        return [_decoded(path, number).mean(axis=0) for number in range(count)]
    return list(_decoded(path, 0))


def _decoded(path: Path, number: int) -> np.ndarray:
    """(channels, n) float32 at 16 kHz of a sound track, from the file's own start."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        rate = stream.codec_context.sample_rate
        planar = av.AudioResampler(format="fltp")
        parts, start_s = [], None
        for frame in container.decode(stream):
            start_s = frame.time if start_s is None else start_s
            parts += [part.to_ndarray() for part in planar.resample(frame)]
        late_s = max(0.0, (start_s or 0.0) - (container.start_time or 0) / _MICROSECONDS)
    if not parts:
        raise Dropped(f"{path.name}: sound track {number} is empty")
    samples = np.concatenate(parts, axis=1)
    lead = np.zeros((len(samples), round(late_s * rate)), np.float32)
    whole = np.concatenate([lead, samples], axis=1)
    return np.stack([soxr.resample(channel, rate, SAMPLE_RATE_HZ) for channel in whole])


def attribute(
    mixture: np.ndarray, spans: Spans, mouths: Mapping[str, np.ndarray] | None
) -> tuple[Voices, dict[str, Spans]]:
    """Voices and their activity out of a mixture.

    Args: mixture (n,) float32 at 16 kHz; spans, when anybody speaks; mouths, (T,) float32 apertures
    by person, NaN where unknown.
    """
    if mouths is None:
        raise Dropped("both sound tracks hold the same voices, expected one voice in each")
    owners = [_whose(span, mouths) for span in spans]
    shares: dict[str, Spans] = {
        person: [span for span, owner in zip(spans, owners, strict=True) if owner == person]
        for person in PEOPLE
    }
    return {person: _gated(mixture, shares[person]) for person in PEOPLE}, shares


def _whose(span: tuple[float, float], mouths: Mapping[str, np.ndarray]) -> str:
    first, last = (round(time_s * FRAME_RATE_HZ) for time_s in span)
    return max(PEOPLE, key=lambda person: _motion(mouths[person][first : last + 1]))


def _motion(mouth: np.ndarray) -> float:
    """How much a mouth opens and closes, a frame."""
    steps = np.abs(np.diff(mouth))
    return float(np.nanmean(steps)) if np.isfinite(steps).any() else 0.0


def without_bleed(voice: np.ndarray, other: np.ndarray, spans: Spans) -> tuple[np.ndarray, Spans]:
    """A voice (n,) and its activity, without the utterances that are an echo of the other's voice.

    An echo is quieter than the other's voice and rises and falls with it, up to 0.2 s later.
    """
    echoes = [span for span in spans if _is_echo(voice, other, span)]
    if not echoes:
        return voice, spans
    return voice - _gated(voice, echoes), [span for span in spans if span not in echoes]


def _is_echo(voice: np.ndarray, other: np.ndarray, span: tuple[float, float]) -> bool:
    first, last = (round(time_s * SAMPLE_RATE_HZ / _STEP) for time_s in span)
    own = _loudness_in_time(voice, first, last)
    for lag in range(min(_MAX_LAG_STEPS, first) + 1):
        theirs = _loudness_in_time(other, first - lag, last - lag)
        if len(theirs) == len(own) > 2 and np.ptp(own) > 0 and np.ptp(theirs) > 0:
            quieter = own.mean() < BLEED_RATIO * theirs.mean()
            if quieter and np.corrcoef(own, theirs)[0, 1] > BLEED_LIKENESS:
                return True
    return False


def _loudness_in_time(voice: np.ndarray, first: int, last: int) -> np.ndarray:
    """Root mean squares of steps `first` to before `last`."""
    samples = voice[first * _STEP : last * _STEP]
    return np.sqrt((samples[: len(samples) // _STEP * _STEP].reshape(-1, _STEP) ** 2).mean(axis=1))


def _gated(mixture: np.ndarray, spans: Spans) -> np.ndarray:
    """The mixture within the spans, faded in and out; silence elsewhere."""
    gate = np.zeros(len(mixture), np.float32)
    for start_s, end_s in spans:
        gate[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)] = 1
    width = round(_FADE_S * SAMPLE_RATE_HZ)
    return mixture * np.convolve(gate, np.full(width, 1 / width, np.float32), mode="same")
