"""The benchmark's figures follow from its raw samples, and the picture from its film."""

import numpy as np
import pytest

from benchmarks.latency import NETWORKS, Result
from benchmarks.picture import sheet
from visavis.record import environment


def result() -> Result:
    made = Result("tiny", block_frames=5, num_steps=2)
    made.first_frame_s = [0.2, 0.3, 0.9]
    made.frames_per_second = [20.0, 40.0, 50.0]
    made.live_block_latency_s = [0.1] * 98 + [0.2, 0.3]
    made.bare_s = {name: [0.01, 0.02, 0.03] for name in NETWORKS}
    return made


def test_the_summary_follows_from_the_samples():
    summary = result().summary()
    assert summary["first_frame_ms"] == pytest.approx(300)
    assert summary["frames_per_second"] == 40
    assert summary["live_block_p50_ms"] == pytest.approx(100)
    assert summary["live_block_p99_ms"] > 190
    assert summary["block_length_ms"] == 200
    # Five networks, and two passes of the denoiser.
    assert summary["bare_block_ms"] == pytest.approx(7 * 20)
    assert summary["efficiency"] == pytest.approx(0.14 / (5 / 40))


def test_the_environment_says_what_is_needed_to_repeat_a_number():
    found = environment()
    assert {"date", "revision", "processor", "cores", "packages"} <= set(found)
    assert found["cores"]


def test_a_sheet_keeps_order_and_size():
    frames = [np.full((10, 20, 3), n, np.uint8) for n in range(7)]
    picture = sheet(frames, columns=3, rows=2, width=60)
    assert picture.shape == (20, 60, 3)
    assert list(picture[5, ::20, 0]) == [0, 1, 2] and picture[15, -1, 0] == 6
