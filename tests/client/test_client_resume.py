"""Sessions that lose their server go on, on another one or on the same, and no frame is lost."""

import asyncio
import itertools
import json

import grpc
import numpy as np
import pytest
from visavis_client import (
    AsyncClient,
    Client,
    FakeTransport,
    RequestRefused,
    Response,
    ServerError,
    ServerUnavailable,
    StreamBroken,
    Turn,
)
from visavis_client._outage import LONGEST_PAUSE_S, Outage, Patience, next_try

from tests.client.in_process_server import BLOCK_FRAMES, SIZE, InProcessServer

FRAME = np.zeros(640, np.float32)
INDICES = list(range(53))  # of the conversation of all tests


@pytest.fixture
def other():
    """A second server."""
    server = InProcessServer()
    yield server
    server.stop()


def told(server: InProcessServer, name: str) -> np.ndarray:
    """All that a server was told of a signal."""
    return np.concatenate([r.tensors[name] for r in server.requests if name in r.tensors])


def starts(server: InProcessServer) -> int:
    return sum(request.start for request in server.requests)


def breaking(server: InProcessServer, request_number: int, answers: list) -> None:
    """Let one of the requests be answered otherwise."""
    usual, numbers = server.behaviour, itertools.count()

    def behaviour(request):
        return answers if next(numbers) == request_number else usual(request)

    server.behaviour = behaviour


def brightness(frame) -> int:
    return round(float(frame.image.mean()))


@pytest.mark.parametrize("snapshot_interval_s", [0.4, 60.0])
def test_the_next_server_goes_on_and_no_frame_is_lost_or_doubled(
    server, other, portrait, conversation, snapshot_interval_s
):
    client = Client([server.url, other.url], snapshot_interval_s=snapshot_interval_s)
    frames = []
    with client, client.session(portrait=portrait) as session:
        for frame in session.stream(conversation):
            frames.append(frame)
            if frame.index == 31:
                server.lost = grpc.StatusCode.UNAVAILABLE
    assert [frame.index for frame in frames] == INDICES
    assert [brightness(frame) for frame in frames] == INDICES
    start, *_, end = other.requests
    assert start.start and end.end and start.sequence_id == session.id
    assert json.loads(start.tensors["options"][0])["first_frame"] > 31  # no need to send them again
    if snapshot_interval_s < 1:
        assert "snapshot" in start.tensors and "portrait" not in start.tensors
        assert len(start.tensors["avatar_audio"]) <= 20 * 640  # what came after the snapshot
    else:
        np.testing.assert_array_equal(told(other, "avatar_audio"), conversation.avatar_audio)
        padded = told(other, "user_audio")
        np.testing.assert_array_equal(padded[:9000], conversation.user_audio)


def test_the_same_server_goes_on_once_it_is_back(server, portrait, conversation):
    seen = []
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        for frame in session.stream(conversation):
            seen.append(frame.index)
            if frame.index == 12:
                server.lost = grpc.StatusCode.UNAVAILABLE
    assert seen == INDICES
    assert starts(server) == 2


@pytest.mark.parametrize(
    "answers",
    [
        ["[INTERNAL] echo: got the error 'Stub process is not healthy'"],
        ["[NOT_FOUND] session: got the unknown id"],
        ["[UNAVAILABLE] model is not ready"],
        [],  # silence
    ],
)
def test_whatever_the_server_lost_is_made_up_for(server, portrait, conversation, answers):
    breaking(server, 4, answers)
    client = Client(server.url, frame_timeout_s=0.2)
    with client, client.session(portrait=portrait) as session:
        assert [frame.index for frame in session.stream(conversation)] == INDICES


def test_frames_that_were_skipped_are_made_again(server, portrait, conversation):
    usual = server.behaviour

    def skipping(request):
        answers = list(usual(request))
        return answers[1:] if request.id == "4" else answers

    server.behaviour = skipping
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        assert [frame.index for frame in session.stream(conversation)] == INDICES


def test_a_loss_at_the_very_end_is_made_up_for(server, portrait, conversation):
    usual, ends = server.behaviour, itertools.count()
    server.behaviour = lambda r: ["[INTERNAL] x"] if r.end and not next(ends) else usual(r)
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        assert [frame.index for frame in session.stream(conversation)] == INDICES
    assert server.requests[-1].start and server.requests[-1].end


def test_what_was_refused_is_not_told_again(server, portrait):
    usual = server.behaviour

    def refusing(request):
        return ["[INVALID_ARG] no"] if "transcript" in request.tensors else usual(request)

    server.behaviour = refusing
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.send(turns=[Turn("user", "x", 0.0)])
        with pytest.raises(RequestRefused):
            list(session.frames())
        breaking(server, 0, ["[INTERNAL] x"])
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.finish()
        assert [frame.index for frame in session.frames()] == list(range(5, 10))


def test_transcripts_are_told_again_as_one(server, portrait):
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        for text in ("one", "two"):
            session.send(turns=[Turn("user", text, 0.0)])
        breaking(server, 0, ["[INTERNAL] x"])
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.finish()
        assert len(list(session.frames())) == 5
    start = next(request for request in reversed(server.requests) if request.start)
    told_again = json.loads(start.tensors["transcript"][0])
    assert [turn["text"] for turn in told_again] == ["one", "two"]


def test_a_snapshot_is_asked_for_again_if_its_server_is_lost(server, portrait):
    usual, asked = server.behaviour, itertools.count()

    def losing_the_first(request):
        lost = "want_snapshot" in request.tensors and not next(asked)
        return ["[INTERNAL] x"] if lost else usual(request)

    server.behaviour = losing_the_first
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.tile(FRAME, 7))
        snapshot = session.snapshot()
    with Client(server.url) as client, client.resume(snapshot) as session:
        session.finish()
        assert [frame.index for frame in session.frames()] == [5, 6]


def test_a_full_server_is_passed_by(server, other, portrait, conversation):
    server.behaviour = lambda request: ["[UNAVAILABLE] retry_after_s=2.5 session: got one more"]
    client = Client([server.url, other.url])
    with client, client.session(portrait=portrait) as session:
        assert [frame.index for frame in session.stream(conversation)] == INDICES
    assert starts(server) == starts(other) == 1


def test_when_all_are_full_the_caller_is_told_at_once(server, other, portrait, conversation):
    for one in (server, other):
        one.behaviour = lambda request: ["[UNAVAILABLE] retry_after_s=2.5 session: got one more"]
    client = Client([server.url, other.url])
    full = pytest.raises(ServerUnavailable, match=r"^session: got one more")
    with client, client.session(portrait=portrait) as session, full as caught:
        list(session.stream(conversation))
    assert caught.value.retry_after_s == 2.5
    assert starts(server) == starts(other) == 1


def test_a_server_that_is_down_is_passed_by_when_connecting(server, portrait, conversation):
    with Client(["localhost:1", server.url]) as client:
        assert client.server.block_frames == BLOCK_FRAMES
        with client.session(portrait=portrait) as session:
            assert len(list(session.stream(conversation))) == 53


def test_an_async_session_goes_on_too(server, other, portrait, conversation):
    async def talk():
        seen = []
        client = AsyncClient([server.url, other.url])
        async with client, await client.session(portrait=portrait) as session:
            async for frame in session.stream(conversation):
                seen.append(frame.index)
                if frame.index == 31:
                    server.lost = grpc.StatusCode.UNAVAILABLE
        return seen

    assert asyncio.run(talk()) == INDICES
    assert other.requests[0].start


def test_giving_up_tells_of_the_last_loss(portrait, conversation):
    answers = iter(range(3))

    def answer(request):
        if next(answers, None) is None:
            return [Response(request.id, final=True, error=ServerUnavailable("gone"))]
        return usual(request)

    usual = FakeTransport(image_size=SIZE).respond
    client = Client(transport=FakeTransport(image_size=SIZE, answer=answer), resume_timeout_s=0.05)
    gone = pytest.raises(ServerUnavailable, match="gone")
    with client, client.session(portrait=portrait) as session, gone:
        list(session.stream(conversation))


@pytest.mark.parametrize("resume_timeout_s", [0.0, 30.0])
def test_what_is_kept_to_be_told_again_stays_short(portrait, resume_timeout_s):
    transport = FakeTransport(image_size=SIZE)
    client = Client(transport=transport, resume_timeout_s=resume_timeout_s)
    with client, client.session(portrait=portrait) as session:
        for _ in range(400):
            session.send(avatar_audio=np.tile(FRAME, 5))
            list(session.ready())
            assert len(session._exchange._journal.entries) <= 12  # 2 s of blocks of 0.2 s
    asked = sum("want_snapshot" in request.tensors for request in transport.requests)
    assert asked == (400 * 5 // 50 if resume_timeout_s else 0)


# When to try


def tries(servers: int, established: bool, error: ServerError | None = None) -> list[float]:
    """When a session tries, in s since its loss, if no server ever answers well."""
    error = error or StreamBroken("lost")
    found, outage, now_s = [], None, 0.0
    patience = Patience(resume_s=30.0)
    while True:
        outage = next_try(outage, error, now_s, patience, servers, established=established)
        if outage is None:
            return found
        now_s = outage.retry_s
        found.append(now_s)


def test_every_server_is_tried_at_once_and_then_with_growing_pauses():
    found = tries(3, established=True)
    assert found[:3] == [0, 0, 0]
    pauses = np.diff(found[2:])
    np.testing.assert_allclose(pauses[:5], [0.1, 0.2, 0.4, 0.8, 1.6])
    np.testing.assert_allclose(pauses[5:], LONGEST_PAUSE_S)
    assert 27 < found[-1] < 30


def test_what_is_broken_is_not_waited_for_as_long_as_what_is_gone():
    assert 8 < tries(1, established=True, error=ServerError("[INTERNAL]"))[-1] < 10


@pytest.mark.parametrize("servers", [1, 2, 5])
def test_who_opens_a_session_is_told_after_one_try_of_each(servers):
    assert tries(servers, established=False) == [0] * (servers - 1)


def test_what_was_refused_is_not_tried_elsewhere():
    wrong = RequestRefused("wrong")
    outage = Outage(0.0, 1, 0.0)
    assert next_try(outage, wrong, 0.0, Patience(), 3, established=True) is None
