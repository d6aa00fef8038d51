"""The gateway hands on what is called, bounds what one client may take, and ends no other call."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest

from visavis.serving.gateway import STREAM, GatewayError, Limits, served

WAIT_S = 20.0
KB = 1000
LIMITS = Limits(message_mb=0.1, unread_mb=0.5)
UNARY = "/service/Method"
LARGE = bytes(200 * KB)


@dataclass
class Upstream(grpc.GenericRpcHandler):
    """A server that echoes in capitals; what it was told is kept."""

    heard: list[bytes] = field(default_factory=list)
    metadata: dict[str, str | bytes] = field(default_factory=dict)
    remaining_s: float | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def service(self, handler_call_details):
        if handler_call_details.method not in (STREAM, UNARY):
            return None
        return grpc.stream_stream_rpc_method_handler(self.answer)

    def answer(self, requests, context) -> Iterator[bytes]:
        context.add_callback(self.ended.set)
        self.metadata = dict(context.invocation_metadata())
        self.remaining_s = context.time_remaining()
        context.set_trailing_metadata([("last", "word")])
        for request in requests:
            self.heard.append(request)
            if request == b"fail":
                context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name")
            if request == b"pour":
                yield from (bytes(50 * KB) for _ in range(100))
            yield request.upper()


@dataclass
class Place:
    """A gateway before an upstream, and a client of it."""

    upstream: Upstream
    address: str
    client: grpc.Channel

    def call(self, requests, **options):
        return self.client.stream_stream(STREAM)(iter(requests), timeout=WAIT_S, **options)


@pytest.fixture
def upstream():
    handler = Upstream()
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler, f"127.0.0.1:{port}"
        server.stop(0).wait()


@pytest.fixture
def place(upstream):
    handler, address = upstream
    with served("127.0.0.1:0", address, LIMITS) as port:
        here = f"127.0.0.1:{port}"
        with grpc.insecure_channel(here, [("grpc.max_send_message_length", -1)]) as client:
            yield Place(handler, here, client)


def refusal(call) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    return raised.value  # type: ignore[return-value]


def test_a_stream_goes_through_with_all_that_is_its_own(place):
    call = place.call([b"one", b"two"], metadata=[("key", "value"), ("key-bin", b"\0\1")])
    assert list(call) == [b"ONE", b"TWO"]
    assert dict(call.trailing_metadata())["last"] == "word"
    assert place.upstream.metadata["key"] == "value"
    assert place.upstream.metadata["key-bin"] == b"\0\1"
    assert 0 < place.upstream.remaining_s < WAIT_S + 1  # gRPC rounds up


def test_answers_come_while_more_is_asked(place):
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = place.call(iter(requests.get, None))
    for word in (b"one", b"two", b"three"):
        requests.put(word)
        assert next(call) == word.upper()
    requests.put(None)
    assert list(call) == []


def test_a_unary_call_goes_through_with_all_that_is_its_own(place):
    ask = place.client.unary_unary(UNARY)
    answer, call = ask.with_call(b"one", timeout=WAIT_S, metadata=[("key", "value")])
    assert answer == b"ONE"
    assert dict(call.trailing_metadata())["last"] == "word"
    assert place.upstream.metadata["key"] == "value"
    assert 0 < place.upstream.remaining_s < WAIT_S + 1
    with pytest.raises(grpc.RpcError) as raised:
        ask(b"fail", timeout=WAIT_S)
    error = raised.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing of that name")


def test_an_error_comes_as_it_was_and_after_what_was_answered(place):
    call = place.call([b"one", b"fail"])
    assert next(call) == b"ONE"
    error = refusal(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing of that name")
    assert dict(error.trailing_metadata())["last"] == "word"


def test_what_is_not_served_is_not_served_through_it(place):
    with pytest.raises(grpc.RpcError) as raised:
        place.client.unary_unary("/service/Other")(b"", timeout=WAIT_S)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_too_large_a_message_ends_its_call_alone(place):
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    neighbour = place.call(iter(requests.get, None))
    error = refusal(place.call([LARGE]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert LARGE not in place.upstream.heard
    requests.put(b"still here")
    assert next(neighbour) == b"STILL HERE"
    requests.put(None)


def test_who_does_not_read_is_ended_and_everybody_else_is_not(place):
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    neighbour = place.call(iter(requests.get, None))
    requests.put(b"first")
    assert next(neighbour) == b"FIRST"
    place.upstream.ended.clear()
    call = place.call([b"pour"])
    assert place.upstream.ended.wait(WAIT_S)
    error = refusal(call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "answers that are not read, expected at most 0.5; read them" in error.details()
    requests.put(b"still here")
    assert next(neighbour) == b"STILL HERE"
    requests.put(None)


def test_who_reads_gets_more_than_is_kept(place):
    assert sum(map(len, place.call([b"pour"]))) == 100 * 50 * KB + len(b"POUR")


@pytest.mark.parametrize("leave", [lambda call, _: call.cancel(), lambda _, client: client.close()])
def test_who_leaves_is_gone_upstream_too(place, leave):
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = place.call(iter(requests.get, None))
    requests.put(b"one")
    assert next(call) == b"ONE"
    leave(call, place.client)
    assert place.upstream.ended.wait(WAIT_S)
    requests.put(None)


def test_a_server_that_is_not_there_is_told():
    with (
        served("127.0.0.1:0", "127.0.0.1:9") as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as client,
    ):
        error = refusal(client.stream_stream(STREAM)(iter([b"one"]), timeout=WAIT_S))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_port_that_is_taken_is_told(place):
    with (
        pytest.raises(GatewayError, match="expected a free port"),
        served(place.address, "127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize("limit", [0, -1, float("nan"), 3000])
def test_a_limit_is_a_size(limit):
    with pytest.raises(ValueError, match=r"message_mb: got .*, expected more than 0"):
        Limits(message_mb=limit)
