"""This is where square frames become a corpus film: H.264, key frames only, full colour resolution.

Any of its frames decodes without its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import numpy as np

from visavis.config import FRAME_RATE_HZ


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
