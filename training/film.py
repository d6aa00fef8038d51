"""This is where frames become films, at 25 frames a second.

`Film` is a corpus film: H.264, key frames only, full colour resolution; any of its frames decodes
without its neighbours. `write_video` makes one for people to look at and listen to. `read_frames`
reads either, and any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np

from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video, one by one."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


class Film:
    """A film that is being written, at 25 frames a second."""

    def __init__(self, container: av.container.OutputContainer, size: int) -> None:
        self._container = container
        stream = container.add_stream("libx264", rate=FRAME_RATE_HZ)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv444p"
        stream.options = {"crf": "10", "preset": "veryfast", "g": "1", "bf": "0", "threads": "1"}
        self._stream = stream

    @classmethod
    @contextmanager
    def open(cls, path: Path, size: int) -> Iterator[Film]:
        """Begins and ends the file."""
        with av.open(str(path), "w") as container:
            film = cls(container, size)
            yield film
            container.mux(film._stream.encode())

    def add(self, picture: np.ndarray) -> None:
        """picture: (S, S, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))


def write_video(
    path: Path, frames: Iterable[np.ndarray], audio: np.ndarray | None = None, crf: int = 16
) -> None:
    """(H, W, 3) uint8 frames of one even size, and, if given, sound, as H.264 and AAC.

    Args:
        audio: (samples,) or, left and right, (2, samples) float32 at 16 kHz.
        crf: H.264's constant rate factor; smaller is better and bigger.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options={"crf": str(crf)})
        video.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            if index == 0:  # the first packet fixes the film's size, so the sound may not be first
                video.height, video.width = frame.shape[:2]
                if audio is not None:
                    _add_sound(container, np.atleast_2d(audio))
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())


def _add_sound(container: av.container.OutputContainer, audio: np.ndarray) -> None:
    """(channels, samples) float32 at 16 kHz, all of it, as AAC."""
    layout = "mono" if len(audio) == 1 else "stereo"
    stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout=layout)
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio, np.float32), "fltp", layout)
    whole.sample_rate, whole.pts = SAMPLE_RATE_HZ, 0
    whole.time_base = Fraction(1, SAMPLE_RATE_HZ)
    container.mux([*stream.encode(whole), *stream.encode()])
