"""The decoder moves the portrait's pixels where its flow says; each row has its own portrait."""

import numpy as np
import torch
import torch.nn.functional as F

from tests.sizes import restless, tiny
from training.latents import decode
from visavis.nn.painter import Painter, moved_by
from visavis.nn.vae import VAE, VAEDecoder, VAEEncoder

CONFIG = tiny()
SIZE = CONFIG.image_size


def test_no_flow_leaves_a_picture_as_it_is():
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(moved_by(images, torch.zeros(2, 2, 8, 8)), images)


def test_a_flow_says_how_many_pixels_away_each_pixel_is_taken_from():
    images = torch.rand(1, 3, 16, 24)
    flow = torch.zeros(1, 2, 8, 12)
    flow[:, 0], flow[:, 1] = 3, -2  # from the right and from above
    expected = F.pad(images, (0, 3, 2, 0), mode="replicate")[..., :16, 3:]
    torch.testing.assert_close(moved_by(images, flow), expected)


def test_at_first_the_portrait_stays_where_it_is():
    portrait = torch.rand(1, 3, SIZE, SIZE)
    latents, reference = torch.randn(2, 1, *CONFIG.latent_shape)
    painted = Painter(CONFIG)(latents, reference, portrait)
    torch.testing.assert_close(painted.moved_portrait, portrait)
    assert not torch.equal(painted.images, portrait)


def test_every_conversation_is_painted_with_its_own_portrait():
    torch.manual_seed(0)
    vae = restless(VAE(CONFIG)).eval()
    served, encoder = VAEDecoder(vae).eval(), VAEEncoder(vae).eval()
    portraits = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    latents = torch.randn(2, 3, *CONFIG.latent_shape)
    with torch.inference_mode():
        reference = encoder(portraits[:, None])[:, 0]
        frames = served(latents, reference, portraits)
    for row, portrait in enumerate(portraits):
        alone = decode(vae, latents[row], portrait.numpy())
        assert np.abs(frames[row].numpy().astype(int) - alone).max() <= 1
    with torch.inference_mode():
        swapped = served(latents, reference, portraits.flip(0))
    assert (swapped != frames).any()
