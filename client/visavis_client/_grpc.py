"""This is where the client meets gRPC: Triton's own service, blocking and asyncio.

They use tritonclient's generated stubs and not its `InferenceServerClient`, which holds one stream
a connection, reads it into a callback that cannot see the request's id when an error comes, and in
its asyncio form cannot ask for the empty final response that flow control counts on.
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
from collections.abc import AsyncIterator

import grpc
from tritonclient.grpc import service_pb2_grpc

from visavis_client import _wire
from visavis_client._errors import (
    DeadlineExceeded,
    InputError,
    RequestRefused,
    ServerError,
    ServerUnavailable,
    SessionEnded,
    StreamBroken,
    VisavisError,
)
from visavis_client._transport import OnEnd, OnResponse
from visavis_client._types import ModelStatistics, ServerInfo
from visavis_client._wire import Message, Request

# One block of raw frames or a snapshot is more than gRPC's default limit of 4 MB.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found within a second; by default gRPC would wait up to two
    # minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcTransport:
    """The way to a Triton server at `url` ("host:port" of its gRPC endpoint).

    `credentials` turns TLS on (see `grpc.ssl_channel_credentials`).
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._url = checked_url(url)
        self._timeout_s = timeout_s
        if credentials is None:
            self._channel = grpc.insecure_channel(self._url, _CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(self._url, credentials, _CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = False

    def describe(self) -> ServerInfo:
        """What the server serves, from the metadata of its models."""
        _require_open(self._closed)
        try:
            return _wire.server_info(
                self._stub.ModelMetadata(_metadata(_wire.SESSION_MODEL), timeout=self._timeout_s),
                self._stub.ModelMetadata(_metadata(_wire.STEP_MODEL), timeout=self._timeout_s),
            )
        except grpc.RpcError as error:
            raise _call_error(error, self._url) from error

    def statistics(self) -> dict[str, ModelStatistics]:
        """What each model has done since the server started."""
        _require_open(self._closed)
        try:
            message = self._stub.ModelStatistics(
                _wire.pb.ModelStatisticsRequest(), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise _call_error(error, self._url) from error
        return _wire.model_statistics(message)

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> _GrpcStream:
        """A new stream on this connection; a thread reads it."""
        _require_open(self._closed)
        return _GrpcStream(self._stub, self._url, on_response, on_end)

    def close(self) -> None:
        """Close the connection, which ends every stream on it."""
        self._closed = True
        self._channel.close()


class _GrpcStream:
    def __init__(
        self,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        url: str,
        on_response: OnResponse,
        on_end: OnEnd,
    ) -> None:
        self._url = url
        self._on_response = on_response
        self._on_end = on_end
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._call = stub.ModelStreamInfer(iter(self._requests.get, None))
        threading.Thread(target=self._read, name="visavis-stream", daemon=True).start()

    def send(self, request: Request) -> None:
        self._requests.put(_wire.encode(request))

    def finish(self) -> None:
        self._requests.put(None)

    def cancel(self) -> None:
        self._call.cancel()
        self.finish()  # lets gRPC's own sending thread go

    def _read(self) -> None:
        try:
            for message in self._call:
                self._on_response(_wire.decode(message))
            self._on_end(None)
        except grpc.RpcError as error:
            self._on_end(_stream_error(error, self._url))


class GrpcAioTransport:
    """`GrpcTransport` for asyncio. It must be made inside the event loop."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._url = checked_url(url)
        self._timeout_s = timeout_s
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(self._url, _CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(self._url, credentials, _CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = False

    async def describe(self) -> ServerInfo:
        """What the server serves, from the metadata of its models."""
        _require_open(self._closed)
        try:
            return _wire.server_info(
                await self._stub.ModelMetadata(
                    _metadata(_wire.SESSION_MODEL), timeout=self._timeout_s
                ),
                await self._stub.ModelMetadata(
                    _metadata(_wire.STEP_MODEL), timeout=self._timeout_s
                ),
            )
        except grpc.RpcError as error:
            raise _call_error(error, self._url) from error

    async def statistics(self) -> dict[str, ModelStatistics]:
        """What each model has done since the server started."""
        _require_open(self._closed)
        try:
            message = await self._stub.ModelStatistics(
                _wire.pb.ModelStatisticsRequest(), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise _call_error(error, self._url) from error
        return _wire.model_statistics(message)

    def open_stream(self, on_response: OnResponse, on_end: OnEnd) -> _GrpcAioStream:
        """A new stream on this connection; a task reads it."""
        _require_open(self._closed)
        return _GrpcAioStream(self._stub, self._url, on_response, on_end)

    async def close(self) -> None:
        """Close the connection, which ends every stream on it."""
        self._closed = True
        await self._channel.close()


class _GrpcAioStream:
    def __init__(
        self,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        url: str,
        on_response: OnResponse,
        on_end: OnEnd,
    ) -> None:
        self._url = url
        self._on_response = on_response
        self._on_end = on_end
        self._requests: asyncio.Queue[Message | None] = asyncio.Queue()
        self._call = stub.ModelStreamInfer(self._sending())
        self._reader = asyncio.create_task(self._read())

    def send(self, request: Request) -> None:
        self._requests.put_nowait(_wire.encode(request))

    def finish(self) -> None:
        self._requests.put_nowait(None)

    def cancel(self) -> None:
        self._call.cancel()

    async def _sending(self) -> AsyncIterator[Message]:
        while (message := await self._requests.get()) is not None:
            yield message

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._on_response(_wire.decode(message))
            self._on_end(None)
        except grpc.RpcError as error:
            self._on_end(_stream_error(error, self._url))
        except asyncio.CancelledError:  # how grpc.aio reports that this side cancelled
            self._on_end(None)


def checked_url(url: str) -> str:
    """`url` as it is, once it looks like host:port; InputError otherwise."""
    if not re.fullmatch(r"[^/\s]+:\d+", url):
        raise InputError(
            f"server: got {url!r}, expected host:port of Triton's gRPC endpoint; write for example "
            "localhost:8001"
        )
    return url


def _require_open(closed: bool) -> None:
    if closed:
        raise SessionEnded(
            "client: it was closed before, so nothing more can be asked; open another"
        )


def _metadata(model: str) -> Message:
    return _wire.pb.ModelMetadataRequest(name=model)


def _call_error(error: grpc.RpcError, url: str) -> ServerError:
    """The exception for a call that failed as a whole."""
    code, details = _code(error), _details(error)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            f"server {url}: got no answer in time, expected one; see whether it is overloaded, or "
            "raise connect_timeout_s"
        )
    if code == grpc.StatusCode.NOT_FOUND or "unknown model" in details:
        return ServerUnavailable(
            f"server {url}: got {details!r}, expected visavis's models to be loaded; wait until "
            "the server is ready, or see its log"
        )
    if code == grpc.StatusCode.UNAVAILABLE:
        return ServerUnavailable(
            f"server {url}: got {details!r}, expected a Triton server; start one with `visavis "
            "serve`, and give the port of gRPC (8001), not that of HTTP (8000)"
        )
    return ServerError(f"server {url}: got {code} {details!r}; see the server's log")


def _stream_error(error: grpc.RpcError, url: str) -> VisavisError:
    """The exception for a stream that was lost."""
    if _code(error) == grpc.StatusCode.RESOURCE_EXHAUSTED:  # the same again would end as before
        return RequestRefused(
            f"server {url}: got more than it takes of one client ({_details(error)}), expected "
            "less; send shorter pieces, and read frames as they come"
        )
    return StreamBroken(
        f"server {url}: the stream was lost ({_code(error)}: {_details(error)}); resume from the "
        "newest snapshot with Client.resume, or start again"
    )


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None


def _details(error: grpc.RpcError) -> str:
    details = error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    return details or str(error)
