"""A smaller size takes over what a larger one knows: latents, and a network to begin with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sizes import restless, tiny
from training.data import pictures
from training.loop import LoopConfig
from training.shrink import fitted, kept_blocks, shrunk
from training.vae import VAETraining
from training.vae_smaller import SmallerVAETraining, held_out_pairs, reduced, train
from visavis import checkpoint, config
from visavis.config import EchoConfig
from visavis.nn.echo import Echo, arrays, load_vae
from visavis.nn.vae import VAE

LARGER = tiny()


def smaller() -> EchoConfig:
    """Half of the pixels a side, a quarter of the tokens, and one block less."""
    return replace(
        LARGER,
        name="smaller",
        image_size=16,
        vae=replace(LARGER.vae, unshuffle=2, shuffle=2),
        denoiser=replace(LARGER.denoiser, patch=4, depth=1),
    )


@pytest.fixture
def larger() -> Echo:
    torch.manual_seed(0)
    return restless(Echo(LARGER)).eval()


@pytest.mark.parametrize(
    ("depth", "smaller_depth", "kept"), [(6, 4, [0, 2, 3, 5]), (6, 6, [0, 1, 2, 3, 4, 5])]
)
def test_blocks_are_kept_evenly(depth, smaller_depth, kept):
    assert kept_blocks(depth, smaller_depth) == kept


def test_a_size_shrunk_to_itself_is_itself(larger):
    same = shrunk(larger, LARGER).state_dict()
    assert all(torch.equal(weight, same[name]) for name, weight in larger.state_dict().items())


def test_a_wider_token_begins_as_the_mean_of_those_it_replaces(larger):
    planes = torch.randn(2, LARGER.denoiser.stem_width, 4, 4)
    small = shrunk(larger, smaller()).sdcm_denoiser
    tokens = larger.sdcm_denoiser.to_tokens(planes).flatten(2).mean(2)
    assert torch.allclose(small.to_tokens(planes).flatten(1), tokens, atol=1e-5)
    mean = larger.sdcm_denoiser.position.mean(0, keepdim=True)
    assert torch.allclose(small.position, mean, atol=1e-6)


def test_what_a_wider_token_says_goes_to_all_of_its_places(larger):
    h = torch.randn(3, 1, LARGER.denoiser.width)
    decoded = []
    for network, tokens in (
        (larger.sdcm_denoiser, h.expand(3, 4, -1)),
        (shrunk(larger, smaller()).sdcm_denoiser, h),
    ):
        grid, patch = network.config.token_grid, network.config.denoiser.patch
        planes = network.from_tokens(tokens).transpose(1, 2).unflatten(2, (grid, grid))
        decoded.append(torch.nn.functional.pixel_shuffle(planes, patch))
    assert torch.allclose(*decoded, atol=1e-5)


def test_means_are_over_squares_of_neighbours():
    position = torch.arange(16.0)[:, None]  # a grid of 4 by 4
    config = replace(LARGER, latent_size=4, denoiser=replace(LARGER.denoiser, patch=1))
    found = fitted("sdcm_denoiser.position", position, config, 2)
    assert found[:, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_a_weight_that_cannot_be_made_to_fit_is_named(larger):
    narrow = replace(smaller(), denoiser=replace(smaller().denoiser, stem_width=4))
    with pytest.raises(ValueError, match=r"sdcm_denoiser\.stem.*got .* of tiny, expected"):
        shrunk(larger, narrow)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Pictures of a few people, each of one colour, and the larger size's VAE."""
    monkeypatch.setitem(config.SIZES, "smaller", smaller)
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        folder = tmp_path / "cache" / split / "stills"
        folder.mkdir(parents=True)
        for person in range(4):
            colours = generator.integers(0, 256, (6, 1, 1, 3), np.uint8)
            frames = np.broadcast_to(colours, (6, 32, 32, 3))
            np.save(folder / f"person_{person:06d}.npy", frames)
    torch.manual_seed(0)
    vae = VAE(LARGER)
    vae.latent_std.fill_(0.5)
    checkpoint.save(tmp_path / "larger", "vae", LARGER, arrays(vae))
    return tmp_path


def settings(steps: int) -> SmallerVAETraining:
    loop = LoopConfig(steps=steps, learning_rate=3e-3, warmup_steps=1, ema_decay=0.8, save_every=20)
    vae = VAETraining(size="smaller", batch=4, details=2, perceptual_details=1, loop=loop)
    return SmallerVAETraining(agreement_weight=1.0, vae=vae)


def test_a_smaller_encoder_comes_to_see_what_the_larger_one_sees(cache):
    larger = load_vae(cache / "larger")
    torch.manual_seed(0)
    frames = torch.rand(8, 2, 3, 1, 1).expand(-1, -1, -1, 32, 32)
    theirs = larger.encode(frames.flatten(0, 1))

    def apart(vae: VAE) -> float:
        with torch.no_grad():
            return float((vae.encode(reduced(frames, 16).flatten(0, 1)) - theirs).pow(2).mean())

    untrained = VAE(smaller())
    untrained.latent_std.fill_(0.5)
    trained = load_vae(train(cache / "cache", cache / "larger", cache / "run", settings(40)))
    assert apart(trained) < 0.3 * apart(untrained)
    assert torch.equal(trained.latent_std, larger.latent_std)
    manifest = checkpoint.load(cache / "run/checkpoint", "vae").manifest
    assert manifest["encoder_of"] == checkpoint.load(cache / "larger", "vae").manifest["sha256"]


def test_pictures_are_held_out_at_the_smaller_size(cache):
    pairs = held_out_pairs(pictures(cache / "cache", "test"), settings(1), 5)
    assert pairs.shape == (5, 2, 3, 16, 16)


def test_latents_of_another_shape_are_refused(cache, monkeypatch):
    other = replace(smaller(), latent_channels=2)
    monkeypatch.setitem(config.SIZES, "smaller", lambda: other)
    with pytest.raises(ValueError, match=r"got latents \(2, 4, 4\).*expected \(4, 4, 4\)"):
        train(cache / "cache", cache / "larger", cache / "run", settings(1))
