"""This is where packets of H.264 become pictures, when somebody asks for one."""

from __future__ import annotations

import re
import threading

import av
import numpy as np
from av.codec.context import Flags

# A start code and a unit of type 7 (sequence parameters), which our server sends before every key
# frame and nowhere else.
_PARAMETERS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
_HEAD = 64  # bytes of a packet among which these come


class Packets:
    """Packets from a key frame to the next, each of one frame; decoded as far as is asked.

    What is decoded is kept as long as any frame of them is.
    """

    def __init__(self, first_frame: int) -> None:
        self.first_frame = first_frame
        self._packets: list[bytes] = []
        self._images: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.thread_count = 1  # several would hold pictures back
        self._decoder.flags |= Flags.low_delay

    def append(self, content: bytes) -> None:
        """The next frame's packet."""
        self._packets.append(content)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 of the frame `index`; ValueError when its packets are broken."""
        place = index - self.first_frame
        with self._lock:
            while len(self._images) <= place:
                self._images.append(self._decoded(self._packets[len(self._images)]))
            return self._images[place]

    def _decoded(self, content: bytes) -> np.ndarray:
        (frame,) = self._decoder.decode(av.Packet(content))
        return frame.to_ndarray(format="rgb24")


def is_key_frame(content: bytes) -> bool:
    """Whether a packet can be decoded without those before it."""
    return _PARAMETERS.search(content, 0, _HEAD) is not None
