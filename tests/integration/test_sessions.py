"""Conversations with a real server."""

import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tritonclient.grpc as grpc

from export.rehearsal import Models, conversation
from tests.integration.conftest import CONFIG, FREE, sound, video
from tests.integration.stream import Stream, new_id, text
from visavis.contract import contracts
from visavis.serving.server import Server

FRAMES = 38
TURNS = [
    {"role": "user", "text": "I am so sad, my dog died.", "start_s": 0.2},
    {"role": "avatar", "text": "Oh no, I am sorry!", "start_s": 0.9},
]
OPTIONS = {
    "seed": 7,
    "num_steps": 3,
    "audio_guidance_scale": 2.0,
    "user_guidance_scale": 1.5,
    "image_format": "raw",
    "user_audio": True,
    "user_video": True,
}


@pytest.fixture
def stream(server):
    with Stream(server.grpc_url) as opened:
        yield opened


def signals(seed=0):
    """Everything of a two-sided conversation."""
    return {
        "avatar_audio": sound(FRAMES, seed),
        "user_audio": sound(FRAMES, seed + 1),
        "user_video": video(FRAMES, seed + 2),
    }


def pieces(whole, count):
    """`whole` in `count` pieces of uneven length."""
    parts = [{} for _ in range(count)]
    for name, array in whole.items():
        cuts = [len(array) * k // count + 3 * k % 7 for k in range(1, count)]
        for part, piece in zip(parts, np.split(array, cuts), strict=True):
            part[name] = piece
    return parts


def talk_once(stream, portrait, seed=0, options=OPTIONS, **more):
    """The answer to a whole conversation in one request; `more` adds to its signals."""
    return stream.ask(
        new_id(),
        start=True,
        end=True,
        options=text(options),
        transcript=text(TURNS),
        **portrait,
        **(signals(seed) | more),
    )


@pytest.fixture
def one_pass(stream, portrait):
    """The frames of a conversation in one request."""

    def talk(seed=0, options=OPTIONS, **more):
        answer = talk_once(stream, portrait, seed, options, **more)
        assert answer.error is None
        assert sorted(answer.frames) == list(range(FRAMES))
        return answer.frames

    return talk


def test_the_server_gives_what_the_networks_give_in_process(repository, one_pass, portrait):
    expected = conversation(
        Models(repository), portrait, signals(), json.dumps(OPTIONS), json.dumps(TURNS)
    )
    assert one_pass() == expected


@pytest.mark.parametrize("count", [2, 9])
def test_any_chunking_gives_the_frames_of_one_pass(stream, portrait, one_pass, count):
    session_id, frames = new_id(), {}
    opened = stream.ask(session_id, start=True, options=text(OPTIONS), **portrait)
    assert (opened.error, opened.frames) == (None, {})
    first, *rest = pieces(signals(), count)
    frames |= stream.ask(session_id, **first, transcript=text(TURNS)).frames
    for piece in rest:
        frames |= stream.ask(session_id, **piece).frames
    frames |= stream.ask(session_id, end=True).frames
    assert frames == one_pass()


def test_the_user_as_jpegs_is_the_user_as_their_values(stream, portrait):
    voices, pictures = signals(), video(FRAMES, 2)
    images = [simplejpeg.encode_jpeg(picture) for picture in pictures]
    values = np.stack([simplejpeg.decode_jpeg(image) for image in images])

    def talk(**faces):
        start = {"start": True, "end": True, "options": text(OPTIONS), **portrait}
        answer = stream.ask(new_id(), **start, **{**voices, **faces})
        assert answer.error is None
        return answer.frames

    voices.pop("user_video")
    frames = talk(user_images=np.array(images, np.object_))
    assert len(frames) == FRAMES
    assert frames == talk(user_video=values)


def test_seeds_repeat_and_differ(one_pass):
    assert one_pass() == one_pass()
    assert one_pass() != one_pass(options={**OPTIONS, "seed": 8})


def test_every_signal_reaches_the_frames(stream, portrait, one_pass):
    plain = one_pass()
    for name, array in signals().items():
        changed = array.copy()
        changed[: len(array) // 2] = 0
        answer = talk_once(stream, portrait, 0, OPTIONS, **{name: changed})
        assert answer.frames != plain, name


def test_two_interleaved_sessions_equal_two_separate_ones(server, portrait, one_pass):
    expected = [one_pass(seed=0), one_pass(seed=50)]
    ids, frames = [new_id(), new_id()], [{}, {}]
    parts = [pieces(signals(seed), 6) for seed in (0, 50)]
    with Stream(server.grpc_url) as one, Stream(server.grpc_url) as two:
        streams = (one, two)
        for stream, session_id in zip(streams, ids, strict=True):
            stream.send(
                session_id, start=True, options=text(OPTIONS), transcript=text(TURNS), **portrait
            )
        for turn in range(6):
            for stream, session_id, part in zip(streams, ids, parts, strict=True):
                stream.send(session_id, **part[turn], end=turn == 5)
        for stream, received in zip(streams, frames, strict=True):
            for _ in range(7):
                answer = stream.receive()
                assert answer.error is None
                received |= answer.frames
    assert frames == expected


def test_a_crowd_of_sessions_changes_nothing(server, portrait, one_pass):
    """All speak at once, in threads of the server; whatever they share must bear it."""

    def talk(_):
        with Stream(server.grpc_url) as stream:
            return talk_once(stream, portrait)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(talk, range(24)))
    assert [answer.error for answer in answers] == [None] * 24
    expected = one_pass()
    assert all(answer.frames == expected for answer in answers)


BAD = [
    ({"avatar_audio": np.full(640, np.nan, np.float32)}, "[INVALID_ARG] avatar_audio: got 640"),
    ({"avatar_audio": np.full(640, 9e3, np.float32)}, "divide int16 by 32768"),
    ({"avatar_audio": np.zeros((1, 640), np.float32)}, "unexpected shape for input"),
    ({"user_video": np.zeros((2, 8, 8, 3), np.uint8)}, "unexpected shape for input"),
    ({"user_images": np.array([b"x"], np.object_)}, "[INVALID_ARG] user_images[0]: got 1"),
    ({"avatar_audio": np.zeros(640)}, "expects 'FP32'"),
    ({"options": text({"seed": 1})}, "[INVALID_ARG] options: got it where"),
    ({"transcript": text([{"role": "cat"}])}, "[INVALID_ARG] transcript[0]"),
    ({"transcript": np.array([b"{"], np.object_)}, "[INVALID_ARG] transcript: got Expecting"),
]


def test_bad_input_is_refused_and_disturbs_nobody(server, stream, portrait, one_pass):
    """The same session and a neighbour both give the frames of an undisturbed run."""
    expected, neighbours = one_pass(seed=0), one_pass(seed=50)
    session_id, other_id, frames, other_frames = new_id(), new_id(), {}, {}
    parts, other_parts = (pieces(signals(seed), len(BAD)) for seed in (0, 50))
    start = {"start": True, "options": text(OPTIONS), "transcript": text(TURNS), **portrait}
    with Stream(server.grpc_url) as other:
        stream.ask(session_id, **start)
        other.ask(other_id, **start)
        for part, other_part, (bad, message) in zip(parts, other_parts, BAD, strict=True):
            other.send(other_id, **other_part)
            refused = stream.ask(session_id, **bad)
            assert message in (refused.error or "")
            assert not refused.frames
            frames |= stream.ask(session_id, **part).frames
            other_frames |= other.receive().frames
        frames |= stream.ask(session_id, end=True).frames
        other_frames |= other.ask(other_id, end=True).frames
    assert frames == expected
    assert other_frames == neighbours


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"options": text({"sed": 1})}, "[INVALID_ARG] options: got unknown keys sed"),
        (
            {"options": text({"expects": {"image_size": 512}})},
            "expected 32, which this server runs",
        ),
        ({"region_centers": np.full((2, 2), np.nan, np.float32)}, "4 values that are not finite"),
        ({"region_centers": np.full((2, 2), 16.0, np.float32)}, "divide pixels"),
        ({"portrait": np.zeros((16, 16, 3), np.uint8)}, "Expected [32,32,3], got [16,16,3]"),
        ({"snapshot": np.zeros(99, np.uint8)}, "portrait and snapshot not together"),
    ],
)
def test_a_bad_start_is_refused(stream, portrait, tensors, message):
    answer = stream.ask(new_id(), start=True, **{**portrait, **tensors})
    assert message in (answer.error or "")


def test_a_session_must_be_started_first(stream, portrait):
    answer = stream.ask(new_id(), avatar_audio=sound(10, 0))
    assert "must specify the START flag" in (answer.error or "")
    session_id = new_id()
    stream.ask(session_id, start=True, options=text({"sed": 1}), **portrait)
    answer = stream.ask(session_id, avatar_audio=sound(10, 0))
    assert (answer.error or "").startswith("[NOT_FOUND] session: got the unknown id")


def test_a_snapshot_goes_on_bit_for_bit_on_another_server(repository, stream, portrait, one_pass):
    first, second = pieces(signals(), 2)
    session_id = new_id()
    here = stream.ask(
        session_id,
        start=True,
        options=text(OPTIONS),
        transcript=text(TURNS),
        want_snapshot=np.array([True]),
        **portrait,
        **first,
    )
    assert here.snapshot is not None
    snapshot = np.frombuffer(here.snapshot, np.uint8)
    damaged = snapshot.copy()
    damaged[-9] ^= 1
    refused = stream.ask(new_id(), start=True, snapshot=damaged)
    assert "[INVALID_ARG] snapshot: got bytes whose checksum differs" in (refused.error or "")
    with (
        Server(repository, ports=FREE, max_sessions=64, stop_timeout_s=2) as fresh,
        Stream(fresh.grpc_url) as there,
    ):
        rest = there.ask(session_id, start=True, end=True, snapshot=snapshot, **second)
    assert here.frames | rest.frames == one_pass()


def test_a_cancelled_stream_stops_and_its_session_goes_on(server, stream, portrait):
    """As when the user cuts the avatar short, or the connection breaks."""
    frames, audio = 1500, sound(1500, 0)
    options = text({"num_steps": 8, "image_format": "raw"})
    statistics = grpc.InferenceServerClient(server.grpc_url)

    def blocks_made():
        found: Any = statistics.get_inference_statistics("echo", as_json=True)
        return int(found["model_stats"][0].get("inference_count", 0))

    before, session_id = blocks_made(), new_id()
    with Stream(server.grpc_url) as leaving:
        leaving.send(session_id, start=True, options=options, avatar_audio=audio, **portrait)
        leaving.arrived.get(timeout=30)
        leaving.cancel()
    rest = stream.ask(session_id, want_snapshot=np.array([True]))
    made = blocks_made() - before
    statistics.close()
    assert rest.error is None
    assert rest.snapshot is not None
    last = (frames - CONFIG.lookahead_frames) // CONFIG.block_frames
    assert max(rest.frames) + 1 == last * CONFIG.block_frames
    assert made == last  # no block was made twice
    assert len(rest.frames) > frames // 2  # most had not been made when the stream was left


def test_health_and_metrics_are_there(server, one_pass):
    client = grpc.InferenceServerClient(server.grpc_url)
    assert client.is_server_ready()
    assert all(client.is_model_ready(name) for name in contracts(CONFIG))
    client.close()
    one_pass()
    with urllib.request.urlopen(server.metrics_url) as page:
        metrics = page.read().decode()
    for name in (
        "visavis_open_sessions",
        "visavis_refused_sessions_total",
        "visavis_block_seconds_bucket",
        "visavis_answer_seconds_bucket",
        "visavis_missed_deadlines_total",
        "nv_inference_count",
    ):
        assert f"{name}{{" in metrics


def test_the_dashboard_shows_metrics_that_exist(server, one_pass):
    one_pass()
    metrics = ""
    for url in (server.metrics_url, server.watchdog_metrics_url):
        with urllib.request.urlopen(url) as page:
            metrics += page.read().decode()
    dashboard = (Path(__file__).parents[2] / "docs" / "grafana.json").read_text()
    shown = set(re.findall(r"\b(?:visavis|nv)_[a-z_]+", dashboard))
    assert len(shown) > 8
    assert [name for name in shown if not re.search(rf"\n{name}[{{ ]", metrics)] == []
