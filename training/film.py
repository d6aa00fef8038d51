"""This is where frames become films, at 25 frames a second.

`Film` is a corpus film: H.264, key frames only, full colour resolution; any of its frames decodes
without its neighbours. `write_video` makes one for people to look at and listen to.
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
        sound = None
        if audio is not None:
            layout = "stereo" if audio.ndim == 2 else "mono"
            sound = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout=layout)
        for frame in frames:
            if not video.codec_context.is_open:
                video.height, video.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if sound is not None:
            samples = np.ascontiguousarray(np.atleast_2d(audio), np.float32)
            whole = av.AudioFrame.from_ndarray(samples, "fltp", sound.layout.name)
            whole.sample_rate, whole.pts = SAMPLE_RATE_HZ, 0
            whole.time_base = Fraction(1, SAMPLE_RATE_HZ)
            container.mux([*sound.encode(whole), *sound.encode()])
