"""Weights on the line through two networks, and nowhere else."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.sizes import tiny
from training.further import go_further
from visavis import checkpoint
from visavis.nn.echo import Echo, arrays, load_echo


@pytest.fixture
def folders(tmp_path):
    """Before and after."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        weights = arrays(Echo(tiny()))
        found.append(checkpoint.save(tmp_path / str(seed), "echo", tiny(), weights, step=seed))
    return found


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_what_was_learned_is_taken_so_many_times(folders, tmp_path, ratio):
    before, after = (checkpoint.load(folder).weights for folder in folders)
    out = go_further(folders[0], folders[1], tmp_path / "out", ratio)
    for name, weight in checkpoint.load(out).weights.items():
        learned = after[name] - before[name]
        np.testing.assert_allclose(weight, before[name] + ratio * learned, atol=1e-6)
    assert load_echo(out).config == tiny()
    assert checkpoint.load(out).manifest["ratio"] == ratio


def test_a_network_of_another_shape_is_refused(folders, tmp_path):
    wider = dataclasses.replace(tiny(), denoiser=dataclasses.replace(tiny().denoiser, mlp_ratio=3))
    other = checkpoint.save(tmp_path / "other", "echo", wider, arrays(Echo(wider)))
    with pytest.raises(ValueError, match=r"after training, expected .* as before"):
        go_further(folders[0], other, tmp_path / "out", 1.5)
