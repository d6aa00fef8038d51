"""The blocking client against a pretended Triton over real gRPC."""

import json
import threading
from dataclasses import replace

import grpc
import numpy as np
import pytest
import simplejpeg
import visavis_client
from visavis_client import (
    Chunk,
    Client,
    DeadlineExceeded,
    FakeTransport,
    InputError,
    MediaError,
    PortraitError,
    RequestRefused,
    Response,
    ServerError,
    ServerUnavailable,
    SessionEnded,
    SessionNotFound,
    StreamBroken,
    Turn,
    VisavisError,
    _errors,
)

from tests.client.in_process_server import BLOCK_FRAMES, SIZE

FRAME = np.zeros(640, np.float32)


def stall_after_the_first_block(server):
    """So that something is under way when the client cancels."""
    usual = server.behaviour
    server.behaviour = lambda request: usual(request) if len(server.requests) < 3 else []


def grey(frame):
    return round(float(frame.image.mean()))


def test_a_conversation_gives_every_frame_once_and_in_order(client, portrait, conversation):
    with client.session(portrait=portrait) as session:
        frames = list(session.stream(conversation))
    assert [frame.index for frame in frames] == list(range(53))
    assert [grey(frame) for frame in frames] == list(range(53))
    assert frames[52].pts_s == 52 / 25
    assert frames[0].image.shape == (SIZE, SIZE, 3)
    assert [timing.first_frame for timing in session.timings] == list(range(0, 53, 5))
    assert [timing.frames for timing in session.timings] == [5] * 10 + [3]


def test_every_message_brings_the_trace_that_is_current_when_it_is_sent(server, portrait):
    current = {"traceparent": "00-first"}
    client = Client(server.url, trace=lambda headers: headers.update(current))
    with client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.zeros(640, np.float32))
        current["traceparent"] = "00-second"
        session.finish()
        assert len(list(session.frames())) == 1
    traces = [request.trace["traceparent"] for request in server.requests]
    assert traces == ["00-first", "00-first", "00-second"]


def test_the_server_describes_itself(client):
    assert (client.server.image_size, client.server.block_frames) == (SIZE, BLOCK_FRAMES)


def test_the_first_request_starts_the_session_and_the_last_ends_it(
    server, client, portrait, conversation
):
    with client.session(portrait=portrait, seed=7, num_steps=3, image_format="jpeg") as session:
        list(session.stream(conversation))
    first, *middle, last = server.requests
    assert first.start and last.end and not any(r.start or r.end for r in middle)
    assert {r.sequence_id for r in server.requests} == {session.id}
    assert first.timeout_s == 30.0
    assert json.loads(first.tensors["options"][0]) == {
        "seed": 7,
        "num_steps": 3,
        "image_format": "jpeg",
        "user_audio": True,
        "user_video": False,
        "expects": {"image_size": SIZE},
    }
    np.testing.assert_array_equal(first.tensors["portrait"], portrait.image)
    sent = np.concatenate([r.tensors.get("avatar_audio", FRAME[:0]) for r in middle])
    np.testing.assert_array_equal(sent, conversation.avatar_audio)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_users_face_travels_as_jpegs_unless_told_otherwise(server, portrait, compressed):
    shades = np.linspace(0, 255, 5 * SIZE * SIZE * 3).reshape(5, SIZE, SIZE, 3).astype(np.uint8)
    with (
        Client(server.url, compress_user_video=compressed) as client,
        client.session(portrait=portrait) as session,
    ):
        session.send(avatar_audio=FRAME, user_video=shades)
        session.finish()
        list(session.frames())
    tensors = server.requests[1].tensors
    if compressed:
        images = np.stack([simplejpeg.decode_jpeg(image) for image in tensors["user_images"]])
        assert 0 < np.abs(images.astype(int) - shades).mean() < 2
    else:
        np.testing.assert_array_equal(tensors["user_video"], shades)
    assert ("user_images" in tensors, "user_video" in tensors) == (compressed, not compressed)


def test_a_server_that_takes_no_jpegs_gets_values(server, portrait):
    session_model = server.models["echo_session"]
    known = tuple(spec for spec in session_model.inputs if spec.name != "user_images")
    server.models = {**server.models, "echo_session": replace(session_model, inputs=known)}
    face = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    with Client(server.url) as client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=FRAME, user_video=face)
        session.finish()
        list(session.frames())
    np.testing.assert_array_equal(server.requests[1].tensors["user_video"], face)


def test_raw_frames_are_exact(server, client, portrait):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def answer(request):
        if request.end:
            images = np.array([pixels.tobytes()], np.object_)
            yield Response(request.id, {"images": images, "first_frame": np.array([0])})
        yield Response(request.id, final=True)

    server.behaviour = answer
    with client.session(portrait=portrait, image_format="raw") as session:
        session.send(avatar_audio=FRAME)
        session.finish()
        (frame,) = session.frames()
    assert frame.content == pixels.tobytes()
    np.testing.assert_array_equal(frame.image, pixels)


def test_a_thread_may_send_while_another_reads(client, portrait):
    with client.session(portrait=portrait) as session:

        def speak():
            for _ in range(40):
                session.send(avatar_audio=FRAME)
            session.finish()

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert [frame.index for frame in session.frames()] == list(range(40))
        speaker.join()


def test_chunks_may_come_from_any_iterable(client, portrait):
    chunks = (Chunk(avatar_audio=FRAME, turns=(Turn("user", "hi", 0.0),)) for _ in range(7))
    with client.session(portrait=portrait) as session:
        assert len(list(session.stream(chunks))) == 7
    assert session.position.turns == 7


def test_no_more_than_two_requests_are_in_flight(portrait):
    silent = FakeTransport(image_size=SIZE, answer=lambda request: [])
    client = Client(transport=silent, start_timeout_s=0.05)
    with client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=FRAME)  # after START, the second
        with pytest.raises(DeadlineExceeded, match="start_timeout_s"):
            session.send(avatar_audio=FRAME)
    assert len(silent.requests) == 2


def test_closing_the_iterator_cancels_the_stream(server, client, portrait, conversation):
    stall_after_the_first_block(server)
    with client.session(portrait=portrait) as session:
        frames = session.stream(conversation)
        assert next(frames).index == 0
        frames.close()
        assert server.cancelled.wait(5)
        with pytest.raises(SessionEnded):
            session.send(avatar_audio=FRAME)


def test_cancelling_within_the_loop_ends_it_quietly(server, client, portrait, conversation):
    stall_after_the_first_block(server)
    seen = []
    with client.session(portrait=portrait) as session:
        for frame in session.stream(conversation):
            seen.append(frame.index)
            if frame.index == 3:
                session.cancel()
    assert seen == list(range(4))
    assert server.cancelled.wait(5)


def test_cancelling_a_session_frees_its_place_on_the_server(portrait):
    transport = FakeTransport(image_size=SIZE)
    with Client(transport=transport) as client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.cancel()
        assert list(session.frames()) == []
    assert transport.requests[-1].end and len(transport.requests) == 3
    assert transport.requests[-1].tensors["discard"].all()


def test_leaving_a_live_session_ends_it_on_the_server(server, client, portrait):
    with client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.tile(FRAME, 7))
        assert next(session.frames()).index == 0
        session.snapshot()  # returns once the server has answered all there was
    assert server.requests[-1].end


def test_a_session_may_outlive_its_client(server, portrait, conversation):
    with Client(server.url) as client:
        session = client.session(portrait=portrait)
        frames = session.stream(conversation)
        next(frames)
    frames.close()
    session.close()
    with pytest.raises(SessionEnded, match="closed"):
        client.statistics()


def test_a_silent_server_is_given_up(server, portrait, conversation):
    server.behaviour = lambda request: []
    client = Client(server.url, start_timeout_s=0.1)
    with client, client.session(portrait=portrait) as session, pytest.raises(DeadlineExceeded):
        list(session.stream(conversation))
    assert server.cancelled.wait(5)


def test_a_server_that_stalls_is_given_up_after_the_frame_timeout(server, portrait, conversation):
    usual = server.behaviour
    server.behaviour = lambda request: usual(request) if len(server.requests) < 5 else []
    client = Client(server.url, frame_timeout_s=0.1, resume_timeout_s=0)
    late = pytest.raises(DeadlineExceeded, match="frame_timeout_s")
    with client, client.session(portrait=portrait) as session, late:
        list(session.stream(conversation))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[INVALID_ARG] num_steps: got 99, expected 1 to 64", RequestRefused),
        ("[NOT_FOUND] session: got the unknown id", SessionNotFound),
        ("[UNAVAILABLE] session: got one more than the 64", ServerUnavailable),
        ("[INTERNAL] KeyError('x')", ServerError),
        (
            "[request id: 3] inference request for sequence a to model 'echo_session' must specify "
            "the START flag on the first request of the sequence",
            SessionNotFound,
        ),
        ("Failed to process the request(s): Stub process 'a' is not healthy.", ServerUnavailable),
        ("something new", ServerError),
    ],
)
def test_errors_within_a_stream_get_their_class(
    server, client, portrait, conversation, text, error
):
    server.behaviour = lambda request: [text]
    with client.session(portrait=portrait) as session, pytest.raises(error) as caught:
        list(session.stream(conversation))
    assert type(caught.value) is error
    assert not str(caught.value).startswith("[")


def test_a_refused_request_leaves_the_session_usable(server, client, portrait):
    usual = server.behaviour

    def refusing(request):
        if "transcript" in request.tensors:
            return ["[INVALID_ARG] transcript: got too much"]
        return usual(request)

    server.behaviour = refusing
    with client.session(portrait=portrait) as session:
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.send(turns=[Turn("user", "x", 0.0)])
        with pytest.raises(RequestRefused, match="too much"):
            list(session.frames())
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.finish()
        assert [frame.index for frame in session.frames()][-1] == 9


def test_a_refusal_of_the_last_request_is_not_lost(server, client, portrait):
    usual = server.behaviour
    server.behaviour = lambda r: ["[INVALID_ARG] wrong"] if r.end else usual(r)
    with client.session(portrait=portrait) as session:
        session.send(avatar_audio=FRAME)
        session.finish()
        with pytest.raises(RequestRefused, match="wrong"):
            list(session.frames())


def test_a_lost_stream_yields_what_came_and_then_says_so(server, portrait, conversation):
    seen = []
    lost = pytest.raises(StreamBroken, match=r"went away.*resume")
    client = Client(server.url, resume_timeout_s=0)
    with client, client.session(portrait=portrait) as session, lost:
        for frame in session.stream(conversation):
            seen.append(frame.index)
            if frame.index == 6:
                server.lost = grpc.StatusCode.UNAVAILABLE
    assert seen[:7] == list(range(7))


def test_lost_frames_are_noticed(portrait):
    images = np.array([simplejpeg.encode_jpeg(portrait.image)], np.object_)

    def skipping(request):
        first = np.array([5 * int(request.id)])
        return [
            Response(request.id, {"images": images, "first_frame": first}),
            Response(request.id, final=True),
        ]

    transport = FakeTransport(image_size=SIZE, answer=skipping)
    client = Client(transport=transport, resume_timeout_s=0)
    with client, client.session(portrait=portrait) as session:
        session.send(avatar_audio=FRAME)
        with pytest.raises(StreamBroken, match="got frame 5, expected 1"):
            list(session.frames())


def test_damaged_pictures_are_noticed(portrait):
    def damaged(request):
        images = np.array([b"\xff\xd8 not much of a JPEG"], np.object_)
        block = Response(request.id, {"images": images, "first_frame": np.array([0])}, final=True)
        return [block]

    transport = FakeTransport(image_size=SIZE, answer=damaged)
    broken = pytest.raises(StreamBroken, match="frame 0")
    with (
        Client(transport=transport) as client,
        client.session(portrait=portrait) as session,
        broken,
    ):
        _ = [frame.image for frame in session.stream([Chunk(avatar_audio=FRAME)])]


def test_no_server_is_said_so():
    with Client("localhost:1") as client, pytest.raises(ServerUnavailable, match="visavis serve"):
        _ = client.server


def test_a_server_without_our_models_is_said_so(server, client):
    server.models = {}
    with pytest.raises(ServerUnavailable, match="unknown model"):
        _ = client.server


@pytest.mark.parametrize("url", ["localhost", "http://localhost:8001", "", "localhost:port"])
def test_an_address_must_be_host_and_port(url):
    with pytest.raises(InputError, match="localhost:8001"):
        Client(url)


def test_a_snapshot_continues_elsewhere_where_it_was(server, client, portrait, conversation):
    snapshot = b""
    with client.session(portrait=portrait) as session:
        for frame in session.stream(conversation):
            if frame.index == 12:
                snapshot = session.snapshot()
                break
    with client.resume(snapshot) as session:
        frames = list(session.stream(conversation))
    indices = [frame.index for frame in frames]
    assert indices == list(range(indices[0], 53)) and 13 <= indices[0] <= 25
    assert [grey(frame) for frame in frames] == indices
    start = next(r for r in reversed(server.requests) if r.start)
    assert sorted(start.tensors) == ["snapshot"]


@pytest.mark.parametrize("damage", [lambda s: s[:10], lambda s: b"x" + s[1:], lambda s: b""])
def test_a_damaged_snapshot_is_refused(client, portrait, damage):
    with client.session(portrait=portrait) as session:
        session.send(avatar_audio=FRAME)
        snapshot = session.snapshot()
    with pytest.raises(InputError, match=r"Session\.snapshot"):
        client.resume(damage(snapshot))


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"avatar_audio": np.zeros((2, 640), np.float32)}, r"avatar_audio: got \(2, 640\)"),
        ({"avatar_audio": np.zeros(640, np.int16)}, "32768"),
        ({"avatar_audio": FRAME * np.nan}, "nan at sample 0"),
        ({"user_audio": FRAME + 12_000}, r"\[-1, 1\]"),
        ({"user_video": np.zeros((1, 8, 8, 3), np.uint8)}, r"user_video: got \(1, 8, 8, 3\)"),
        ({"user_video": np.zeros((1, SIZE, SIZE, 3), np.float32)}, "cast"),
    ],
)
def test_what_does_not_fit_is_not_sent(server, client, portrait, chunk, message):
    with client.session(portrait=portrait, user_audio=True, user_video=True) as session:
        with pytest.raises(InputError, match=message):
            session.send(**chunk)
        session.send(avatar_audio=np.tile(FRAME, 5))
        session.finish()
        assert len(list(session.frames())) == 5
    assert [sorted(r.tensors) for r in server.requests[1:]] == [["avatar_audio"], []]


def test_an_aligned_portrait_must_have_the_servers_size(client, portrait):
    other = visavis_client.Portrait(np.zeros((64, 64, 3), np.uint8), portrait.region_centers)
    with pytest.raises(PortraitError, match="64"):
        client.session(portrait=other)


def test_statistics_come_by_name(client):
    statistics = client.statistics()
    assert statistics["audio_encoder"].compute_s == statistics["audio_encoder"].executions == 1
    later = statistics["vae_encoder"].since(statistics["audio_encoder"])
    assert later.executions == 1


def test_the_public_names_are_these():
    assert all(hasattr(visavis_client, name) for name in visavis_client.__all__)
    assert {"Client", "AsyncClient", "Conversation", "FakeTransport"} <= set(visavis_client.__all__)


def test_every_error_is_in_the_tree_that_the_docstring_prints():
    def family(error):
        return {error}.union(*(family(child) for child in error.__subclasses__()))

    names = {error.__name__ for error in family(VisavisError)}
    tree = str(_errors.__doc__)
    assert all(f" {name} " in tree or f" {name}\n" in tree for name in names)
    assert names - {"AudioError"} < set(visavis_client.__all__) and MediaError.exit_code == 5
