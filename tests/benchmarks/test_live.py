"""Conversations at live pace: what is due when, and what a late server does to the figures."""

import itertools
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from visavis_client import Client, FakeTransport

from benchmarks.live import Talk, latencies
from benchmarks.shapes import SHAPES
from tests.client.in_process_server import InProcessServer
from tests.fakes.talk import noise
from visavis.config import SAMPLES_PER_FRAME

SIZE, BLOCK, FRAMES = 32, 5, 40


@pytest.fixture
def talk() -> Talk:
    return noise(SIZE, FRAMES)


def test_a_talk_goes_round_and_round(talk):
    chunks = list(itertools.islice(talk.chunks(BLOCK), 3 * FRAMES // BLOCK))
    audio = np.concatenate([chunk.avatar_audio for chunk in chunks])
    again = np.tile(talk.avatar_audio, 4)[: len(audio)]
    np.testing.assert_array_equal(audio, again)
    video = np.concatenate([chunk.user_video for chunk in chunks])
    np.testing.assert_array_equal(video, np.tile(talk.user_video, (3, 1, 1, 1))[: len(video)])
    turns = [turn.start_s for chunk in chunks for turn in chunk.turns]
    assert turns == pytest.approx([0.5, 2.1, 3.7])


def test_a_block_has_what_it_needs_and_nothing_of_the_future(talk):
    (first, second, *_) = itertools.islice(talk.chunks(BLOCK), 4)
    assert len(first.avatar_audio) > BLOCK * SAMPLES_PER_FRAME and not len(first.user_audio)
    assert len(second.user_audio) == BLOCK * SAMPLES_PER_FRAME
    assert len(second.user_video) == BLOCK


class Clock:
    """Time that passes in sleep, and by `work_s` whenever something is sent."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


def live(talk, monkeypatch, work_s):
    """The latencies of a server that takes so long for each request."""
    clock = Clock()
    usual = FakeTransport(image_size=SIZE, block_frames=BLOCK).respond

    def slowly(request):
        clock.now_s += 0.0 if request.start else work_s
        return usual(request)

    monkeypatch.setattr("visavis_client._client.perf_counter", clock)
    transport = FakeTransport(image_size=SIZE, block_frames=BLOCK, answer=slowly)
    with Client(transport=transport) as client:
        session = client.session(portrait=talk.portrait, user_audio=True, user_video=True)
        chunks = itertools.islice(talk.chunks(BLOCK), 6)
        found = list(latencies(session, chunks, 0.2, clock=clock, sleep=clock.sleep, finish=False))
        session.close()
    return found


def test_a_server_in_time_has_its_own_latency(talk, monkeypatch):
    assert live(talk, monkeypatch, 0.15) == pytest.approx([0.15] * 6)


def test_a_late_server_is_not_waited_for(talk, monkeypatch):
    found = live(talk, monkeypatch, 0.25)
    assert found == pytest.approx([0.25, 0.3, 0.35, 0.4, 0.45, 0.5])


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_reach_what_was_asked_for_and_no_more(name):
    counts = [SHAPES[name](t, 20, 60.0) for t in np.linspace(0, 59.9, 200)]
    assert max(counts) == 20 and min(counts) >= 1


def test_shapes_are_what_their_names_say():
    at = {name: [shape(t, 10, 100.0) for t in (0, 30, 50, 90)] for name, shape in SHAPES.items()}
    assert at["soak"] == [10] * 4
    assert at["step"] == [2, 4, 6, 10]
    assert at["ramp"] == [1, 4, 7, 10]
    assert at["spike"] == [1, 1, 10, 1]


# Looked for and not imported: importing locust makes gevent's of all threads of this process.
@pytest.mark.skipif(find_spec("locust") is None, reason="locust comes with visavis[bench]")
def test_locust_runs_conversations_and_keeps_every_sample(tmp_path):
    server = InProcessServer()
    try:
        command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--headless"]
        options = f"-u 3 -r 3 -t 4s --talk-s 1 --shape step --host {server.url}".split()
        files = ["--samples", str(tmp_path / "samples.jsonl"), "--csv", str(tmp_path / "load")]
        run = subprocess.run([*command, *options, *files], capture_output=True, text=True)
    finally:
        server.stop()
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    kinds = {(sample["type"], sample["name"]) for sample in samples}
    assert {("start", "first frame"), ("block", "latency"), ("stop", "barge-in")} <= kinds, run
    assert not [sample for sample in samples if sample["type"] == "error"]
    assert (tmp_path / "load_stats.csv").exists()
    assert sum(request.start for request in server.requests) >= 3
