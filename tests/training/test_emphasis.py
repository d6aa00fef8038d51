"""A mouth opens as widely as asked: the face is told that many times what is read in the voice."""

import dataclasses

import numpy as np
import pytest
import torch

from export.onnx import example
from tests.sizes import restless, tiny
from training.emphasis import emphasize
from visavis import checkpoint
from visavis.contract import contracts
from visavis.nn.echo import Echo, arrays, load_echo

CONFIG = tiny()


def test_the_face_is_told_a_multiple_of_what_is_read(tmp_path):
    torch.manual_seed(0)
    echo = restless(Echo(CONFIG)).eval()
    plain = checkpoint.save(tmp_path / "plain", "echo", CONFIG, arrays(echo), step=7, metrics={})
    wide = load_echo(emphasize(plain, tmp_path / "wide", 3.0)).eval()
    loud = load_echo(plain).eval()
    with torch.no_grad():
        for weight in loud.sdcm_denoiser.articulation.layers[-1].parameters():
            weight *= 3.0
        given = [example(spec, 2) for spec in contracts(CONFIG)["sdcm_denoiser"].inputs]
        as_trained, asked, expected = (e.sdcm_denoiser(*given) for e in (echo, wide, loud))
    torch.testing.assert_close(asked, expected)
    assert not torch.allclose(asked, as_trained)
    before, after = checkpoint.load(plain), checkpoint.load(tmp_path / "wide")
    assert after.manifest["step"] == 7
    for name, weight in before.weights.items():
        np.testing.assert_array_equal(after.weights[name], weight)


def test_a_network_that_reads_no_voice_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, without=("articulation",))
    folder = checkpoint.save(tmp_path / "plain", "echo", config, arrays(Echo(config)))
    with pytest.raises(ValueError, match=r"without articulation.*training\.articulate"):
        emphasize(folder, tmp_path / "wide", 3.0)
