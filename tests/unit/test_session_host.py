"""Sessions on a server, without a server: whose turn it is, who gets in, and what goes wrong."""

import asyncio
import json
import re
import threading
from typing import Any

import numpy as np
import pytest
import simplejpeg
from visavis_client._h264 import is_key_frame

from tests.fakes.echo import hashing
from tests.sizes import tiny
from visavis.affect import AffectError, LexiconAffect, ReaderAffect
from visavis.contract import contracts
from visavis.serving.errors import ServerFull, SessionNotFound, StageFailed, text_of
from visavis.serving.session_host import Message, SessionHost
from visavis.session import SessionError

CONFIG = tiny()
MODELS = {name: hashing(model) for name, model in contracts(CONFIG).items()}


def call(model, inputs, outputs):
    """All models, by a hash."""
    found = MODELS[model]({name: array[0] for name, array in inputs.items()})
    return {name: found[name][None] for name in outputs}


class Reply:
    """Keeps what is sent; `cancel_after` blocks the client has gone."""

    def __init__(self, cancel_after=10**9):
        self.sent, self.errors, self.closed, self.cancel_after = [], [], False, cancel_after

    def send(self, tensors):
        assert not self.closed
        self.sent.append(tensors)

    def fail(self, error):
        self.errors.append(error)

    def close(self):
        self.closed = True

    def is_cancelled(self):
        return len(self.sent) >= self.cancel_after

    @property
    def frames(self):
        return [image for tensors in self.sent for image in tensors.get("images", ())]


@pytest.fixture
def make_host():
    hosts = []

    def make(call=call, **limits):
        hosts.append(SessionHost(CONFIG, call, limits.pop("affect", LexiconAffect()), **limits))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def text(value):
    return np.array([json.dumps(value).encode()], np.object_)


def portrait() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "portrait": rng.integers(0, 256, (32, 32, 3), np.uint8),
        "region_centers": np.array([[0.5, 0.7], [0.5, 0.5]], np.float32),
    }


def audio(frames=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, frames * 640).astype(np.float32)


def ask(host, session_id="a", start=False, end=False, reply=None, **tensors):
    reply = reply or Reply()
    asyncio.run(host.serve(Message(session_id, start, end, tensors), reply))
    assert reply.closed
    return reply


def whole(host, **tensors):
    """A conversation in one message."""
    return ask(host, start=True, end=True, **{**portrait(), "avatar_audio": audio(), **tensors})


def test_a_conversation_from_start_to_end(make_host):
    host = make_host()
    assert not ask(host, start=True, **portrait()).sent
    frames = ask(host, avatar_audio=audio()).frames + ask(host, end=True).frames
    assert len(frames) == 30
    assert host.slots == {}
    assert frames == whole(host).frames


def test_pictures_are_jpeg_or_raw(make_host):
    host = make_host()

    def made(**options):
        return whole(host, options=text(options))

    raw, jpeg = made(image_format="raw"), made(jpeg_quality=100)
    firsts = [tensors["first_frame"].tolist() for tensors in raw.sent]
    assert firsts == [[first] for first in range(0, 30, 5)]
    ours = np.frombuffer(raw.frames[0], np.uint8).reshape(32, 32, 3)
    theirs = simplejpeg.decode_jpeg(jpeg.frames[0])
    assert np.abs(ours.astype(int) - theirs).mean() < 30  # noise is hard on JPEG, order is not


def faces(count=25):
    """The user, as JPEGs and as the values these are of."""
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    images = [simplejpeg.encode_jpeg(picture) for picture in pictures]
    return np.array(images, np.object_), np.stack([simplejpeg.decode_jpeg(i) for i in images])


def test_the_user_may_come_as_jpegs(make_host):
    host, options, (images, values) = make_host(), text({"user_video": True}), faces()
    seen = whole(host, options=options, user_video=values).frames
    assert whole(host, options=options, user_images=images).frames == seen
    assert whole(host, options=options, user_images=images[::-1].copy()).frames != seen


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"user_images": [b"not a picture"]}, r"user_images\[1\]: got 13 bytes that are no JPEG"),
        ({"user_images": [faces(1)[0][0][:90]]}, r"user_images\[1\]: .* no JPEG"),
        ({"user_images": [simplejpeg.encode_jpeg(np.zeros((8, 16, 3), np.uint8))]}, "of 16x8"),
        ({"user_images": [b""], "user_video": faces(1)[1]}, "leave one out"),
        ({"user_images": [b""] * 3000}, "3001 frames that wait"),
    ],
)
def test_pictures_of_the_user_that_are_none_are_told(make_host, tensors, message):
    host, (good, _) = make_host(), faces(1)
    options = {"user_video": True, "user_audio": True}
    ask(host, start=True, options=text(options), **portrait())
    images = np.array([*good, *tensors["user_images"]], np.object_)
    (error,) = ask(host, **{**tensors, "user_images": images}).errors
    assert isinstance(error, SessionError)
    assert re.search(message, str(error))
    assert not ask(host, user_images=good).errors


def test_frames_that_a_client_has_are_made_and_not_sent(make_host):
    host = make_host()
    all_frames = whole(host, options=text({})).frames
    rest = whole(host, options=text({"first_frame": 12}))
    assert rest.frames == all_frames[12:]
    assert [tensors["first_frame"].tolist() for tensors in rest.sent] == [[12], [15], [20], [25]]


def test_h264_begins_anew_where_the_client_may_lack_a_picture(make_host):
    host, h264 = make_host(), text({"image_format": "h264"})

    def keys(frames):
        return [n for n, packet in enumerate(frames) if is_key_frame(packet)]

    undisturbed = whole(host, options=h264).frames
    assert keys(undisturbed) == [0, 25]
    assert undisturbed == whole(host, options=h264).frames
    ask(host, start=True, **portrait(), options=h264)
    stopped = ask(host, avatar_audio=audio(), reply=Reply(cancel_after=2))
    assert stopped.frames == undisturbed[:10]
    rest = ask(host, end=True).frames
    assert len(rest) == 20 and keys(rest) == [0]


def test_messages_of_one_session_wait_for_each_other_and_others_do_not(make_host):
    entered, release = threading.Event(), threading.Event()

    def slow(model, inputs, outputs):
        if model == "echo" and not entered.is_set():
            entered.set()
            assert release.wait(10)
        return call(model, inputs, outputs)

    host = make_host(slow)

    async def scenario():
        def send(session_id, start=False, end=False, **tensors):
            reply = Reply()
            message = Message(session_id, start, end, tensors)
            return reply, asyncio.create_task(host.serve(message, reply))

        first, one = send("a", start=True, **portrait(), avatar_audio=audio(20))
        await asyncio.to_thread(entered.wait, 10)
        second, two = send("a", end=True, avatar_audio=audio(10, seed=1))
        other, three = send("b", start=True, end=True, **portrait(), avatar_audio=audio(10))
        await three
        assert len(other.frames) == 10
        assert not second.closed
        release.set()
        await asyncio.gather(one, two)
        return first.frames + second.frames

    frames = asyncio.run(scenario())
    both = np.concatenate([audio(20), audio(10, seed=1)])
    assert frames == whole(host, avatar_audio=both).frames


def test_bad_input_changes_nothing(make_host):
    host = make_host()
    ask(host, start=True, **portrait())
    frames = ask(host, avatar_audio=audio(20)).frames
    bads: list[dict[str, Any]] = [
        {"avatar_audio": audio(5) + np.nan},
        {"avatar_audio": audio(5), "transcript": text([{"role": "?"}])},
        {"options": text({})},
        {"transcript": np.array([b"\xff"], np.object_)},
    ]
    for bad in bads:
        (error,) = ask(host, **bad).errors
        assert text_of(error).startswith("[INVALID_ARG] ")
    frames += ask(host, end=True, avatar_audio=audio(10, seed=1)).frames
    both = np.concatenate([audio(20), audio(10, seed=1)])
    assert frames == whole(host, avatar_audio=both).frames


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "without portrait and region_centers"),
        ({"portrait": portrait()["portrait"]}, "without region_centers"),
        ({**portrait(), "snapshot": np.zeros(9, np.uint8)}, "portrait, region_centers"),
        ({"snapshot": np.zeros(9, np.uint8)}, "something else"),
        ({**portrait(), "options": text({"sed": 1})}, "unknown keys sed"),
    ],
)
def test_a_bad_start_leaves_no_session(make_host, tensors, message):
    host = make_host()
    (error,) = ask(host, start=True, **tensors).errors
    assert isinstance(error, SessionError)
    assert message in str(error)
    assert host.slots == {}


class Told:
    """What a host told of itself."""

    def __init__(self):
        self.counts, self.blocks, self.answers, self.refusals = [], [], [], 0
        self.capacities = []

    def sessions(self, count):
        self.counts.append(count)

    def block(self, seconds):
        self.blocks.append(seconds)

    def answer(self, seconds, *, late):
        self.answers.append((seconds, late))

    def refused(self):
        self.refusals += 1

    def places(self, count):
        self.capacities.append(count)


def test_a_host_tells_of_sessions_blocks_and_deadlines(make_host):
    now_s, slow_s, told = [0.0], [0.03], Told()

    def slowly(model, inputs, outputs):
        now_s[0] += slow_s[0] if model == "echo" else 0.0
        return call(model, inputs, outputs)

    host = make_host(slowly, watcher=told, clock=lambda: now_s[0], max_sessions=1)
    ask(host, "a", start=True, **portrait())
    ask(host, "b", start=True, **portrait())
    assert (max(told.counts), told.refusals, told.answers) == (1, 1, [])
    ask(host, "a", avatar_audio=audio(30))
    assert len(told.blocks) > 1 and told.blocks == pytest.approx([0.03] * len(told.blocks))
    assert told.answers == [(pytest.approx(0.03), False)]  # the first of several blocks
    slow_s[0] = CONFIG.block_frames / 25 + 0.01
    ask(host, "a", avatar_audio=audio(10))
    assert [late for _, late in told.answers] == [False, True]


def test_a_message_without_start_is_not_found(make_host):
    (error,) = ask(make_host(), avatar_audio=audio()).errors
    assert isinstance(error, SessionNotFound)


def test_a_full_server_says_so(make_host):
    host = make_host(max_sessions=2)
    for session_id in "ab":
        assert not ask(host, session_id, start=True, **portrait()).errors
    (error,) = ask(host, "c", start=True, **portrait()).errors
    assert isinstance(error, ServerFull)
    assert not ask(host, "a", start=True, **portrait()).errors  # a restart takes no new place
    ask(host, "b", end=True)
    assert not ask(host, "c", start=True, **portrait()).errors


def test_a_host_measures_at_the_first_beginning_what_it_can_hold(make_host):
    now_s, blocks, told, lock = [0.0], [], Told(), threading.Lock()

    def timed(model, inputs, outputs):
        if model == "echo":
            with lock:
                now_s[0] += 0.4 * CONFIG.block_frames / 25
            blocks.append(inputs)
        return call(model, inputs, outputs)

    host = make_host(timed, watcher=told, clock=lambda: now_s[0], max_sessions=None)
    assert not blocks
    first = ask(host, "a", start=True, **portrait())
    assert not first.errors and blocks
    assert told.capacities == [2]  # 0.9 / 0.4
    assert not ask(host, "b", start=True, **portrait()).errors
    measured_with = len(blocks)
    (error,) = ask(host, "c", start=True, **portrait()).errors
    assert isinstance(error, ServerFull) and "the 2 that this server holds" in str(error)
    assert len(blocks) == measured_with  # once is enough


def test_what_follows_a_beginning_waits_for_its_place(make_host):
    measuring, release = threading.Event(), threading.Event()

    def slow_at_first(model, inputs, outputs):
        if model == "echo":
            measuring.set()
            assert release.wait(10)
        return call(model, inputs, outputs)

    host = make_host(slow_at_first, max_sessions=None)

    async def scenario():
        first, second = Reply(), Reply()
        beginning = Message("a", True, False, portrait())
        one = asyncio.create_task(host.serve(beginning, first))
        await asyncio.to_thread(measuring.wait, 10)
        rest = Message("a", False, True, {"avatar_audio": audio()})
        two = asyncio.create_task(host.serve(rest, second))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(one, two)
        return first, second

    first, second = asyncio.run(scenario())
    assert not first.errors and not second.errors and len(second.frames) == 30


def test_a_beginning_in_error_is_told_so_by_a_full_server_and_moves_nobody_out(make_host):
    now_s = 0.0
    host = make_host(max_sessions=1, yield_after_s=10.0, clock=lambda: now_s)
    ask(host, "a", start=True, **portrait())
    now_s = 11.0
    (error,) = ask(host, "b", start=True, options=text({"canary": True})).errors
    assert isinstance(error, SessionError) and list(host.slots) == ["a"]


def test_what_follows_a_refused_beginning_is_refused(make_host):
    host = make_host(max_sessions=1)
    ask(host, "a", start=True, **portrait())

    async def scenario():
        replies = Reply(), Reply()
        messages = Message("b", True, False, portrait()), Message("b", False, True, {})
        await asyncio.gather(*map(host.serve, messages, replies))
        return [reply.errors[0] for reply in replies]

    full, unknown = asyncio.run(scenario())
    assert isinstance(full, ServerFull) and isinstance(unknown, SessionNotFound)
    assert list(host.slots) == ["a"]


def test_a_measurement_that_fails_is_told_and_tried_again(make_host):
    broken = [True]

    def call_or_fail(model, inputs, outputs):
        if model == "echo" and broken[0]:
            raise StageFailed("echo: got nothing")
        return call(model, inputs, outputs)

    host = make_host(call_or_fail, max_sessions=None)
    (error,) = ask(host, "a", start=True, **portrait()).errors
    assert isinstance(error, StageFailed)
    broken[0] = False
    assert not ask(host, "a", start=True, **portrait()).errors


def test_a_silent_session_is_forgotten(make_host):
    now_s = 0.0
    host = make_host(idle_s=60.0, clock=lambda: now_s)
    ask(host, start=True, **portrait())
    now_s = 59.0
    assert not ask(host, avatar_audio=audio(1)).errors
    now_s = 120.0
    (error,) = ask(host, avatar_audio=audio(1)).errors
    assert isinstance(error, SessionNotFound)


def test_a_silent_session_gives_its_place_to_one_that_finds_none(make_host):
    now_s = 0.0
    host = make_host(max_sessions=2, yield_after_s=10.0, clock=lambda: now_s)
    ask(host, "a", start=True, **portrait())
    now_s = 1.0
    ask(host, "b", start=True, **portrait())
    now_s = 10.0
    (error,) = ask(host, "c", start=True, **portrait()).errors
    assert isinstance(error, ServerFull)
    now_s = 10.5
    assert not ask(host, "c", start=True, **portrait()).errors
    assert list(host.slots) == ["b", "c"]  # the one that was silent for longest had to go
    now_s = 200.0
    assert not ask(host, "b", avatar_audio=audio(1)).errors  # who hinders nobody stays


def test_a_cancelled_request_stops_at_the_next_block_and_the_session_goes_on(make_host):
    host = make_host()
    ask(host, start=True, **portrait())
    stopped = ask(host, avatar_audio=audio(), reply=Reply(cancel_after=2))
    assert len(stopped.frames) == 10
    rest = ask(host, end=True)
    assert stopped.frames + rest.frames == whole(host).frames


def test_who_leaves_in_mid_speech_leaves_no_work_behind(make_host):
    host = make_host()
    ask(host, start=True, **portrait(), avatar_audio=audio(), reply=Reply(cancel_after=2))
    (error,) = ask(host, discard=np.array([True])).errors
    assert isinstance(error, SessionError) and "with the end" in str(error)
    left = ask(host, end=True, discard=np.array([True]))
    assert not left.errors and not left.sent
    assert host.slots == {}


def test_a_snapshot_goes_on_elsewhere(make_host):
    host = make_host()
    ask(host, start=True, **portrait(), options=text({"seed": 9}))
    first = ask(host, avatar_audio=audio(20), want_snapshot=np.array([True]))
    snapshot = first.sent[-1]["snapshot"]
    here = ask(host, end=True)
    there = ask(make_host(), start=True, end=True, snapshot=snapshot)
    assert here.frames == there.frames != []


def test_a_snapshot_at_the_end_is_refused(make_host):
    reply = whole(make_host(), want_snapshot=np.array([True]))
    assert not reply.sent
    assert "ask earlier" in str(reply.errors[0])


def test_a_failing_stage_is_named_and_can_be_tried_again(make_host):
    broken = True

    def flaky(model, inputs, outputs):
        if model == "echo" and broken and inputs["block_index"][0, 0] == 2:
            raise StageFailed("echo: got the error 'boom'")
        return call(model, inputs, outputs)

    host = make_host(flaky)
    first = ask(host, start=True, **portrait(), avatar_audio=audio())
    assert text_of(first.errors[0]).startswith("[INTERNAL] echo: got the error")
    broken = False
    frames = first.frames + ask(host, end=True).frames
    assert frames == whole(host).frames


def test_a_silent_language_model_is_replaced_by_the_built_in_reader(make_host):
    class Broken:
        def describe(self, history):
            raise AffectError("down")

    turns: dict[str, Any] = {
        "transcript": text([{"role": "user", "text": "So sad!", "start_s": 0.0}])
    }
    replies = [
        whole(host, **turns)
        for host in (make_host(affect=Broken()), make_host(affect=ReaderAffect()))
    ]
    assert not replies[0].errors
    assert replies[0].frames == replies[1].frames
