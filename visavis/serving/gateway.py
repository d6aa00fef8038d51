"""This is where what one client may take is bounded, before Triton sees any of it.

    with served("0.0.0.0:8001", "127.0.0.1:9001", Limits()):
        ...  # clients call the former, tritonserver listens at the latter

Triton 2.51 receives a gRPC message of any size and carries it to a model's process while everybody
waits, and it keeps what a client does not read even when that client has gone; no flag bounds
either. The gateway stands before it where clients are not trusted. It hands on whatever is called,
as bytes that it does not look into, with metadata, deadline and end. A message that is too large is
refused by its length, before it is received; of what a client does not read so much is kept, and
then its call is ended. Its session can be resumed, as after any lost connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from anyio.from_thread import start_blocking_portal
from grpc.aio import AioRpcError, Channel, ServicerContext, StreamStreamCall, UnaryUnaryCall

from visavis.serving.tls import Trust

LOG = logging.getLogger(__name__)

MB = 10**6
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
GRACE_S = 1.0  # for calls that are open when the gateway ends
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    # Who has gone without a word, such as a machine that was switched off, is known to be gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Others could take the port as well, and get a part of the clients.
    ("grpc.so_reuseport", 0),
)
UPSTREAM_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GatewayError(RuntimeError):
    """The gateway cannot be opened."""


class UnreadError(RuntimeError):
    """A client does not read what it asked for."""


@dataclass(frozen=True)
class Limits:
    """What one client may take, in millions of bytes.

    message_mb: in one message. Two minutes of both voices and of the user's face as JPEGs, the most
        that a session takes ahead, are some 30.
    unread_mb: of what one call has answered, until it is read.
    """

    message_mb: float = 32.0
    unread_mb: float = 64.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value <= 2000:  # gRPC counts in 32 bits
                raise ValueError(
                    f"{name}: got {value}, expected more than 0 and at most 2000; "
                    "choose one between"
                )


class Unread:
    """What was answered and waits for the client, in order; more than `most_mb` is too much."""

    def __init__(self, most_mb: float) -> None:
        self.most_mb = most_mb
        self.answers: deque[bytes] = deque()
        self.size = 0
        self.ended = False
        self.changed = asyncio.Event()

    def put(self, answer: bytes) -> None:
        """UnreadError when it is too much; nothing is kept then."""
        self.size += len(answer)
        if self.size > self.most_mb * MB:
            size, self.size = self.size, 0
            self.answers.clear()
            raise UnreadError(
                f"gateway: got {size / MB:.0f} MB of answers that are not read, expected at most "
                f"{self.most_mb:g}; read them as they come, or ask for fewer at a time"
            )
        self.answers.append(answer)
        self.changed.set()

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True
        self.changed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Each counts until the next is asked for, when the client has taken it."""
        while True:
            while self.answers:
                answer = self.answers.popleft()
                yield answer
                self.size -= len(answer)
            if self.ended:
                return
            self.changed.clear()
            await self.changed.wait()


class Relay(grpc.GenericRpcHandler):
    """Hands every call on to `channel`. All but one of Triton's have one message each way."""

    def __init__(self, channel: Channel, limits: Limits) -> None:
        self.channel = channel
        self.limits = limits

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Any method."""
        method = handler_call_details.method
        # That these may be coroutines is known to grpc.aio alone.
        stream: Any = partial(self._stream, method)
        unary: Any = partial(self._unary, method)
        if method == STREAM:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _unary(self, method: str, request: bytes, context: ServicerContext) -> bytes | None:
        call = self.channel.unary_unary(method)(
            request, timeout=context.time_remaining(), metadata=_metadata(context)
        )
        answer = None
        with suppress(AioRpcError):  # which is told
            answer = await call
        await _end_like(call, context)
        return answer

    async def _stream(
        self, method: str, requests: AsyncIterator[bytes], context: ServicerContext
    ) -> None:
        call = self.channel.stream_stream(method)(
            timeout=context.time_remaining(), metadata=_metadata(context)
        )
        unread = Unread(self.limits.unread_mb)
        asking = asyncio.create_task(_ask(requests, call))
        telling = asyncio.create_task(_tell(unread, context))
        try:
            await _listen(call, unread)
            await telling
            await _end_like(call, context)
        except UnreadError as error:
            LOG.warning("a call by %s was ended: %s", context.peer(), error)
            call.cancel()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            for work in (call, asking, telling):
                work.cancel()
            await asyncio.gather(asking, telling, return_exceptions=True)


async def _ask(requests: AsyncIterator[bytes], call: StreamStreamCall) -> None:
    """What the client says, to Triton. Who speaks faster than Triton hears is made to wait."""
    async for request in requests:
        await call.write(request)
    await call.done_writing()


async def _listen(call: StreamStreamCall, unread: Unread) -> None:
    """What Triton says, as it comes, however slowly the client reads: Triton would keep it."""
    with suppress(AioRpcError):  # which is told when all before it is read
        async for answer in call:
            unread.put(answer)
    unread.end()


async def _tell(unread: Unread, context: ServicerContext) -> None:
    async for answer in unread:
        await context.write(answer)


async def _end_like(call: UnaryUnaryCall | StreamStreamCall, context: ServicerContext) -> None:
    """The client learns how the call ended."""
    code, trailing = await call.code(), tuple(await call.trailing_metadata() or ())
    if code is not grpc.StatusCode.OK:
        await context.abort(code, await call.details(), trailing)
    context.set_trailing_metadata(trailing)


def _metadata(context: ServicerContext) -> list[tuple[str, str | bytes]]:
    """What the client sent with its call, but for what gRPC says by itself."""
    return [
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if key != "user-agent" and not key.startswith("grpc-")
    ]


@contextmanager
def served(
    address: str,
    upstream: str,
    limits: Limits | None = None,
    *,
    credentials: grpc.ServerCredentials | None = None,
    trust: Trust | None = None,
) -> Iterator[int]:
    """Within, a gateway listens at `address`, in a thread of its own. Gives its port.

    Args:
        address: host:port for clients; a free port for 0.
        upstream: host:port of Triton's gRPC.
        limits: what one client may take.
        credentials: TLS for clients.
        trust: TLS towards Triton.

    Raises:
        GatewayError: the address cannot be had.
    """
    opened = _opened(address, upstream, limits or Limits(), credentials, trust or Trust())
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as port:
        yield port


@asynccontextmanager
async def _opened(
    address: str,
    upstream: str,
    limits: Limits,
    credentials: grpc.ServerCredentials | None,
    trust: Trust,
) -> AsyncIterator[int]:
    largest = ("grpc.max_receive_message_length", int(limits.message_mb * MB))
    async with _channel(upstream, trust) as channel:
        server = grpc.aio.server(options=(*OPTIONS, largest))
        server.add_generic_rpc_handlers((Relay(channel, limits),))
        port = _bound(server, address, credentials)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(GRACE_S)


def _channel(url: str, trust: Trust) -> Channel:
    credentials = trust.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(url, UPSTREAM_OPTIONS)
    return grpc.aio.secure_channel(url, credentials, (*UPSTREAM_OPTIONS, *trust.options()))


def _bound(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise GatewayError(
            f"gateway: got {address}, which cannot be used ({error}), expected a free port; stop "
            "what listens there or choose another"
        ) from error
