"""This is where sound and video files are read, whatever their rate, channels, size or format.

Sound comes out as 16 kHz mono float32 in [-1, 1], video as 25 upright RGB frames a second. A file
that breaks off is used as far as it goes, with a `MediaWarning` that says where; a file that gives
nothing is a `MediaError`.
"""

from __future__ import annotations

import codecs
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import av
import av.container
import av.error
import numpy as np
import soxr

from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from visavis_client._errors import AudioError, MediaError, MediaWarning
from visavis_client._wire import waveform

PathLike = str | os.PathLike[str]

_SILENCE = 1e-4  # -80 dB: nobody speaks below
_TIME_BASE = 1_000_000  # of a container's start and duration
_HALF_FRAME_S = 0.5 / FRAME_RATE_HZ
_SLACK_S = 0.5  # a duration in a header may be that wrong before a file counts as broken off


def read_audio(path: PathLike) -> np.ndarray:
    """The sound of an audio or video file, (n,) float32 at 16 kHz.

    Channels are averaged. MediaError when there is no sound to read, AudioError when it is empty or
    not finite; a MediaWarning when it is silent or breaks off.
    """
    with _opened(path, "audio") as container:
        rate, samples = _decode_audio(container, path)
    if not len(samples):
        raise AudioError(f"{path}: got 0 samples, expected a sound; record it again")
    try:
        samples = waveform("samples", samples)  # before resampling, which would spread a NaN
    except AudioError as error:
        raise AudioError(f"{path}: at {rate} Hz, {error}") from error
    samples = soxr.resample(samples, rate, SAMPLE_RATE_HZ)
    if np.abs(samples).max(initial=0.0) < _SILENCE:
        _warn(f"{path}: the sound is silent, all {len(samples) / SAMPLE_RATE_HZ:.2f} s of it")
    return np.clip(samples, -1.0, 1.0)


def read_video(path: PathLike) -> Iterator[np.ndarray]:
    """The frames of a video file, (H, W, 3) uint8, 25 a second and upright.

    Frames are repeated or left out by their time stamps, so that a variable or another frame rate
    keeps its speed. MediaError when there is no frame; a MediaWarning when the file breaks off.
    """
    with _opened(path, "video") as container:
        empty = True
        for frame in _at_frame_rate(_timed_frames(container, path)):
            empty = False
            yield frame
    if empty:
        raise MediaError(f"{path}: got 0 frames, expected a video; record it again")


def has_audio(path: PathLike) -> bool:
    """Whether a media file has a sound track."""
    with _opened(path, None) as container:
        return bool(container.streams.audio)


def _decode_audio(container: av.container.InputContainer, path: PathLike) -> tuple[int, np.ndarray]:
    """(sample rate, (n,) float32) of the first sound track, from the file's own start."""
    stream = container.streams.audio[0]
    planar = av.AudioResampler(format="fltp")
    parts = []
    with _until_break(path) as progress:
        for frame in container.decode(stream):
            parts += [part.to_ndarray().mean(axis=0) for part in planar.resample(frame)]
            progress.reached(frame.time, frame.samples / frame.sample_rate)
    _warn_if_short(progress, container, path)
    rate = stream.codec_context.sample_rate
    late_s = max(0.0, progress.start_s - (container.start_time or 0) / _TIME_BASE)
    lead = np.zeros(round(late_s * rate) if late_s > _HALF_FRAME_S else 0, np.float32)
    return rate, np.concatenate([lead, *parts]) if parts else lead[:0]


def _timed_frames(
    container: av.container.InputContainer, path: PathLike
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """(start, duration, frame) in seconds from the file's own start."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    usual_s = float(1 / (stream.average_rate or FRAME_RATE_HZ))
    start_s = (container.start_time or 0) / _TIME_BASE
    with _until_break(path) as progress:
        for frame in container.decode(stream):
            duration_s = float(frame.duration * (frame.time_base or 0)) or usual_s
            progress.reached(frame.time, duration_s)
            yield progress.end_s - duration_s - start_s, duration_s, frame
    _warn_if_short(progress, container, path)


def _at_frame_rate(
    timed: Iterator[tuple[float, float, av.VideoFrame]],
) -> Iterator[np.ndarray]:
    """The picture on show at every 1/25 s; the first one is on show from the start."""
    shown: av.VideoFrame | None = None
    end_s = 0.0
    count = 0

    def due(until_s: float) -> bool:
        return count / FRAME_RATE_HZ + _HALF_FRAME_S < until_s

    for start_s, duration_s, frame in timed:
        if shown is not None and due(start_s):
            image = _upright(shown)
            while due(start_s):
                yield image
                count += 1
        shown, end_s = frame, start_s + duration_s
    if shown is not None:
        image = _upright(shown)
        while count == 0 or due(end_s):
            yield image
            count += 1


def _upright(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    return np.rot90(image, round(frame.rotation / 90) % 4)


class _Progress:
    """How far a file could be decoded."""

    def __init__(self) -> None:
        self.start_s = 0.0
        self.end_s = 0.0
        self.broken = False
        self._any = False

    def reached(self, start_s: float | None, duration_s: float) -> None:
        start_s = self.end_s if start_s is None else start_s
        if not self._any:
            self.start_s, self._any = start_s, True
        self.end_s = start_s + duration_s


@contextmanager
def _until_break(path: PathLike) -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    except av.error.FFmpegError as error:
        progress.broken = True
        if progress.end_s == 0.0:
            raise MediaError(
                f"{path}: nothing in it can be decoded ({_reason(error)}); record or convert it "
                "again"
            ) from error
        _warn(f"{path}: it is broken after {progress.end_s:.2f} s; only what comes before is used")


def _warn_if_short(
    progress: _Progress, container: av.container.InputContainer, path: PathLike
) -> None:
    """A file that was cut may end without any error but the duration in its header."""
    start_s = (container.start_time or 0) / _TIME_BASE
    promised_s = (container.duration or 0) / _TIME_BASE
    if not progress.broken and 0 < progress.end_s - start_s < 0.95 * promised_s - _SLACK_S:
        _warn(
            f"{path}: it ends after {progress.end_s - start_s:.2f} s of the {promised_s:.2f} s "
            "that it promises; only these are used"
        )


@contextmanager
def _opened(
    path: PathLike, kind: Literal["audio", "video"] | None
) -> Iterator[av.container.InputContainer]:
    path = Path(path)
    if not path.exists():
        raise MediaError(f"{path}: there is no such file; check the path")
    if path.is_dir() or not path.stat().st_size:
        what = "a folder" if path.is_dir() else "an empty file"
        raise MediaError(f"{path}: got {what}, expected a media file; check the path")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise _unreadable(path, _reason(error)) from error
    with container:
        found = sorted({stream.type for stream in container.streams})
        if not {"audio", "video"} & set(found):  # FFmpeg takes some texts for subtitles
            raise _unreadable(path, "no sound and no picture in it")
        if kind and kind not in found:
            raise MediaError(
                f"{path}: got a file with {' and '.join(found)}, expected {kind}; pass another file"
            )
        yield container


def _unreadable(path: Path, reason: str) -> MediaError:
    with path.open("rb") as file:
        text = _as_text(file.read(64))
    if text:
        got = f"text that starts with {text[:24]!r}"
    else:
        got = f"{path.stat().st_size} bytes that no decoder knows ({reason})"
    return MediaError(
        f"{path}: got {got}, expected sound or video such as WAV, MP3 or MP4; it may be cut off or "
        "have the wrong name: record or convert it again"
    )


def _as_text(head: bytes) -> str:
    """`head` as text, or "" when it is none; its last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return ""
    return text if all(c.isprintable() or c.isspace() for c in text) else ""


def _reason(error: av.error.FFmpegError) -> str:
    return error.strerror or type(error).__name__


def _warn(message: str) -> None:
    warnings.warn(message, MediaWarning, stacklevel=3)
