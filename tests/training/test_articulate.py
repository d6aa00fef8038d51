"""What a mouth does at a voice is learned from voices alone, and changes nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from export.onnx import example
from tests.cache import save_track, write_cache
from tests.sizes import restless, tiny
from training import articulate
from training.data import tracks
from training.loop import LoopConfig
from visavis import checkpoint, config
from visavis.contract import contracts
from visavis.nn.echo import Echo, arrays, load_echo

CONFIG = tiny()
FRAMES = 200
SETTINGS = articulate.Articulating(
    size="tiny",
    batch=20,
    report_every=100,
    loop=LoopConfig(steps=100, learning_rate=3e-3, warmup_steps=5, ema_decay=0.95, save_every=100),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Voices that tell in one number a frame how far the mouth opens; the picture tells nothing."""
    return write_cache(tmp_path_factory.mktemp("cache"), write_track)


def write_track(folder, generator):
    size, frames = CONFIG.image_size, CONFIG.block_frames
    aperture = np.convolve(generator.standard_normal(FRAMES), np.ones(3) / 3, "same")
    features = generator.standard_normal(
        (FRAMES // frames, CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    )
    # Feature frames of a block: so many before it, its own, and those of the look-ahead.
    before = CONFIG.audio.feature_frames - frames - CONFIG.lookahead_frames
    spoken = np.pad(aperture, (before, CONFIG.lookahead_frames))
    for block, own in enumerate(features):
        own[:, 0] = 4 * spoken[block * frames :][: len(own)]
    save_track(
        folder,
        np.zeros((FRAMES, size, size, 3), np.uint8),
        features,
        aperture=0.1 + 0.05 * aperture,
        speaking=np.ones(FRAMES, bool),
    )


@pytest.fixture
def begun(tmp_path):
    """A network that was trained without the part, and its checkpoint."""
    torch.manual_seed(0)
    echo = restless(Echo(CONFIG))
    for weight in echo.sdcm_denoiser.articulation_maps.parameters():
        torch.nn.init.zeros_(weight)
    weights = {name: w for name, w in arrays(echo).items() if articulate.PART not in name}
    without = dataclasses.replace(CONFIG, without=(articulate.PART,))
    return echo, checkpoint.save(tmp_path / "begun", "echo", without, weights)


def test_it_reads_in_strange_voices_how_far_mouths_open(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(config.SIZES, "tiny", tiny)
    folder = articulate.train(cache, tmp_path, tmp_path / "run", SETTINGS)
    held_out = tracks(cache, "test")
    found = articulate.report(load_echo(folder), held_out)
    assert found["aperture_r_worst"] > 0.8 > articulate.report(Echo(CONFIG), held_out)["aperture_r"]
    logged = checkpoint.load(folder).manifest["metrics"]
    assert logged["aperture_r"] == pytest.approx(found["aperture_r"], abs=1e-4)


def test_a_network_without_it_is_given_it_and_does_what_it_did(cache, begun, tmp_path):
    echo, start = begun
    folder = articulate.train(cache, tmp_path, tmp_path / "run", SETTINGS, start=start)
    learned = load_echo(folder)
    assert learned.config == CONFIG
    known, found = echo.state_dict(), learned.state_dict()
    changed = {name for name in known if not torch.equal(known[name], found[name])}
    assert all(articulate.PART in name for name in changed)

    given = {spec.name: example(spec, 2) for spec in contracts(CONFIG)["sdcm_denoiser"].inputs}
    denoise = learned.sdcm_denoiser
    with torch.no_grad():
        before = echo.sdcm_denoiser.eval()(*given.values())
        torch.testing.assert_close(denoise(*given.values()), before, rtol=0, atol=0)
        torch.nn.init.ones_(denoise.articulation_maps.shift)
        assert not torch.allclose(denoise(*given.values()), before)
        given["condition_mask"][:, 0] = 0  # without a voice there is nothing to read
        silent = [network.sdcm_denoiser(*given.values()) for network in (echo, learned)]
    torch.testing.assert_close(*silent, rtol=0, atol=0)
