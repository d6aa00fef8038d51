"""Clients that mean harm, or do it: a clear answer for them, and nothing for others to notice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from visavis_client import Client, Portrait, ServerUnavailable
from visavis_client._wire import Request, pb

from benchmarks import provoke
from tests.integration.conftest import sound
from tests.integration.stream import WAIT_S, Stream, new_id

STREAMS = 200


@pytest.fixture
def stub(server):
    with provoke.stub(server.grpc_url) as service:
        yield service


@pytest.fixture
def face(portrait) -> Portrait:
    return Portrait(portrait["portrait"], portrait["region_centers"])


def converses(server, portrait) -> bool:
    with Stream(server.grpc_url) as stream:
        answer = stream.ask(new_id(), start=True, end=True, avatar_audio=sound(5, 0), **portrait)
    return answer.error is None and len(answer.frames) == 5


@pytest.mark.parametrize("shape", [[2**40], [-1], [2**62, 4], [], [0, 0, 0, 0, 0, 0, 0, 0]])
def test_impossible_shapes_are_refused_and_the_server_lives(server, stub, portrait, shape):
    assert provoke.ask_raw(stub, provoke.claiming(shape))
    assert converses(server, portrait)


def test_whatever_is_wrong_with_a_start_is_told(server, stub, portrait, face):
    for what, make in provoke.malformed(face).items():
        assert provoke.ask_raw(stub, make()), what
    assert converses(server, portrait)


def test_starts_that_nobody_ends_take_no_place_from_others(server, portrait):
    with provoke.Talker(server.grpc_url) as talker:
        for _ in range(1100):  # more than Triton once kept in mind
            talker.stream.send(Request(new_id(), new_id(), start=True))
        refused = [talker.arrived.get(timeout=WAIT_S).error for _ in range(1100)]
    assert None not in refused
    assert converses(server, portrait)


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
    assert converses(server, portrait)


def test_a_rush_of_streams_is_served_or_told_that_there_is_no_place(server, face):
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
