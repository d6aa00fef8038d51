"""This is where pictures become what leaves the server: JPEG, raw values, or a stream of H.264; and
where those that come in as JPEGs become values.

JPEG and raw pictures stand each for itself. H.264 tells only what has changed since the picture
before, a tenth of the bytes, so a session's encoder remembers: it is made anew, and with it a key
frame, whenever the receiver may lack the picture before. What it remembers is no part of the
session's state, which is the same whatever leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
import simplejpeg

from visavis.config import FRAME_RATE_HZ
from visavis.messages import Options, SessionError

KEY_FRAME_EVERY_S = 1  # whoever joins a stream, or lost some of it, waits no longer


class PictureEncoder(Protocol):
    """Pictures of one session, in order, to bytes."""

    def encode(self, images: np.ndarray) -> Sequence[bytes]:
        """(n, H, W, 3) uint8 RGB -> n of bytes."""
        ...


class Jpeg:
    """Pictures as JPEG."""

    def __init__(self, quality: int):
        self.quality = quality

    def encode(self, images: np.ndarray) -> Sequence[bytes]:
        """See `PictureEncoder`."""
        contiguous = map(np.ascontiguousarray, images)
        return [simplejpeg.encode_jpeg(image, quality=self.quality) for image in contiguous]


class Raw:
    """Pictures as their values, row by row."""

    def encode(self, images: np.ndarray) -> Sequence[bytes]:
        """See `PictureEncoder`."""
        return [image.tobytes() for image in images]


class H264:
    """Pictures as packets of one H.264 stream (Annex B), each complete when it leaves.

    Raises:
        SessionError: the server lacks PyAV, or the picture's side is odd.
    """

    def __init__(self, size: int, rate_factor: int):
        av = _pyav()
        if size % 2:
            raise SessionError(
                f"options.image_format: got h264 of {size} pixels a side, expected an even number, "
                "as its colours are halved; choose jpeg"
            )
        self.frame_of = av.VideoFrame.from_ndarray
        self.context = av.CodecContext.create("libx264", "w")
        self.context.width = self.context.height = size
        self.context.pix_fmt = "yuv420p"
        self.context.time_base = Fraction(1, FRAME_RATE_HZ)
        self.context.framerate = Fraction(FRAME_RATE_HZ)
        self.context.gop_size = KEY_FRAME_EVERY_S * FRAME_RATE_HZ
        self.context.thread_count = 1  # the cores are the networks'
        self.context.options = {
            "preset": "veryfast",
            "tune": "zerolatency",  # a packet a picture, at once
            "crf": str(rate_factor),
            "x264-params": "scenecut=0",  # key frames when they are due, and not at every laugh
        }
        self.encoded = 0

    def encode(self, images: np.ndarray) -> Sequence[bytes]:
        """See `PictureEncoder`."""
        return [self._packet(image) for image in images]

    def _packet(self, image: np.ndarray) -> bytes:
        frame = self.frame_of(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.encoded, self.context.time_base
        self.encoded += 1
        return b"".join(bytes(packet) for packet in self.context.encode(frame))


def encoder_of(options: Options, size: int) -> PictureEncoder:
    """What a session's options ask for, for pictures of `size` pixels a side; SessionError when
    this server cannot."""
    if options.image_format == "h264":
        return H264(size, options.h264_crf)
    return Raw() if options.image_format == "raw" else Jpeg(options.jpeg_quality)


def decoded(name: str, images: np.ndarray, size: int) -> np.ndarray:
    """(n,) of bytes, each a JPEG -> (n, size, size, 3) uint8 RGB.

    Raises:
        SessionError: one is no JPEG, or not of `size` pixels a side, which its header tells before
            anything is decoded: a small file can hold a very large picture.
    """
    pictures = np.empty((len(images), size, size, 3), np.uint8)
    for place, image in enumerate(images):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(image)
            fits = height == width == size
            if fits:
                pictures[place] = simplejpeg.decode_jpeg(image, colorspace="RGB")
        except (ValueError, TypeError) as error:
            raise SessionError(
                f"{name}[{place}]: got {len(image)} bytes that are no JPEG ({error}), expected "
                f"one; send user_video for pictures as values"
            ) from error
        if not fits:
            raise SessionError(
                f"{name}[{place}]: got a picture of {width}x{height}, expected {size}x{size}; "
                "align and resize it"
            )
    return pictures


def _pyav():
    try:
        import av  # only whoever asks for H.264 needs it
    except ImportError as error:
        raise SessionError(
            "options.image_format: got h264, expected jpeg or raw, as this server has no PyAV; "
            "choose one, or install av beside the server"
        ) from error
    return av
