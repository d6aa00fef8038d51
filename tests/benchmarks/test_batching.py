"""Ways of sharing batches are what they are called, in the configs and on a real server."""

import pytest
from visavis_client import Portrait

from benchmarks.batching import DENOISER, SAMPLER, WAYS, Sample, measured, summary, written
from benchmarks.live import Talk
from benchmarks.unwatched import served
from export.repository import Cores, write
from tests.fakes.networks import write_networks
from tests.integration.conftest import CONFIG, portrait, sound, video  # noqa: F401


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batching")
    write(folder / "all", CONFIG, Cores(threads=1))
    write_networks(folder / "all", CONFIG)
    return folder


@pytest.fixture
def talk(portrait):  # noqa: F811
    face = Portrait(portrait["portrait"], portrait["region_centers"])
    return Talk(face, sound(50, 0), sound(50, 1), video(50, 2), ())


@pytest.mark.parametrize(
    ("way", "gathers", "side_by_side"),
    [
        ("lock-step", (True, True), False),
        ("dynamic", (False, True), True),
        ("side by side", (False, False), True),
        ("one by one", (False, False), False),
    ],
)
def test_a_way_is_written_into_the_configs(repository, tmp_path, way, gathers, side_by_side):
    copy = written(repository / "all", way, 24, tmp_path)
    configs = [(copy / model / "config.pbtxt").read_text() for model in (SAMPLER, DENOISER)]
    assert tuple("dynamic_batching" in config for config in configs) == gathers
    assert ("count: 8" in configs[0]) == side_by_side
    assert 'rows_per_pass" value: { string_value: "24"' in configs[1]


def test_blocks_of_several_conversations_share_batches_in_lock_step(repository, tmp_path, talk):
    copy = written(repository / "all", "lock-step", 1, tmp_path)
    with served(copy, max_sessions=8) as (_, client):
        sample = measured(client, "lock-step", talk, sessions=6, num_steps=2, seconds=2.0)
    assert sample.batch > 1 and sample.frames_per_second > 0


def test_a_batch_is_one_row_where_nothing_is_shared(repository, tmp_path, talk):
    copy = written(repository / "all", "side by side", 1, tmp_path)
    with served(copy, max_sessions=8) as (_, client):
        sample = measured(client, "side by side", talk, sessions=3, num_steps=2, seconds=2.0)
    assert sample.batch == 1


def test_a_summary_is_of_medians_in_order():
    samples = [
        Sample(way, sessions, 1, speed, 1.0)
        for way, speeds in (("lock-step", (3.0, 1.0, 2.0)), ("dynamic", (5.0, 6.0, 4.0)))
        for speed in speeds
        for sessions in (1, 4)
    ]
    found = [(row["way"], row["sessions"], row["frames_per_second"]) for row in summary(samples)]
    assert found == [("lock-step", 1, 2), ("dynamic", 1, 5), ("lock-step", 4, 2), ("dynamic", 4, 5)]
    assert set(WAYS) >= {row["way"] for row in summary(samples)}
