"""What a network predicts for the decoder to learn from."""

import numpy as np
import torch

from tests.training.whole_track import CONFIG, track
from training.talks import portraits, talks_of
from visavis.nn.echo import Echo


def test_a_prediction_is_painted_with_the_portrait_it_was_made_under(tmp_path):
    torch.manual_seed(0)
    whole = track(tmp_path)
    talks = talks_of(Echo(CONFIG), [whole], tmp_path / "predictions")
    assert len(talks.predicted[0]) == len(whole.latents)
    assert len(set(portraits(whole))) > 1
    # An untrained avatar is its own portrait.
    _, latents = talks.draw(32)
    assert len(np.unique(latents[:, 0], axis=0)) > 1
    np.testing.assert_allclose(latents[:, 1], latents[:, 0], atol=2e-2, rtol=1e-2)
