"""This is where one session keeps its books: what was sent, what came, what is due.

An `Exchange` does no I/O, takes no locks and reads no clock: the sync and the async session drive
it, and differ only in how they wait. Time is passed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
import simplejpeg

from visavis_client import _wire
from visavis_client._errors import (
    DeadlineExceeded,
    InputError,
    ServerError,
    SessionEnded,
    StreamBroken,
    VisavisError,
)
from visavis_client._types import (
    BlockTiming,
    Chunk,
    Frame,
    ImageFormat,
    Portrait,
    Position,
    ServerInfo,
    SessionOptions,
)
from visavis_client._wire import Request, Response

CLOSE_TIMEOUT_S = 1.0  # for the server to hear that a session was left
MAX_IN_FLIGHT = 2  # Triton has no back-pressure of its own on a decoupled stream

_SNAPSHOT = struct.Struct("<8sI")  # magic, length of the JSON head; the server's state follows
_SNAPSHOT_MAGIC = b"VSVSNAP1"


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for the first frame (a place on the server included), and between two."""

    start_s: float = 30.0
    frame_s: float = 5.0


@dataclass(frozen=True)
class Opening:
    """What a session starts from: a portrait and options, or a snapshot."""

    tensors: dict[str, np.ndarray]
    image_format: ImageFormat
    options: SessionOptions | None  # None: they are in the snapshot
    user_audio: bool | None = None  # None: as the first chunk has it
    user_video: bool | None = None
    position: Position = field(default_factory=Position)


class _EncodedFrame(NamedTuple):
    content: bytes
    index: int
    latency_s: float


class Exchange:
    """The books of one session."""

    def __init__(self, server: ServerInfo, opening: Opening, timeouts: Timeouts) -> None:
        self.server = server
        self.session_id = str(uuid.uuid4())  # unguessable: on the server, the id is the key
        self.position = opening.position
        self.timings: list[BlockTiming] = []
        self._opening = opening
        self._timeouts = timeouts
        self._in_flight: dict[str, float] = {}  # request id -> when it was sent
        self._requests = 0
        self._frames: deque[_EncodedFrame] = deque()
        self._snapshots: dict[str, np.ndarray] = {}
        self._next_frame: int | None = None if opening.options is None else 0
        self._started_s: float | None = None
        self._progress_s = 0.0
        self._refused: deque[VisavisError] = deque()
        self._broken: VisavisError | None = None
        self._ending = False
        self._cancelled = False

    # What a session waits for

    @property
    def started(self) -> bool:
        """Whether the START request is on its way."""
        return self._started_s is not None

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return len(self._in_flight) < MAX_IN_FLIGHT

    @property
    def has_frame(self) -> bool:
        """Whether a frame has come that nobody has taken."""
        return bool(self._frames)

    @property
    def cancelled(self) -> bool:
        """Whether the session was cancelled."""
        return self._cancelled

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return self._cancelled or (self._ending and not self._in_flight)

    def answered(self, request_id: str) -> bool:
        """Whether all that will come for a request has come."""
        return request_id not in self._in_flight

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds until the server is late; None while it owes nothing."""
        if not self._in_flight:
            return None
        limit = self._timeouts.frame_s if self.timings else self._timeouts.start_s
        owed_since = max(self._progress_s, min(self._in_flight.values()))
        return owed_since + limit - now_s

    def raise_failure(self) -> None:
        """Raise what went wrong: a broken stream every time, a refused request once."""
        if self._cancelled:
            return
        if self._broken is not None:
            raise self._broken
        if self._refused:
            raise self._refused.popleft()

    def require_open(self) -> None:
        """Raise unless more can be sent."""
        if self._ending or self._cancelled:
            raise SessionEnded(
                "session: it was finished or cancelled, so nothing more can be sent; open another"
            )
        self.raise_failure()

    # Sending

    def open(self, *, user_audio: bool, user_video: bool, now_s: float) -> Request:
        """The START request. What the caller said when opening wins over the arguments."""
        opening = self._opening
        self._started_s = now_s
        tensors = dict(opening.tensors)
        if opening.options is not None:
            tracks = {
                "user_audio": user_audio if opening.user_audio is None else opening.user_audio,
                "user_video": user_video if opening.user_video is None else opening.user_video,
            }
            tensors["options"] = _options_tensor(opening.options, tracks, self.server)
        return self._request(tensors, now_s, start=True, timeout_s=self._timeouts.start_s)

    def chunk(self, chunk: Chunk, now_s: float) -> Request | None:
        """The request for one chunk; None when there is nothing in it."""
        tensors = _wire.checked(_chunk_tensors(chunk), self.server)
        if not tensors:
            return None
        request = self._request(tensors, now_s)
        self.position = self.position.after(chunk)
        return request

    def finish(self, now_s: float) -> Request:
        """The END request: the avatar's audio ends here."""
        request = self._request({}, now_s, end=True)
        self._ending = True
        return request

    def ask_snapshot(self, now_s: float) -> tuple[Request, Position]:
        """The request for a snapshot, and the position that the snapshot will have."""
        return self._request({"want_snapshot": np.array([True])}, now_s), self.position

    def leave(self, now_s: float) -> Request | None:
        """From now on nothing counts. If the session is open on the server, the END request that
        frees its place there, which cancelling alone does not: what is under way may be done by
        the time that the server hears of it."""
        end = None
        if self.started and not (self._ending or self._cancelled or self._broken):
            self._refused.clear()
            end = self.finish(now_s)
        self._cancelled = True
        self._in_flight.clear()
        self._frames.clear()
        return end

    def _request(
        self,
        tensors: dict[str, np.ndarray],
        now_s: float,
        *,
        start: bool = False,
        end: bool = False,
        timeout_s: float | None = None,
    ) -> Request:
        self.require_open()
        request = Request(str(self._requests), self.session_id, tensors, start, end, timeout_s)
        self._requests += 1
        self._in_flight[request.id] = now_s
        return request

    # Receiving

    def accept(self, response: Response, now_s: float) -> None:
        """Enter a response into the books."""
        if self._cancelled:
            return
        self._progress_s = now_s
        sent_s = self._in_flight.get(response.request_id, now_s)
        if response.final:
            self._in_flight.pop(response.request_id, None)
        if response.error is not None:
            self._refuse(response.error, first=response.request_id == "0")
        if "images" in response.tensors:
            self._accept_frames(response, sent_s, now_s)
        if "snapshot" in response.tensors:
            self._snapshots[response.request_id] = response.tensors["snapshot"]

    def end_of_stream(self, error: VisavisError | None) -> None:
        """Enter that the connection is closed."""
        if self.complete or self._broken is not None:
            return
        self._broken = error or StreamBroken(
            f"session {self.session_id}: the server closed the stream with {len(self._in_flight)} "
            "requests unanswered; resume from the newest snapshot, or start again"
        )

    def expire(self) -> None:
        """Enter that the server is late."""
        limit = self._timeouts.frame_s if self.timings else self._timeouts.start_s
        self._broken = DeadlineExceeded(
            f"session {self.session_id}: got nothing for {limit:g} s after frame "
            f"{self._next_frame or 0}, expected a block; the stream was cancelled. Resume from the "
            "newest snapshot, or allow the server more time (start_timeout_s, frame_timeout_s)"
        )

    def _refuse(self, error: ServerError, *, first: bool) -> None:
        if first:  # a session that did not start cannot go on
            self._broken = error
        else:
            self._refused.append(error)

    def _accept_frames(self, response: Response, sent_s: float, now_s: float) -> None:
        images = response.tensors["images"]
        first = int(response.tensors["first_frame"].reshape(-1)[0])
        if self._next_frame not in (None, first):
            self._broken = StreamBroken(
                f"session {self.session_id}: got frame {first}, expected {self._next_frame}; "
                "frames were lost on the way. Resume from the newest snapshot"
            )
            return
        self._next_frame = first + len(images)
        latency_s = now_s - sent_s
        arrived_s = now_s - (self._started_s or 0.0)
        self.timings.append(BlockTiming(first, len(images), latency_s, arrived_s))
        self._frames.extend(
            _EncodedFrame(content, first + i, latency_s) for i, content in enumerate(images)
        )

    # Handing over

    def take_frame(self) -> _EncodedFrame:
        """The oldest frame that nobody has taken; it is decoded by `decode`, off the lock."""
        return self._frames.popleft()

    def decode(self, encoded: _EncodedFrame) -> Frame:
        """The frame's pixels, from JPEG or raw bytes."""
        size = self.server.image_size
        try:
            if self._opening.image_format == "jpeg":
                image = simplejpeg.decode_jpeg(encoded.content, colorspace="RGB")
            else:
                image = np.frombuffer(encoded.content, np.uint8).reshape(size, size, 3)
        except ValueError as error:
            raise StreamBroken(
                f"frame {encoded.index}: got {len(encoded.content)} bytes that are no "
                f"{self._opening.image_format} picture ({error}); resume from the newest snapshot"
            ) from error
        return Frame(image, encoded.index, encoded.latency_s)

    def take_snapshot(self, request_id: str, position: Position) -> bytes:
        """The snapshot that `request_id` asked for, with what the client must know to go on."""
        self.raise_failure()
        if request_id not in self._snapshots:
            raise SessionEnded("session: it was cancelled before the snapshot came; open another")
        head = {"image_format": self._opening.image_format, "position": asdict(position)}
        text = json.dumps(head).encode()
        state = self._snapshots.pop(request_id).tobytes()
        return _SNAPSHOT.pack(_SNAPSHOT_MAGIC, len(text)) + text + state


def enrolment(
    portrait: Portrait,
    options: SessionOptions,
    server: ServerInfo,
    *,
    user_audio: bool | None = None,
    user_video: bool | None = None,
) -> Opening:
    """A session that starts from a portrait."""
    tensors = {
        "portrait": portrait.image,
        "region_centers": portrait.region_centers.astype(np.float32),
    }
    return Opening(
        _wire.checked(tensors, server), options.image_format, options, user_audio, user_video
    )


def resumption(snapshot: bytes) -> Opening:
    """A session that starts from a snapshot; InputError when it is none or is cut short."""
    try:
        magic, length = _SNAPSHOT.unpack_from(snapshot)
        head = json.loads(snapshot[_SNAPSHOT.size : _SNAPSHOT.size + length])
        position = Position(**head["position"])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise _not_a_snapshot(snapshot) from error
    state = np.frombuffer(snapshot, np.uint8, offset=_SNAPSHOT.size + length)
    if magic != _SNAPSHOT_MAGIC or not len(state):
        raise _not_a_snapshot(snapshot)
    return Opening({"snapshot": state}, head["image_format"], None, position=position)


def _not_a_snapshot(snapshot: bytes) -> InputError:
    return InputError(
        f"snapshot: got {len(snapshot)} bytes that start with {snapshot[:8]!r}, expected what "
        "Session.snapshot() returned; store and read it as bytes, whole"
    )


def _options_tensor(
    options: SessionOptions, tracks: dict[str, bool], server: ServerInfo
) -> np.ndarray:
    chosen = {key: value for key, value in asdict(options).items() if value is not None}
    expects = {"image_size": server.image_size}
    return _json_tensor({**chosen, **tracks, "expects": expects})


def _chunk_tensors(chunk: Chunk) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    if chunk.avatar_audio is not None:
        tensors["avatar_audio"] = _wire.waveform("avatar_audio", chunk.avatar_audio)
    if chunk.user_audio is not None:
        tensors["user_audio"] = _wire.waveform("user_audio", chunk.user_audio)
    if chunk.user_video is not None:
        tensors["user_video"] = np.asarray(chunk.user_video)
    if chunk.turns:
        tensors["transcript"] = _json_tensor([asdict(turn) for turn in chunk.turns])
    return {name: array for name, array in tensors.items() if len(array)}


def _json_tensor(value: object) -> np.ndarray:
    return np.array([json.dumps(value).encode()], np.object_)
