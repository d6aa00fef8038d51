"""What a network predicts for the decoder to learn from."""

import numpy as np
import torch

from tests.training.whole_track import CONFIG, track
from training import talks
from training.talks import portraits, talks_of
from visavis.nn.echo import Echo


def test_a_prediction_is_painted_with_the_portrait_it_was_made_under(tmp_path):
    torch.manual_seed(0)
    whole = track(tmp_path)
    found = talks_of(Echo(CONFIG), [whole], tmp_path / "predictions")
    assert len(found.predicted[0]) == len(whole.latents)
    assert len(set(portraits(whole))) > 1
    # An untrained avatar is its own portrait.
    _, latents = found.draw(32)
    assert len(np.unique(latents[:, 0], axis=0)) > 1
    np.testing.assert_allclose(latents[:, 1], latents[:, 0], atol=2e-2, rtol=1e-2)


def test_a_network_goes_on_from_what_it_made_and_now_and_then_from_the_truth(tmp_path, monkeypatch):
    made, given = 1000.0, []

    def denoise_at_once(echo, noise, batch, previous, conditions):
        given.append(float(previous.abs().max()))
        return torch.full_like(batch.x_0, made)

    monkeypatch.setattr(talks, "denoise_at_once", denoise_at_once)
    monkeypatch.setattr(talks, "AGAIN_TRUE", 3)
    talks_of(Echo(CONFIG), [track(tmp_path)], tmp_path / "predictions")
    assert len(given) > 3
    for block, largest in enumerate(given):
        assert (largest > made / 2) == (block % 3 > 0)
