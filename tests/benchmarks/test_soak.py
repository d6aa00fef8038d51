"""What a long run's figures say, from samples that are known; and that a talk keeps nothing."""

import itertools
import json
import os

import pytest
from visavis_client import BlockTiming, Client, FakeTransport, _exchange

from benchmarks.footprint import footprint, regions
from benchmarks.live import latencies
from benchmarks.report import page
from benchmarks.soak_run import Blocks, Run, change, changes, compared, plot
from tests.benchmarks.test_live import BLOCK, SIZE, Clock, talk  # noqa: F401
from visavis import record
from visavis.serving.server import SHARED_MEMORY

SECONDS, WARM_UP_S = 300.0, 60.0


@pytest.fixture
def run() -> Run:
    """Five minutes in which latency doubles, memory grows by a tenth, and drift by three frames."""
    late = [t >= SECONDS / 2 for t in range(int(SECONDS))]
    session = Blocks(
        [float(t) for t in range(int(SECONDS))],
        [300.0 if after else 150.0 for after in late],
        [8 if after else 5 for after in late],
    )
    memory = [
        {"time_s": float(t), "rss_mb": 1100.0 if t >= 240 else 1000.0, "regions": 10.0}
        for t in range(0, int(SECONDS), 5)
    ]
    processors = [
        {"time_s": float(t), "busy_percent": 80.0, "stolen_percent": 10.0 if t >= 240 else 5.0}
        for t in range(0, int(SECONDS), 5)
    ]
    starts = [(70.0, 100.0), (100.0, 200.0), (200.0, 300.0)]
    errors = [(250.0, "StreamBroken()")]
    return Run(200.0, [session], starts, Blocks(), memory, processors, errors)


def test_the_first_minute_is_compared_with_the_last(run):
    found = run.summary(SECONDS, WARM_UP_S)
    assert found["compared_s"] == [(60.0, 120.0), (240.0, 300.0)]
    assert found["block_ms"] == {"first": 150.0, "last": 300.0, "percent": pytest.approx(100)}
    assert found["drift_frames"]["last"] - found["drift_frames"]["first"] == 3
    assert found["rss_mb"]["percent"] == pytest.approx(10)
    assert found["regions"]["percent"] == 0
    assert (found["busy_percent"]["last"], found["stolen_percent"]["last"]) == (80, 10)
    assert found["missed_in"] == [0, 1] and found["missed"] == 0.5
    assert found["first_frame_ms"] == {"first": 150.0, "last": 300.0, "percent": pytest.approx(100)}
    assert (found["blocks"], found["starts"], found["errors"]) == (300, 3, 1)


def test_a_short_run_is_halved():
    assert compared(30.0, 10.0) == ((10.0, 20.0), (20.0, 30.0))
    assert change([], [1.0]) == {"first": None, "last": None, "percent": None}
    assert change([0.0], [1.0])["percent"] is None


def test_nothing_came_is_not_that_nothing_was_late():
    assert Run(200.0, [Blocks()]).summary(SECONDS, WARM_UP_S)["missed"] == 1


def test_a_long_run_has_its_plot_and_its_section(run, tmp_path):
    summary = run.summary(SECONDS, WARM_UP_S)
    record.write(tmp_path / "soak_tiny.json", "soak", settings={}, summary=summary, raw=[])
    plot(run, SECONDS, "tiny", tmp_path / "soak_tiny.png")
    assert (tmp_path / "soak_tiny.png").stat().st_size > 1000
    found = page(tmp_path)
    assert "300 blocks, 50 % of them late" in found and "| rss_mb | 1000 | 1100 | 10 |" in found
    assert {row["measure"] for row in changes(summary)} >= {"block_ms", "drift_frames", "rss_mb"}
    assert json.loads((tmp_path / "soak_tiny.json").read_text())["benchmark"] == "soak"


def test_a_process_tells_its_memory_and_shared_files():
    found = footprint(os.getpid())
    assert 0 < found.pss_mb <= found.rss_mb
    assert all(path.is_relative_to(SHARED_MEMORY) for path in regions(os.getpid()))


def test_a_talk_may_last_for_ever(talk, monkeypatch):  # noqa: F811
    """However many blocks, no more than the newest are remembered, and each is told once."""
    monkeypatch.setattr(_exchange, "KEPT_TIMINGS", 4)
    clock, blocks, seen = Clock(), 50, []
    monkeypatch.setattr("visavis_client._client.perf_counter", clock)
    transport = FakeTransport(image_size=SIZE, block_frames=BLOCK)
    with Client(transport=transport) as client:
        session = client.session(portrait=talk.portrait, user_audio=True, user_video=True)
        chunks = itertools.islice(talk.chunks(BLOCK), blocks)
        found = list(
            latencies(
                session,
                chunks,
                0.2,
                finish=False,
                look=lambda frame: seen.append(frame.index),
                clock=clock,
                sleep=clock.sleep,
            )
        )
        kept = session.timings
        session.close()
    assert found == pytest.approx([0.0] * blocks)
    assert seen == list(range(blocks * BLOCK))
    assert len(kept) == 4 and isinstance(kept[0], BlockTiming)
