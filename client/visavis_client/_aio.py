"""This is where the asyncio client is: `Client`, awaited. Only the waiting differs.

    async with AsyncClient("localhost:8001") as client:
        async with await client.session(portrait="ada.png", seed=7) as session:
            async for frame in session.stream(conversation):
                await show(frame.image, frame.pts_s)

Pictures are found and video is read in a thread, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
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
from visavis_client._grpc import GrpcAioTransport
from visavis_client._outage import Patience
from visavis_client._transport import AsyncTransport, Line, Ring, ring
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


class AsyncClient:
    """A connection to a visavis server, for asyncio; see `Client` for the arguments.

    It must be made inside the event loop.
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
        transport: AsyncTransport | Sequence[AsyncTransport] | None = None,
    ) -> None:
        connect = partial(GrpcAioTransport, timeout_s=connect_timeout_s, credentials=credentials)
        self._servers: Ring[AsyncTransport] = ring(transport, url, connect)
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, and with them every session."""
        for transport in self._servers.ways:
            await transport.close()

    async def server(self) -> ServerInfo:
        """What the first server serves that answers; it is asked once."""
        if self._server is None:
            self._server = await self._describe()
        return self._server

    async def statistics(self) -> dict[str, ModelStatistics]:
        """What each of the server's models has done since the server started, by name."""
        return await self._servers.now.statistics()

    async def session(
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
    ) -> AsyncSession:
        """A new conversation; see `Client.session`."""
        options = SessionOptions(
            seed=seed,
            num_steps=num_steps,
            audio_guidance_scale=audio_guidance_scale,
            user_guidance_scale=user_guidance_scale,
            image_format=image_format,
            jpeg_quality=jpeg_quality,
            h264_crf=h264_crf,
        )
        server = await self.server()
        aligned = await asyncio.to_thread(
            as_portrait, portrait, server.image_size, face_index=face_index
        )
        return await self._open(
            enrolment(aligned, options, server, user_audio=user_audio, user_video=user_video)
        )

    async def resume(self, snapshot: bytes) -> AsyncSession:
        """The session of `AsyncSession.snapshot`, going on bit for bit; see `Client.resume`."""
        return await self._open(resumption(snapshot))

    async def _open(self, opening: Opening) -> AsyncSession:
        exchange = self._exchange(await self.server(), opening)
        return AsyncSession(self._servers.copy(), exchange)

    async def _describe(self) -> ServerInfo:
        for _ in self._servers.ways[1:]:
            with suppress(ServerUnavailable, DeadlineExceeded):
                return await self._servers.now.describe()
            self._servers.turn()
        return await self._servers.now.describe()


class AsyncSession:
    """One conversation, for asyncio; see `Session`. Any number of tasks may use it."""

    def __init__(self, servers: Ring[AsyncTransport], exchange: Exchange) -> None:
        self._exchange = exchange
        self._changed = asyncio.Event()
        self._left = asyncio.Event()
        self._left.set()  # nothing to leave so far
        self._line = Line(servers, self._on_response, self._on_end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the session, and wait a little for the server to free its place."""
        self.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), CLOSE_TIMEOUT_S)

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

    async def stream(
        self, conversation: Conversation | Iterable[Chunk]
    ) -> AsyncGenerator[Frame, None]:
        """Send a conversation as it would happen, and yield the avatar's frames in order; see
        `Session.stream`. Use `contextlib.aclosing` when the loop may be left early."""
        self._exchange.require_open()
        try:
            chunks = chunks_of(conversation, self._exchange.server, self.position)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                async for frame in self._frames_until(lambda: self._exchange.has_room):
                    yield frame
                await self._send(chunk)
            async for frame in self._frames_until(lambda: self._exchange.has_room):
                yield frame
            await self.finish()
            async for frame in self.frames():
                yield frame
        except SessionEnded:  # cancelled between two frames, which is no error
            if not self._exchange.cancelled:
                raise
        finally:
            if not self._exchange.complete:
                self.cancel()

    async def send(
        self,
        *,
        avatar_audio: np.ndarray | None = None,
        user_audio: np.ndarray | None = None,
        user_video: np.ndarray | None = None,
        turns: Iterable[Turn] = (),
    ) -> None:
        """Send what has happened since the last call; see `Session.send`."""
        await self._send(Chunk(avatar_audio, user_audio, user_video, tuple(turns)))

    async def finish(self) -> None:
        """The avatar's audio ends here; the frames that are still due will come."""
        self._start(False, False)
        await self._wait(lambda: self._exchange.has_room)
        self._dispatch(self._exchange.finish(perf_counter()))

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield frames as they come, until the session is finished or cancelled."""
        while True:
            await self._wait(lambda: self._exchange.has_frame or self._exchange.complete)
            if not self._exchange.has_frame:
                self._exchange.raise_failure()
                return
            yield self._exchange.take_frame()

    def ready(self) -> Iterator[Frame]:
        """Yield the frames that have come, without waiting."""
        while self._exchange.has_frame:
            yield self._exchange.take_frame()

    async def snapshot(self) -> bytes:
        """The session as bytes, after all that was sent; see `Session.snapshot`."""
        self._start(False, False)
        while True:
            await self._wait(lambda: self._exchange.has_room)
            request, position = self._exchange.ask_snapshot(perf_counter())
            self._dispatch(request)
            await self._wait(lambda request=request: self._exchange.answered(request.id))
            if not self._exchange.was_lost(request.id):
                return self._exchange.take_snapshot(request.id, position)

    def cancel(self) -> None:
        """Drop the session at once (barge-in): the server stops, and frames not read are gone."""
        end = self._exchange.leave(perf_counter())
        self._changed.set()
        self._line.cancel()
        if end is not None:
            self._say_farewell(end)

    def _start(self, user_audio: bool, user_video: bool) -> None:
        if not self._exchange.started:
            self._dispatch(
                self._exchange.open(
                    user_audio=user_audio, user_video=user_video, now_s=perf_counter()
                )
            )

    async def _send(self, chunk: Chunk) -> None:
        self._start(chunk.user_audio is not None, chunk.user_video is not None)
        await self._wait(lambda: self._exchange.has_room)
        self._dispatch(self._exchange.chunk(chunk, perf_counter()))

    def _dispatch(self, request: Request | None) -> None:
        if request is not None:
            self._line.send(request)

    async def _frames_until(self, ready: Callable[[], bool]) -> AsyncGenerator[Frame, None]:
        while not ready():
            await self._wait(lambda: ready() or self._exchange.has_frame)
            for frame in self.ready():
                yield frame
        for frame in self.ready():
            yield frame

    async def _wait(self, ready: Callable[[], bool]) -> None:
        """Until `ready()`, on another server if need be; raises what went wrong for good."""
        while not ready():
            self._exchange.raise_failure()
            due_s = self._exchange.due_s(perf_counter())
            if due_s is None or due_s > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), due_s)
            elif self._exchange.lost:
                self._line.move()
                self._line.send(self._exchange.reopen(perf_counter()))
            else:
                self._exchange.expire(perf_counter())
                self._line.cancel()

    def _on_response(self, response: Response) -> None:
        self._exchange.accept(response, perf_counter())
        self._changed.set()

    def _on_end(self, stream: int, error: VisavisError | None) -> None:
        if self._line.is_current(stream):  # an earlier one was left already
            self._exchange.end_of_stream(error, perf_counter())
        self._changed.set()

    def _say_farewell(self, end: Request) -> None:
        with suppress(SessionEnded):  # the client is closed already, and the server knows
            farewell = self._line.servers.now.open_stream(self._on_left, self._on_left)
            self._left.clear()
            farewell.send(end)
            farewell.finish()

    def _on_left(self, _: object) -> None:
        self._left.set()
