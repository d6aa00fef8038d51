"""A packed cache, streamed: the same arrays, few at a time, and the same ones at the same step."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

pytest.importorskip("webdataset", reason="the train extra is not installed")

from tests.cache import save_track, write_cache
from tests.sizes import tiny
from training import streaming
from training.batches import batch_of, draw_places
from training.data import tracks
from training.latents import DIGEST_FILE
from training.loop import Loop
from training.streaming import (
    StreamConfig,
    StreamedTracks,
    main,
    own_shards,
    shards_at,
    stream,
    training_pool,
)

CONFIG = tiny()
DIGEST = "1a2b3c4d5e6f"
CONVERSATIONS, PER_SHARD, FRAMES = 7, 2, 20


def write_track(folder, generator):
    blocks = FRAMES // CONFIG.block_frames
    features = (blocks, CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    save_track(
        folder,
        np.zeros((FRAMES, 1, 1, 3), np.uint8),
        generator.standard_normal(features),
        aperture=generator.random(FRAMES),
        speaking=generator.random(FRAMES) > 0.5,
        emotion=np.full(FRAMES, "happy"),
    )
    latents = generator.standard_normal((FRAMES, *CONFIG.latent_shape))
    np.save(folder / "latents.npy", latents.astype(np.float16))
    (folder / DIGEST_FILE).write_text(DIGEST)


@pytest.fixture
def cache(tmp_path):
    return write_cache(tmp_path, write_track, train=CONVERSATIONS, test=0)


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/shards"


@pytest.fixture
def shards(cache, url):
    """The shards of the cache's training split."""
    main(cache / "train", url, per_shard=PER_SHARD)
    return shards_at(url, "train-1a2b3c4d")


class Clock:
    """A run's step."""

    def __init__(self, step=0):
        self.step = step

    def __call__(self):
        return self.step


def names(pool):
    return [track.name for track in pool]


def damage(shard, keep):
    """Cut a shard short; `keep` says where."""
    path = Path(shard.url.removeprefix("file://"))
    content = path.read_bytes()
    path.write_bytes(content[: keep(content)])


def test_streamed_arrays_are_the_caches(cache, shards):
    pool = {track.name: track for track in StreamedTracks(shards, StreamConfig(), Clock())}
    local = tracks(cache, "train")
    assert sorted(pool) == names(local)
    for track in local:
        streamed = pool[track.name]
        for one, other in ((streamed, track), (streamed.user, track.user)):
            assert one.name == other.name and one.blocks == other.blocks
            for array in ("latents", "avatar_features", "user_features"):
                assert getattr(one, array).dtype == np.float16
                np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
            assert one.truth.keys() == other.truth.keys()
            for name, values in other.truth.items():
                np.testing.assert_array_equal(one.truth[name], values)


def test_batches_are_drawn_without_frames(cache, shards):
    pool = StreamedTracks(shards, StreamConfig(), Clock())
    local = {track.name: track for track in tracks(cache, "train")}
    batches = []
    for choice in (pool, [local[name] for name in names(pool)]):
        torch.manual_seed(0)
        places = draw_places(choice, 16, CONFIG, speaking_share=0.5)
        batches.append(batch_of(places, CONFIG, torch.device("cpu")))
    for streamed, read in zip(*(vars(batch).values() for batch in batches), strict=True):
        torch.testing.assert_close(streamed, read, rtol=0, atol=0)
    with pytest.raises(ValueError, match="only what the denoiser learns from is streamed"):
        _ = pool[0].frames


def test_packing_leaves_frames_out_and_goes_on_where_it_stopped(cache, url, shards, capsys):
    files = [Path(shard.url.removeprefix("file://")) for shard in shards]
    assert [file.name for file in files] == [f"train-1a2b3c4d-0000{n}.tar" for n in range(4)]
    content = files[0].read_bytes()
    assert b"conversation_0001.b.latents.npy" in content and b"frames" not in content
    files[0].unlink()
    capsys.readouterr()
    main(cache / "train", url, per_shard=PER_SHARD)
    assert capsys.readouterr().out == "1 shards written\n"
    assert files[0].read_bytes() == content


def test_latents_of_several_vaes_are_not_packed(cache, url):
    folder = cache / "train" / "conversation_0003" / "b"
    (folder / DIGEST_FILE).write_text("another")
    with pytest.raises(ValueError, match=r"\['1a2b3c4d', 'another'\], expected some, all of one"):
        main(cache / "train", url)
    (folder / DIGEST_FILE).unlink()
    with pytest.raises(ValueError, match="finish the cache"):
        main(cache / "train", url)


def test_the_pool_is_small_and_comes_round_to_all(shards):
    clock = Clock()
    pool = StreamedTracks(shards, StreamConfig(held=3, exchange_every=2), clock)
    seen = []
    for clock.step in range(2 * CONVERSATIONS):
        assert len(pool) == len(set(names(pool))) == 2 * 3
        seen.append(names(pool))
    assert seen[::2] == seen[1::2]  # two steps with the same, then another
    assert all(later[:-2] == now[2:] for now, later in zip(seen[::2], seen[2::2], strict=False))
    assert {name for now in seen for name in now} == {
        f"conversation_{n:04d}/{person}" for n in range(CONVERSATIONS) for person in "ab"
    }
    clock.step += 1
    assert names(pool) == seen[0]  # once round
    assert names(pool[::3]) == seen[0][::3]


def test_what_fits_is_read_once(shards, monkeypatch):
    clock = Clock()
    pool = StreamedTracks(shards, StreamConfig(held=CONVERSATIONS, exchange_every=1), clock)
    before = list(pool)
    monkeypatch.setattr(streaming, "samples", lambda *_: pytest.fail("read again"))
    clock.step = 100
    assert all(now is then for now, then in zip(pool, before, strict=True))


def test_a_resumed_pool_equals_an_uninterrupted_one(shards):
    config, clock = StreamConfig(held=3, exchange_every=2), Clock()
    whole = StreamedTracks(shards, config, clock)
    for clock.step in range(40):
        expected = names(whole)
        if clock.step % 7 == 0:
            resumed = StreamedTracks(shards, config, Clock(clock.step))
            assert names(resumed) == expected
            np.testing.assert_array_equal(resumed[0].latents, whole[0].latents)


def test_going_on_opens_no_shard_that_is_over(shards, monkeypatch):
    opened, real = [], streaming.samples
    monkeypatch.setattr(streaming, "samples", lambda urls, c: opened.extend(urls) or real(urls, c))
    assert names(next(stream(shards, 100 * CONVERSATIONS + 5)))[0] == "conversation_0005/a"
    assert opened == [shards[2].url]


def test_processes_read_different_shards(shards):
    read = [own_shards(shards, process, 2, seed=5) for process in range(2)]
    assert [len(own) for own in read] == [2, 2]
    assert {shard.url for own in read for shard in own} == {shard.url for shard in shards}
    assert own_shards(shards, 0, 1, seed=5) != own_shards(shards, 0, 1, seed=6)
    with_too_few = [own_shards(shards[:2], process, 3, seed=5) for process in range(3)]
    assert [len(own) for own in with_too_few] == [1, 1, 2]


def test_training_draws_from_the_cache_or_from_shards_of_its_vae(cache, url, shards, monkeypatch):
    accelerator = SimpleNamespace(process_index=1, num_processes=2)
    run = SimpleNamespace(step=0, accelerator=accelerator, config=SimpleNamespace(seed=0))
    loop, vae = cast(Loop, run), cache / "vae"
    assert training_pool(cache, vae, loop) == tracks(cache, "train")

    monkeypatch.setattr(streaming, "encoder_digest", lambda _: DIGEST)
    pool = training_pool(cache, vae, loop, url, StreamConfig(held=1, exchange_every=5))
    first = names(pool)
    run.step = 5
    assert len(first) == 2 and names(pool) != first

    monkeypatch.setattr(streaming, "encoder_digest", lambda _: "another")
    with pytest.raises(ValueError, match=r"got no train-another\.json, .* pack it: python"):
        training_pool(cache, vae, loop, url)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda content: len(content) // 3, "damaged or breaks off, expected a whole one"),
        (lambda content: content.index(b"conversation_0005.a.l"), r"got \['conversation_0004'\]"),
        (lambda content: content.index(b"conversation_0005.b.t"), "sample conversation_0005 has"),
    ],
    ids=["inside a file", "between conversations", "between files"],
)
def test_a_truncated_shard_is_named(shards, keep, message):
    damage(shards[2], keep)
    with pytest.raises(ValueError, match=rf"shard {shards[2].url}: .*{message}.*pack again"):
        StreamedTracks(shards, StreamConfig(), Clock())


def test_a_shard_damaged_later_stops_training(shards):
    clock = Clock()
    pool = StreamedTracks(shards, StreamConfig(held=2, exchange_every=1), clock)
    damage(shards[2], lambda content: 700)
    with pytest.raises(ValueError, match="delete it and pack again"):
        for clock.step in range(CONVERSATIONS):
            names(pool)
