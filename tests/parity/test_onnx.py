"""An exported file equals its network, and its weights are the checkpoint's own bytes."""

import numpy as np
import onnx
import pytest
import torch

from export.networks import random_networks
from export.onnx import half_precision
from export.parity import compare
from tests.sizes import tiny
from visavis import checkpoint
from visavis.contract import contracts

CONFIG = tiny()
NAMES = [name for name, contract in contracts(CONFIG).items() if contract.kind == "onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_equals_the_network(exported, name):
    networks, paths = exported
    parity = compare(networks[name], paths[name], contracts(CONFIG)[name])
    assert parity.passed, parity


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_once(exported, name):
    _, paths = exported
    model = onnx.load(paths[name], load_external_data=False)
    inside = sum(
        np.prod(w.dims)
        for w in model.graph.initializer
        if w.data_location != onnx.TensorProto.EXTERNAL
    )
    outside = [w for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
    assert outside, "no weight points into the checkpoint"
    total = sum(w.size for w in checkpoint.load(paths[name].parent, name).weights.values())
    constants = 400_000 if name == "audio_encoder" else 5_000  # the Fourier basis is a constant
    assert inside < 0.25 * total + constants


def test_the_checkpoint_brings_the_network_back(exported):
    networks, paths = exported
    found = checkpoint.load(paths["sdcm_denoiser"].parent, "sdcm_denoiser")
    assert found.config == CONFIG
    for name, array in half_precision(networks["sdcm_denoiser"]).items():
        np.testing.assert_array_equal(found.weights[name], array)


def test_the_graph_names_what_the_contract_names(exported):
    _, paths = exported
    for name in NAMES:
        model = onnx.load(paths[name], load_external_data=False)
        contract = contracts(CONFIG)[name]
        assert [i.name for i in model.graph.input] == [s.name for s in contract.inputs]
        assert [o.name for o in model.graph.output] == [s.name for s in contract.outputs]


def test_a_wrong_network_does_not_pass(exported):
    _, paths = exported
    other = random_networks(CONFIG, seed=1)["sdcm_denoiser"]
    assert not compare(other, paths["sdcm_denoiser"], contracts(CONFIG)["sdcm_denoiser"]).passed


def test_a_damaged_checkpoint_is_refused(exported, tmp_path):
    _, paths = exported
    for file in paths["affect_encoder"].parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / checkpoint.WEIGHTS_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="expected 'vae'"):
        checkpoint.load(paths["affect_encoder"].parent, "vae")


def test_parity_is_measured_on_outputs_of_order_one(exported):
    networks, _ = exported
    spec = contracts(CONFIG)["sdcm_denoiser"]
    from export.onnx import example

    with torch.inference_mode():
        x_0 = networks["sdcm_denoiser"](*[example(s, 2) for s in spec.inputs])
    assert 0.1 < x_0.std() < 10
