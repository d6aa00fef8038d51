"""This is where the blocking client is.

    with Client("localhost:8001") as client:
        with client.session(portrait="ada.png", seed=7) as session:
            for frame in session.stream(conversation):
                show(frame.image, frame.pts_s)

A session may be used from two threads at once: one that calls `send`, one that reads `frames`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import grpc
import numpy as np

from visavis_client._errors import (
    DeadlineExceeded,
    ServerUnavailable,
    SessionEnded,
    VisavisError,
)
from visavis_client._exchange import (
    CLOSE_TIMEOUT_S,
    Exchange,
    Inject,
    Opening,
    enrolment,
    no_trace,
    resumption,
)
from visavis_client._grpc import GrpcTransport
from visavis_client._outage import Patience
from visavis_client._transport import Line, Ring, Transport, ring
from visavis_client._types import (
    BlockTiming,
    Chunk,
    Frame,
    ImageFormat,
    ModelStatistics,
    Portrait,
    Position,
    ServerInfo,
    SessionOptions,
    Turn,
)
from visavis_client._wire import Request, Response
from visavis_client.conversation import Conversation, chunks_of
from visavis_client.face import as_portrait


class Client:
    """A connection to a visavis server, or to several; it holds any number of sessions.

    url: "host:port" of Triton's gRPC endpoint, or several. A session begins on the first one that
    has a place; if it loses its server it goes on by itself, on the next one or on the same once
    that is back, and no frame is lost or comes twice.

    connect_timeout_s: how long to wait for the server's description. start_timeout_s: how long a
    session waits for its first frame, a free place on the server included. frame_timeout_s: how
    long it waits between two blocks of frames that are due. resume_timeout_s: how long it looks for
    a server after it lost one; 0 raises at once. snapshot_interval_s: how much of the conversation
    is kept to be sent again, at most. credentials: turn TLS on (`grpc.ssl_channel_credentials`).
    trace: writes into a dict the headers of the trace that is current where a message is sent, as
    `opentelemetry.propagate.inject` does; what the server does for the message then belongs to it.
    compress_user_video: the user's faces travel as JPEGs of quality 90, a fifteenth of the bytes;
    False sends them as they are.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        connect_timeout_s: float = 5.0,
        start_timeout_s: float = 30.0,
        frame_timeout_s: float = 5.0,
        resume_timeout_s: float = 30.0,
        snapshot_interval_s: float = 2.0,
        credentials: grpc.ChannelCredentials | None = None,
        trace: Inject = no_trace,
        compress_user_video: bool = True,
        transport: Transport | Sequence[Transport] | None = None,
    ) -> None:
        connect = partial(GrpcTransport, timeout_s=connect_timeout_s, credentials=credentials)
        self._servers: Ring[Transport] = ring(transport, url, connect)
        self._exchange = partial(
            Exchange,
            patience=Patience(
                start_timeout_s, frame_timeout_s, resume_timeout_s, snapshot_interval_s
            ),
            servers=len(self._servers.ways),
            trace=trace,
            compress_user_video=compress_user_video,
        )
        self._server: ServerInfo | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, and with them every session."""
        for transport in self._servers.ways:
            transport.close()

    @property
    def server(self) -> ServerInfo:
        """What the first server serves that answers; it is asked once."""
        if self._server is None:
            self._server = self._describe()
        return self._server

    def statistics(self) -> dict[str, ModelStatistics]:
        """What each of the server's models has done since the server started, by name."""
        return self._servers.now.statistics()

    def session(
        self,
        *,
        portrait: str | Path | np.ndarray | Portrait,
        face_index: int | None = None,
        seed: int = 0,
        num_steps: int | None = None,
        audio_guidance_scale: float | None = None,
        user_guidance_scale: float | None = None,
        image_format: ImageFormat = "jpeg",
        jpeg_quality: int | None = None,
        h264_crf: int | None = None,
        user_audio: bool | None = None,
        user_video: bool | None = None,
    ) -> Session:
        """A new conversation with the avatar of `portrait`: a file, an (H, W, 3) uint8 picture, or
        an aligned `Portrait`; `face_index` chooses among several faces.

        user_audio, user_video: whether these tracks will come. The server waits for what will come;
        None is for what the conversation, or the first chunk, has. PortraitError when there is no
        usable face.
        """
        options = SessionOptions(
            seed=seed,
            num_steps=num_steps,
            audio_guidance_scale=audio_guidance_scale,
            user_guidance_scale=user_guidance_scale,
            image_format=image_format,
            jpeg_quality=jpeg_quality,
            h264_crf=h264_crf,
        )
        aligned = as_portrait(portrait, self.server.image_size, face_index=face_index)
        return self._open(
            enrolment(aligned, options, self.server, user_audio=user_audio, user_video=user_video)
        )

    def resume(self, snapshot: bytes) -> Session:
        """The session of `Session.snapshot`, going on bit for bit, on this or another server."""
        return self._open(resumption(snapshot))

    def _open(self, opening: Opening) -> Session:
        exchange = self._exchange(self.server, opening)
        return Session(self._servers.copy(), exchange)

    def _describe(self) -> ServerInfo:
        for _ in self._servers.ways[1:]:
            with suppress(ServerUnavailable, DeadlineExceeded):
                return self._servers.now.describe()
            self._servers.turn()
        return self._servers.now.describe()


class Session:
    """One conversation. `Client.session` and `Client.resume` make it."""

    def __init__(self, servers: Ring[Transport], exchange: Exchange) -> None:
        self._exchange = exchange
        self._changed = threading.Condition()
        self._left = threading.Event()
        self._left.set()  # nothing to leave so far
        with self._changed:  # a server that is down may say so before the line has its name
            self._line = Line(servers, self._on_response, self._on_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the session, and wait a little for the server to free its place."""
        self.cancel()
        self._left.wait(CLOSE_TIMEOUT_S)

    @property
    def id(self) -> str:
        """The session's name on the server."""
        return self._exchange.session_id

    @property
    def position(self) -> Position:
        """How much has been sent."""
        return self._exchange.position

    @property
    def timings(self) -> tuple[BlockTiming, ...]:
        """When each block of frames came, of the last five hours."""
        return tuple(self._exchange.timings)

    def stream(self, conversation: Conversation | Iterable[Chunk]) -> Generator[Frame, None, None]:
        """Send a conversation as it would happen, and yield the avatar's frames in order.

        A resumed session goes on where it was. The session is finished at the end; closing the
        iterator before that cancels it, and so does any error.
        """
        self._exchange.require_open()
        try:
            for chunk in chunks_of(conversation, self._exchange.server, self.position):
                yield from self._frames_until(lambda: self._exchange.has_room)
                self._send(chunk)
            yield from self._frames_until(lambda: self._exchange.has_room)
            self.finish()
            yield from self.frames()
        except SessionEnded:  # cancelled between two frames, which is no error
            if not self._exchange.cancelled:
                raise
        finally:
            if not self._exchange.complete:
                self.cancel()

    def send(
        self,
        *,
        avatar_audio: np.ndarray | None = None,
        user_audio: np.ndarray | None = None,
        user_video: np.ndarray | None = None,
        turns: Iterable[Turn] = (),
    ) -> None:
        """Send what has happened since the last call, any amount of each.

        avatar_audio, user_audio: (n,) float32. user_video: (n, S, S, 3) uint8, aligned by
        `visavis_client.face.FaceTrack`. Waits while two requests are in flight. InputError when
        something does not fit the server's contract; none of it is sent then.
        """
        self._send(Chunk(avatar_audio, user_audio, user_video, tuple(turns)))

    def finish(self) -> None:
        """The avatar's audio ends here; the frames that are still due will come."""
        self._start(False, False)
        self._dispatch(self._exchange.finish)

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they come, until the session is finished or cancelled.

        While nothing has been sent that is due, it waits without a timeout.
        """
        while True:
            self._wait(lambda: self._exchange.has_frame or self._exchange.complete)
            if not self._exchange.has_frame:
                return self._exchange.raise_failure()
            yield self._take_frame()

    def ready(self) -> Iterator[Frame]:
        """Yield the frames that have come, without waiting."""
        while self._exchange.has_frame:
            yield self._take_frame()

    def snapshot(self) -> bytes:
        """The session as bytes, after all that was sent; give them to `Client.resume`.

        Frames of blocks before it still come from this session.
        """
        self._start(False, False)
        while True:
            with self._changed:
                self._wait(lambda: self._exchange.has_room)
                request, position = self._exchange.ask_snapshot(perf_counter())
                self._line.send(request)
                self._wait(lambda request=request: self._exchange.answered(request.id))
            if not self._exchange.was_lost(request.id):
                return self._exchange.take_snapshot(request.id, position)

    def cancel(self) -> None:
        """Drop the session at once (barge-in): the server stops, and frames not read are gone."""
        with self._changed:
            end = self._exchange.leave(perf_counter())
            self._changed.notify_all()
        self._line.cancel()
        if end is not None:
            self._say_farewell(end)

    def _start(self, user_audio: bool, user_video: bool) -> None:
        with self._changed:
            if not self._exchange.started:
                self._line.send(
                    self._exchange.open(
                        user_audio=user_audio, user_video=user_video, now_s=perf_counter()
                    )
                )

    def _send(self, chunk: Chunk) -> None:
        self._start(chunk.user_audio is not None, chunk.user_video is not None)
        self._dispatch(lambda now_s: self._exchange.chunk(chunk, now_s))

    def _dispatch(self, make: Callable[[float], Request | None]) -> None:
        with self._changed:
            self._wait(lambda: self._exchange.has_room)
            if (request := make(perf_counter())) is not None:
                self._line.send(request)

    def _take_frame(self) -> Frame:
        with self._changed:
            return self._exchange.take_frame()

    def _frames_until(self, ready: Callable[[], bool]) -> Iterator[Frame]:
        while not ready():
            self._wait(lambda: ready() or self._exchange.has_frame)
            yield from self.ready()
        yield from self.ready()

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Until `ready()`, on another server if need be; raises what went wrong for good."""
        with self._changed:
            while not ready():
                self._exchange.raise_failure()
                due_s = self._exchange.due_s(perf_counter())
                if due_s is None or due_s > 0:
                    self._changed.wait(due_s)
                elif self._exchange.lost:
                    self._line.move()
                    self._line.send(self._exchange.reopen(perf_counter()))
                else:
                    self._exchange.expire(perf_counter())
                    self._line.cancel()

    def _on_response(self, response: Response) -> None:
        with self._changed:
            self._exchange.accept(response, perf_counter())
            self._changed.notify_all()

    def _on_end(self, stream: int, error: VisavisError | None) -> None:
        with self._changed:
            if self._line.is_current(stream):  # an earlier one was left already
                self._exchange.end_of_stream(error, perf_counter())
            self._changed.notify_all()

    def _say_farewell(self, end: Request) -> None:
        with suppress(SessionEnded):  # the client is closed already, and the server knows
            farewell = self._line.servers.now.open_stream(self._on_left, self._on_left)
            self._left.clear()
            farewell.send(end)
            farewell.finish()

    def _on_left(self, _: object) -> None:
        self._left.set()
