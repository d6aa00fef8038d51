"""Clients that mean harm, or do it: a clear answer for them, and nothing for others to notice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc
from visavis_client import Client, Portrait, ServerUnavailable, _wire
from visavis_client._wire import Request, pb

from tests.integration.conftest import sound
from tests.integration.stream import Stream, new_id

STREAMS = 200


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def ask_raw(stub, message):
    """What one message on a stream of its own is answered."""
    return next(iter(stub.ModelStreamInfer(iter([message]), timeout=20)))


@pytest.mark.parametrize("shape", [[2**40], [-1], [2**62, 4], [], [0, 0, 0, 0, 0, 0, 0, 0]])
def test_impossible_shapes_are_refused_and_the_server_lives(server, stub, portrait, shape):
    message = _wire.encode(Request("0", new_id(), start=True))
    message.inputs.add(name="avatar_audio", datatype="FP32", shape=shape)
    message.raw_input_contents.append(bytes(16))
    assert ask_raw(stub, message).error_message
    with Stream(server.grpc_url) as stream:
        answer = stream.ask(new_id(), start=True, end=True, avatar_audio=sound(5, 0), **portrait)
    assert answer.error is None and len(answer.frames) == 5


def test_a_batch_that_overflows_does_not_reach_a_neighbour(server, stub, portrait):
    """Triton truncates a batch axis beyond 32 bits; what is left of it must be harmless."""
    request = pb.ModelInferRequest(model_name="affect_encoder", id="0")
    request.inputs.add(name="word_ids", datatype="INT64", shape=[2**40 + 1, 1])
    request.raw_input_contents.append(bytes(8))
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request, timeout=20)
    assert refused.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
    )
    with Stream(server.grpc_url) as stream:
        answer = stream.ask(new_id(), start=True, end=True, avatar_audio=sound(5, 0), **portrait)
    assert answer.error is None and len(answer.frames) == 5


def test_a_rush_of_streams_is_served_or_told_that_there_is_no_place(server, portrait):
    face = Portrait(portrait["portrait"], portrait["region_centers"])
    voice = sound(20, 0)

    def converse(client: Client) -> int | None:
        try:
            with client.session(portrait=face) as session:
                session.send(avatar_audio=voice)
                session.finish()
                return len(list(session.frames()))
        except ServerUnavailable as error:
            assert error.retry_after_s
            return None

    with Client(server.grpc_url) as client, ThreadPoolExecutor(STREAMS) as threads:
        _ = client.server
        counts = list(threads.map(lambda _: converse(client), range(STREAMS)))
    assert set(counts) <= {20, None}
    assert sum(count == 20 for count in counts) >= 64  # a server's places, taken at least once
