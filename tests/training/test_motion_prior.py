"""The prior draws motion as it is distributed, and as lively."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.cache import save_unseen_track, write_cache
from tests.sizes import tiny
from training import motion_prior
from training.data import Track, eyes, tracks
from training.loop import LoopConfig
from training.motion_prior import (
    MotionTraining,
    fit_codes,
    from_origin,
    nearest_codes,
    report,
    situations,
)
from visavis import checkpoint
from visavis.motion import NAMES, SCALES
from visavis.nn.echo import Echo, arrays, load_echo

CONFIG = tiny()
FRAMES = 400
LOOP = LoopConfig(steps=900, learning_rate=3e-3, warmup_steps=10, save_every=900, ema_decay=0.98)
SETTINGS = MotionTraining(batch=64, report_every=1000, loop=LOOP)


def write_track(folder, generator):
    """A head that turns slowly and at random, and lids that close now and then."""
    slow = generator.standard_normal((FRAMES, 3))
    for n in range(1, FRAMES):
        slow[n] = 0.9 * slow[n - 1] + np.sqrt(1 - 0.9**2) * slow[n]
    blinks = (generator.random(FRAMES) < 0.04).astype(np.float32)
    lids = np.convolve(blinks, [0.6, 1.0, 0.6], "same").clip(max=1)
    save_unseen_track(
        folder,
        generator,
        CONFIG,
        generator.standard_normal((FRAMES, *CONFIG.latent_shape)),
        pose=slow * SCALES[:3],
        eyes=np.stack([lids, np.zeros(FRAMES), np.zeros(FRAMES)], axis=1),
        emotion=np.full(FRAMES, "neutral"),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), write_track, train=4, test=2)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A network that knows nothing."""
    monkeypatch.setattr(motion_prior, "cache_latents", lambda *_: None)
    torch.manual_seed(0)
    return checkpoint.save(tmp_path / "start", "echo", CONFIG, arrays(Echo(CONFIG)))


def test_codes_are_the_motions_that_were_seen(cache, start):
    echo = load_echo(start)
    known = situations(echo, tracks(cache, "train")[0])
    fit_codes(echo.motion_prior, known)
    nearest = nearest_codes(echo.motion_prior, known)
    for name, codes in echo.motion_prior.codes.items():
        true, ours = from_origin(known, name), codes[nearest[name]]
        assert float((true - ours).square().mean()) < 0.2 * float(true.square().mean()) + 1e-9


def test_strangers_heads_become_lively_and_nothing_else_has_changed(cache, start, tmp_path):
    folder = motion_prior.train(cache, tmp_path, start, tmp_path / "run", SETTINGS)
    strangers = tracks(cache, "test")

    def liveliness(checkpoint_folder):
        echo = load_echo(checkpoint_folder)
        return report(echo.motion_prior, [situations(echo, track) for track in strangers])

    before, after = liveliness(start), liveliness(folder)
    assert before["spread"] == before["speed"] == before["shut"] == 0
    assert all(0.5 < after[name] < 1.5 for name in ("spread", "speed", "shut"))
    assert after["surprise"] < before["surprise"]
    known, learned = load_echo(start).state_dict(), load_echo(folder).state_dict()
    changed = {name for name in known if not torch.equal(known[name], learned[name])}
    assert changed and all(name.startswith("motion_prior.") for name in changed)


def test_who_has_no_partner_is_in_a_situation_too(cache, start):
    echo = load_echo(start)
    track = tracks(cache, "test")[0]
    alone = situations(echo, dataclasses.replace(track, partner=track.partner / "nobody"))
    blocks = FRAMES // CONFIG.block_frames
    assert alone.motion.shape == (blocks, CONFIG.block_frames, len(NAMES))
    assert not alone.user_tokens.any()
    torch.testing.assert_close(alone.previous_motion[1:], alone.motion[:-1])


def test_eyes_that_nobody_knows_keep_still(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    np.savez(folder / "truth.npz", pose=np.ones((7, 3)))
    motion = Track(folder, folder).motion
    assert motion.shape == (7, len(NAMES))
    assert motion[:, :3].all() and not motion[:, 3:].any()


def test_lids_and_gaze_are_read_from_the_curves():
    names = np.array(
        [f"eye{what}{side}" for side in ("Left", "Right") for what in
         ("Blink", "LookDown", "LookUp", "LookIn", "LookOut")]
    )  # fmt: skip
    curves = np.zeros((3, len(names)), np.float32)
    curves[0, [0, 5]] = 1  # shut
    curves[1, [4, 8]] = 0.5  # to their left: the left eye out, the right one in
    curves[2, [1, 6]] = 0.25  # down
    expected = [[1, 0, 0], [0, 0.5, 0], [0, 0, -0.25]]
    np.testing.assert_allclose(eyes(curves, names), expected)
