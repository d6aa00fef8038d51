"""This is where one session keeps its books: what was sent, what came, what is due.

An `Exchange` does no I/O, takes no locks and reads no clock: the sync and the async session drive
it, and differ only in how they wait. Time is passed in, in seconds of any monotonic clock.

A server may be lost at any moment, and with it what it knew. So there is a `Journal`, which is
short as a snapshot comes every few seconds, and `reopen` gives the one request that tells all of
it to a server; frames that came before come again, and are dropped.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import simplejpeg

from visavis.config import FRAME_RATE_HZ
from visavis_client import _wire
from visavis_client._errors import (
    DeadlineExceeded,
    InputError,
    ServerError,
    SessionEnded,
    StreamBroken,
    VisavisError,
)
from visavis_client._h264 import Packets, is_key_frame
from visavis_client._journal import Journal
from visavis_client._outage import Outage, Patience, next_try
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
USER_JPEG_QUALITY = 90
KEPT_TIMINGS = 90_000  # five hours of blocks: a session may last for days
WANT_SNAPSHOT = {"want_snapshot": np.array([True])}
DISCARD = {"discard": np.array([True])}

Inject = Callable[[dict[str, str]], object]

_Tensors = dict[str, np.ndarray]
_SNAPSHOT = struct.Struct("<8sI")  # magic, length of the JSON head; the server's state follows
_SNAPSHOT_MAGIC = b"VSVSNAP1"


def no_trace(headers: dict[str, str]) -> None:
    """What sends no trace along."""


@dataclass(frozen=True)
class Opening:
    """What a session starts from: a portrait and options, or a snapshot."""

    tensors: dict[str, np.ndarray]
    image_format: ImageFormat
    options: SessionOptions | None  # None: they are in the snapshot
    user_audio: bool | None = None  # None: as the first chunk has it
    user_video: bool | None = None
    position: Position = field(default_factory=Position)


class Exchange:
    """The books of one session. `servers`: how many there are to try. The rest: see `Client`."""

    def __init__(
        self,
        server: ServerInfo,
        opening: Opening,
        patience: Patience,
        servers: int = 1,
        trace: Inject = no_trace,
        compress_user_video: bool = False,
    ) -> None:
        self.server = server
        self.session_id = str(uuid.uuid4())  # unguessable: on the server, the id is the key
        self.position = opening.position
        self.timings: deque[BlockTiming] = deque(maxlen=KEPT_TIMINGS)
        self._opening = opening
        self._patience = patience
        self._servers = servers
        self._trace = trace
        self._compress = compress_user_video and "user_images" in server.inputs
        self._journal = Journal()
        self._start_id = ""
        self._outage: Outage | None = None
        self._established = False  # a server has answered
        self._kept_frames = 0  # of the avatar, when the journal's newest snapshot was asked for
        self._asked: set[str] = set()  # requests for a snapshot that are the caller's
        self._in_flight: dict[str, float] = {}  # request id -> when it was sent
        self._requests = 0
        self._frames: deque[Frame] = deque()
        self._packets: Packets | None = None
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
        return len(self._in_flight) < MAX_IN_FLIGHT and not self.lost

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
        return self._cancelled or (self._ending and not self._in_flight and not self.lost)

    def answered(self, request_id: str) -> bool:
        """Whether all that will come for a request has come."""
        return request_id not in self._in_flight

    def was_lost(self, request_id: str) -> bool:
        """Whether a request for a snapshot went with its server, and must be made again."""
        return not self._cancelled and not self._broken and request_id not in self._snapshots

    def due_s(self, now_s: float) -> float | None:
        """Seconds until something is to be done: `reopen` on another stream if the server is lost,
        and else `expire`, as it is late. None while nothing is."""
        if self.lost and self._outage is not None:
            return self._outage.retry_s - now_s
        if not self._in_flight:
            return None
        owed_since = max(self._progress_s, min(self._in_flight.values()))
        return owed_since + self._limit_s - now_s

    @property
    def lost(self) -> bool:
        """Whether there is no server, and another is to be tried."""
        return self._outage is not None and not self._in_flight

    @property
    def _limit_s(self) -> float:
        return self._patience.frame_s if self.timings else self._patience.start_s

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
        return self._starting(tensors, now_s)

    def reopen(self, now_s: float) -> Request:
        """The START request that tells a server in place of a lost one all that it must know."""
        self._kept_frames = 0  # the next chunk brings a snapshot
        tensors = self._journal.whole()
        if self._next_frame:
            options = json.loads(tensors["options"][0]) if "options" in tensors else {}
            tensors["options"] = _json_tensor({**options, "first_frame": self._next_frame})
        return self._starting(tensors, now_s, end=self._ending)

    def chunk(self, chunk: Chunk, now_s: float) -> Request | None:
        """The request for one chunk; None when there is nothing in it."""
        tensors = _wire.checked(_chunk_tensors(chunk), self.server)
        if not tensors:
            return None
        if self._compress:
            tensors = _compressed(tensors)
        position = self.position.after(chunk)
        due_s = (position.avatar_frames - self._kept_frames) / FRAME_RATE_HZ
        if self._patience.resume_s > 0 and due_s >= self._patience.snapshot_s:
            tensors |= WANT_SNAPSHOT
            self._kept_frames = position.avatar_frames
        request = self._request(tensors, now_s)
        self.position = position
        return request

    def finish(self, now_s: float) -> Request:
        """The END request: the avatar's audio ends here."""
        request = self._request({}, now_s, end=True)
        self._ending = True
        return request

    def ask_snapshot(self, now_s: float) -> tuple[Request, Position]:
        """The request for a snapshot, and the position that the snapshot will have."""
        request = self._request(WANT_SNAPSHOT, now_s)
        self._asked.add(request.id)
        return request, self.position

    def leave(self, now_s: float) -> Request | None:
        """From now on nothing counts. If the session is open on the server, the END request that
        frees its place there, which cancelling alone does not: what is under way may be done by
        the time that the server hears of it. It says, too, that what waits is not to be made."""
        end = None
        if self.started and not (self._ending or self._cancelled or self._broken or self.lost):
            self._refused.clear()
            end = self._request(DISCARD if "discard" in self.server.inputs else {}, now_s, end=True)
            self._ending = True
        self._cancelled = True
        self._in_flight.clear()
        self._frames.clear()
        return end

    def _starting(self, tensors: _Tensors, now_s: float, *, end: bool = False) -> Request:
        self._journal = Journal()
        request = self._request(
            tensors, now_s, start=True, end=end, timeout_s=self._patience.start_s
        )
        self._start_id = request.id
        return request

    def _request(self, tensors: _Tensors, now_s: float, **flags: Any) -> Request:
        if not flags.get("start"):
            self.require_open()
        headers: dict[str, str] = {}
        self._trace(headers)
        request = Request(str(self._requests), self.session_id, tensors, trace=headers, **flags)
        self._requests += 1
        self._in_flight[request.id] = now_s
        if self._patience.resume_s > 0 or not self._established:
            self._journal.note(request)
        return request

    # Receiving

    def accept(self, response: Response, now_s: float) -> None:
        """Enter a response into the books."""
        if self._cancelled or response.request_id not in self._in_flight:
            return  # of a session, or a server, that was left
        self._progress_s = now_s
        sent_s = self._in_flight[response.request_id]
        if response.error is not None:
            self._refuse(response.request_id, response.error, now_s)
            return
        self._established, self._outage = True, None
        oldest = next(iter(self._in_flight))
        if response.final:
            del self._in_flight[response.request_id]
        if "images" in response.tensors:
            self._accept_frames(response, sent_s, now_s)
        if "snapshot" in response.tensors:
            snapshot = response.tensors["snapshot"]
            if response.request_id == oldest:  # else it may lack what is not answered yet
                self._journal.begin_with(snapshot, response.request_id)
            if response.request_id in self._asked:
                self._snapshots[response.request_id] = snapshot

    def end_of_stream(self, error: VisavisError | None, now_s: float) -> None:
        """Enter that the connection is closed."""
        if self.complete or self._broken is not None or self.lost:
            return
        self._lose(
            error
            or StreamBroken(
                f"session {self.session_id}: the server closed the stream with "
                f"{len(self._in_flight)} requests unanswered; resume from the newest snapshot, or "
                "start again"
            ),
            now_s,
        )

    def expire(self, now_s: float) -> None:
        """Enter that the server is late."""
        self._lose(
            DeadlineExceeded(
                f"session {self.session_id}: got nothing for {self._limit_s:g} s after frame "
                f"{self._next_frame or 0}, expected a block; the stream was cancelled. Resume from "
                "the newest snapshot, or allow the server more time (start_timeout_s, "
                "frame_timeout_s)"
            ),
            now_s,
        )

    def _lose(self, error: VisavisError, now_s: float) -> None:
        """The server is lost; see whether there may be another."""
        self._in_flight.clear()
        self._outage = next_try(
            self._outage,
            error,
            now_s,
            self._patience,
            self._servers,
            established=self._established,
        )
        if self._outage is None:
            self._broken = error

    def _refuse(self, request_id: str, error: ServerError, now_s: float) -> None:
        if error.may_pass:
            self._lose(error, now_s)
        elif request_id == self._start_id:  # a session that did not start cannot go on
            self._broken = error
        else:
            del self._in_flight[request_id]
            self._journal.forget(request_id)
            self._refused.append(error)

    def _accept_frames(self, response: Response, sent_s: float, now_s: float) -> None:
        images = response.tensors["images"]
        first = int(response.tensors["first_frame"].reshape(-1)[0])
        expected = first if self._next_frame is None else self._next_frame
        if first > expected:
            lost = StreamBroken(
                f"session {self.session_id}: got frame {first}, expected {expected}; frames were "
                "lost on the way. Resume from the newest snapshot"
            )
            return self._lose(lost, now_s)
        fresh = images[expected - first :]  # another server makes some again
        if not len(fresh):
            return
        self._next_frame = expected + len(fresh)
        latency_s = now_s - sent_s
        arrived_s = now_s - (self._started_s or 0.0)
        self.timings.append(BlockTiming(expected, len(fresh), latency_s, arrived_s))
        form, size = self._opening.image_format, self.server.image_size
        self._frames.extend(
            Frame(content, index, latency_s, form, size, self._packets_with(content, index))
            for index, content in enumerate(fresh, expected)
        )

    def _packets_with(self, content: bytes, index: int) -> Packets | None:
        """The packets that a frame is decoded with; None of a picture that stands for itself."""
        if self._opening.image_format != "h264":
            return None
        if self._packets is None or is_key_frame(content):
            self._packets = Packets(index)
        self._packets.append(content)
        return self._packets

    # Handing over

    def take_frame(self) -> Frame:
        """The oldest frame that nobody has taken."""
        return self._frames.popleft()

    def take_snapshot(self, request_id: str, position: Position) -> bytes:
        """The snapshot that `request_id` asked for, with what the client must know to go on."""
        self._asked.discard(request_id)
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


def _compressed(tensors: _Tensors) -> _Tensors:
    """The tensors of a chunk with the user's pictures as JPEGs, if there are any."""
    if "user_video" not in tensors:
        return tensors
    pictures = map(np.ascontiguousarray, tensors["user_video"])
    images = [simplejpeg.encode_jpeg(picture, quality=USER_JPEG_QUALITY) for picture in pictures]
    others = {name: array for name, array in tensors.items() if name != "user_video"}
    return {**others, "user_images": np.array(images, np.object_)}


def _json_tensor(value: object) -> np.ndarray:
    return np.array([json.dumps(value).encode()], np.object_)
