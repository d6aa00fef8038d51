"""This is where the way to a server is described, in four methods, and where a pretended one is.

A `Transport` carries `Request`s and `Response`s; the gRPC ones are in `_grpc`. `FakeTransport` and
`AsyncFakeTransport` are for your own tests: no server, no network.

    client = Client(transport=FakeTransport(image_size=64))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import simplejpeg

from visavis.config import SAMPLES_PER_FRAME, EchoConfig
from visavis.contract import contracts
from visavis_client._errors import InputError, ServerError, VisavisError
from visavis_client._types import ModelStatistics, ServerInfo
from visavis_client._wire import Request, Response

OnResponse = Callable[[Response], None]
OnEnd = Callable[[VisavisError | None], None]
Answer = Callable[[Request], list[Response]]


class Stream(Protocol):
    """One open stream. Its methods do not wait."""

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        ...

    def finish(self) -> None:
        """Send nothing more; what is on its way goes on."""
        ...

    def cancel(self) -> None:
        """Drop the stream and every request on it; the server stops working on them."""
        ...


class Transport(Protocol):
    """A way to a server. Its methods raise `ServerError`s."""

    def describe(self) -> ServerInfo:
        """What the server serves."""
        ...

    def statistics(self) -> dict[str, ModelStatistics]:
        """What each model has done so far."""
        ...

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> Stream:
        """A new stream. The callbacks may come from another thread, one at a time; `on_end` last,
        with None when the server closed the stream in good order."""
        ...

    def close(self) -> None:
        """Close every stream and the connection."""
        ...


class AsyncTransport(Protocol):
    """The same for asyncio. The callbacks come in the event loop."""

    async def describe(self) -> ServerInfo: ...

    async def statistics(self) -> dict[str, ModelStatistics]: ...

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> Stream: ...

    async def close(self) -> None: ...


T = TypeVar("T")


class Ring(Generic[T]):
    """Ways to several servers, of which one is in use. A session goes round its own copy."""

    def __init__(self, ways: Sequence[T], first: int = 0) -> None:
        self.ways = tuple(ways)
        self._place = first

    @property
    def now(self) -> T:
        """The one that is in use."""
        return self.ways[self._place]

    def turn(self) -> T:
        """Use the next one."""
        self._place = (self._place + 1) % len(self.ways)
        return self.now

    def copy(self) -> Ring[T]:
        """One that begins where this one is."""
        return Ring(self.ways, self._place)


class Line:
    """A session's stream, on one server after the other.

    on_end: gets the stream's number before the error; one that was left may still speak, see
    `is_current`.
    """

    def __init__(
        self,
        servers: Ring[Transport] | Ring[AsyncTransport],
        on_response: OnResponse,
        on_end: Callable[[int, VisavisError | None], None],
    ) -> None:
        self.servers = servers
        self._on_response = on_response
        self._on_end = on_end
        self._number = 0
        self._open()

    def is_current(self, number: int) -> bool:
        """Whether that stream is the one in use."""
        return number == self._number

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        self._stream.send(request)

    def cancel(self) -> None:
        """Drop the stream and every request on it."""
        self._stream.cancel()

    def move(self) -> None:
        """Leave this server for the next one."""
        self._stream.cancel()
        self.servers.turn()
        self._open()

    def _open(self) -> None:
        self._number += 1
        on_end = partial(self._on_end, self._number)
        self._stream = self.servers.now.open_stream(self._on_response, on_end)


def ring(
    ways: T | Sequence[T] | None, url: str | Sequence[str], connect: Callable[[str], T]
) -> Ring[T]:
    """The ways that are given, one or several, or else one to each address; InputError when there
    is no address."""
    if ways is None:
        ways = [connect(one) for one in ([url] if isinstance(url, str) else url)]
        if not ways:
            raise InputError("server: got no address, expected one or more; see `Client`")
    return Ring(ways if isinstance(ways, Sequence) else [ways])


class FakeTransport:
    """A pretended server: every `block_frames` frames of avatar audio come back as one block.

    Frame i is grey, of brightness i % 256. `requests` keeps all that was sent. `answer` replaces
    the behaviour: it gets each request and returns the responses.
    """

    def __init__(
        self, *, image_size: int = 64, block_frames: int = 5, answer: Answer | None = None
    ) -> None:
        self.requests: list[Request] = []
        self.cancelled = False
        self._info = fake_server_info(image_size, block_frames)
        self._answer = answer or _FakeAvatar(image_size, block_frames)

    def describe(self) -> ServerInfo:
        """The pretended server's description."""
        return self._info

    def statistics(self) -> dict[str, ModelStatistics]:
        """No model has done anything."""
        return {}

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> Stream:
        """A stream that answers within `send`."""
        return _FakeStream(self, on_response)

    def respond(self, request: Request) -> list[Response]:
        """What the pretended server answers."""
        self.requests.append(request)
        try:
            return self._answer(request)
        except ServerError as error:
            return [Response(request.id, final=True, error=error)]

    def close(self) -> None:
        """Nothing to close."""


class AsyncFakeTransport:
    """`FakeTransport` for `AsyncClient`."""

    def __init__(self, fake: FakeTransport | None = None) -> None:
        self.fake = fake or FakeTransport()

    async def describe(self) -> ServerInfo:
        """The pretended server's description."""
        return self.fake.describe()

    async def statistics(self) -> dict[str, ModelStatistics]:
        """No model has done anything."""
        return self.fake.statistics()

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> Stream:
        """A stream that answers within `send`."""
        return self.fake.open_stream(on_response, on_end)

    async def close(self) -> None:
        """Nothing to close."""


def fake_server_info(image_size: int, block_frames: int) -> ServerInfo:
    """The description of a server of another size, from the contract."""
    session = contracts(EchoConfig(image_size=image_size))["echo_session"]
    return ServerInfo(image_size, block_frames, {spec.name: spec for spec in session.inputs})


class _FakeStream:
    def __init__(self, transport: FakeTransport, on_response: OnResponse) -> None:
        self._transport = transport
        self._on_response = on_response

    def send(self, request: Request) -> None:
        for response in self._transport.respond(request):
            self._on_response(response)

    def finish(self) -> None:
        pass

    def cancel(self) -> None:
        self._transport.cancelled = True


class _FakeAvatar:
    """Sessions that count: a frame for every 640 samples of the avatar's audio."""

    def __init__(self, image_size: int, block_frames: int) -> None:
        self._size = image_size
        self._block = block_frames
        self._samples: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def __call__(self, request: Request) -> list[Response]:
        session = request.sequence_id
        if request.start:
            snapshot = request.tensors.get("snapshot", np.zeros(16, np.uint8))
            before = np.frombuffer(snapshot.tobytes(), np.int64)
            self._samples[session], self._sent[session] = map(int, before)
        samples = self._samples[session] + len(request.tensors.get("avatar_audio", ()))
        sent = self._sent[session]
        frames = -(-samples // SAMPLES_PER_FRAME) if request.end else samples // SAMPLES_PER_FRAME
        responses = []
        while frames - sent >= self._block or (request.end and frames > sent):
            count = min(self._block, frames - sent)
            responses.append(Response(request.id, self._images(sent, count)))
            sent += count
        self._samples[session], self._sent[session] = samples, sent
        if "want_snapshot" in request.tensors:
            state = np.frombuffer(np.array([samples, sent], np.int64).tobytes(), np.uint8)
            responses.append(Response(request.id, {"snapshot": state}))
        return [*responses, Response(request.id, final=True)]

    def _images(self, first: int, count: int) -> dict[str, np.ndarray]:
        images = np.empty(count, np.object_)
        for i in range(count):
            grey = np.full((self._size, self._size, 3), (first + i) % 256, np.uint8)
            images[i] = simplejpeg.encode_jpeg(grey, quality=95)
        return {"images": images, "first_frame": np.array([first], np.int64)}
