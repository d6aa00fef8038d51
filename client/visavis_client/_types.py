"""This is where the values that go into and come out of the client are described.

Pixels are (H, W, 3) uint8 RGB, sound is 16 kHz mono float32 in [-1, 1], video has 25 frames a
second. All of them are frozen; arrays are not copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import simplejpeg

from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from visavis.contract import TensorSpec
from visavis_client._errors import InputError, PortraitError, StreamBroken, TranscriptError
from visavis_client._h264 import Packets

Role = Literal["user", "avatar"]
ImageFormat = Literal["jpeg", "raw", "h264"]


@dataclass(frozen=True, eq=False)
class Portrait:
    """An aligned portrait, as `visavis_client.face.portrait` makes it.

    image: (S, S, 3) uint8, the eyes at 0.42 and the mouth at 0.68 of its height.
    region_centers: (2, 2) float32, rows (lip, face), columns (x, y), the side is 1.
    """

    image: np.ndarray
    region_centers: np.ndarray

    def __post_init__(self) -> None:
        shape = self.image.shape
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or self.image.dtype != np.uint8:
            raise PortraitError(
                f"portrait: got {shape} {self.image.dtype}, expected an aligned (S, S, 3) uint8 "
                "picture; make it with visavis_client.face.portrait"
            )
        if self.region_centers.shape != (2, 2):
            raise PortraitError(
                f"region_centers: got {self.region_centers.shape}, expected (2, 2): rows (lip, "
                "face), columns (x, y)"
            )


@dataclass(frozen=True)
class Turn:
    """One turn of the transcript. `start_s` counts from the start of the conversation."""

    role: Role
    text: str
    start_s: float

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise TranscriptError(
                f'role: got {self.role!r}, expected "user" or "avatar"; say whose words they are'
            )
        if not isinstance(self.text, str):
            raise TranscriptError(f"text: got {self.text!r}, expected a string")
        if not isinstance(self.start_s, int | float) or not 0 <= self.start_s < math.inf:
            raise TranscriptError(
                f"start_s: got {self.start_s!r}, expected seconds from the start, 0 or more"
            )


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a conversation, of any length; what is None or empty has not arrived.

    avatar_audio: (n,) float32. user_audio: (n,) float32. user_video: (n, S, S, 3) uint8 aligned.
    """

    avatar_audio: np.ndarray | None = None
    user_audio: np.ndarray | None = None
    user_video: np.ndarray | None = None
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Position:
    """How much of a conversation a session has been sent."""

    avatar_samples: int = 0
    user_samples: int = 0
    user_frames: int = 0
    turns: int = 0

    def after(self, chunk: Chunk) -> Position:
        """The position once `chunk` has been sent too."""
        return Position(
            self.avatar_samples + _length(chunk.avatar_audio),
            self.user_samples + _length(chunk.user_audio),
            self.user_frames + _length(chunk.user_video),
            self.turns + len(chunk.turns),
        )

    @property
    def avatar_frames(self) -> int:
        """Frames of video that the avatar's audio is enough for, if it ends here."""
        return -(-self.avatar_samples // SAMPLES_PER_FRAME)


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What a session may choose; None leaves the choice to the server's configuration.

    image_format: jpeg, raw, or h264 with a tenth of jpeg's bytes. jpeg_quality: 1 to 100.
    h264_crf: x264's constant rate factor, 0 (lossless) to 51.
    """

    seed: int = 0
    num_steps: int | None = None
    audio_guidance_scale: float | None = None
    user_guidance_scale: float | None = None
    image_format: ImageFormat = "jpeg"
    jpeg_quality: int | None = None
    h264_crf: int | None = None

    def __post_init__(self) -> None:
        if self.image_format not in get_args(ImageFormat):
            raise InputError(
                f"image_format: got {self.image_format!r}, expected one of "
                f"{', '.join(get_args(ImageFormat))}; choose one"
            )
        if self.num_steps is not None and self.num_steps < 1:
            raise InputError(f"num_steps: got {self.num_steps}, expected 1 or more; 2 is usual")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"jpeg_quality: got {self.jpeg_quality}, expected 1 to 100")
        if self.h264_crf is not None and not 0 <= self.h264_crf <= 51:
            raise InputError(f"h264_crf: got {self.h264_crf}, expected 0 to 51")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of the avatar.

    content: as the server encoded it, a JPEG, the raw values row by row or a packet of H.264 (Annex
    B; the next key frame is never more than a second away); hand it on as it is if nobody looks at
    its pixels here. latency_s: from sending the request that completed the frame's
    block to the arrival of the frame.
    """

    content: bytes = field(repr=False)
    index: int
    latency_s: float
    image_format: ImageFormat
    image_size: int
    packets: Packets | None = field(default=None, repr=False)  # of H.264, this frame's among them

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, decoded when it is first asked for; StreamBroken if it cannot be."""
        size = self.image_size
        try:
            if self.packets is not None:
                return self.packets.image(self.index)
            if self.image_format == "jpeg":
                return simplejpeg.decode_jpeg(self.content, colorspace="RGB")
            return np.frombuffer(self.content, np.uint8).reshape(size, size, 3)
        except ValueError as error:
            raise StreamBroken(
                f"frame {self.index}: got {len(self.content)} bytes that are no "
                f"{self.image_format} picture ({error}); resume from the newest snapshot"
            ) from error

    @property
    def pts_s(self) -> float:
        """When to show the frame, in seconds from the start of the avatar's audio."""
        return self.index / FRAME_RATE_HZ


@dataclass(frozen=True)
class BlockTiming:
    """When one block of frames came. `arrived_s` counts from the start of the session."""

    first_frame: int
    frames: int
    latency_s: float
    arrived_s: float


@dataclass(frozen=True)
class ServerInfo:
    """What the client must know of a server; it comes from the server's own metadata."""

    image_size: int
    block_frames: int
    inputs: Mapping[str, TensorSpec] = field(repr=False)


@dataclass(frozen=True)
class ModelStatistics:
    """What one model has done since the server started: `rows` of batches, in `executions`."""

    name: str
    executions: int = 0
    rows: int = 0
    compute_s: float = 0.0
    queue_s: float = 0.0

    def since(self, before: ModelStatistics) -> ModelStatistics:
        """What the model has done since `before`."""
        return ModelStatistics(
            self.name,
            self.executions - before.executions,
            self.rows - before.rows,
            self.compute_s - before.compute_s,
            self.queue_s - before.queue_s,
        )


def _length(array: np.ndarray | None) -> int:
    return 0 if array is None else len(array)
