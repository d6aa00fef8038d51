"""Weights of eight bits: that there are some, that they are near, and whose they are."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.int8 import NETWORKS, TOLERANCE, quantise, relative_error
from export.onnx import example
from tests.sizes import tiny
from visavis import checkpoint
from visavis.contract import contracts
from visavis.serving.network import INT8_FILE, WEIGHTS_KEY, Network

CONFIG = tiny()


@pytest.fixture(scope="module")
def versions(exported, tmp_path_factory):
    """The version folders of some exported networks, to write into."""
    _, paths = exported
    folder = tmp_path_factory.mktemp("versions")
    return {
        name: Path(shutil.copytree(paths[name].parent, folder / name))
        for name in (*NETWORKS, "vae_encoder")
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_quantised_and_near(versions, name):
    version = versions[name]
    count = quantise(version)
    model = onnx.load(str(version / INT8_FILE))
    found = Counter(node.op_type for node in model.graph.node)
    assert found["MatMulInteger"] == count >= 10
    constants = {weights.name for weights in model.graph.initializer}
    assert not [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants
    ], "multiplications by weights that stayed as they were"
    given = [
        {spec.name: example(spec, 1, seed).numpy() for spec in contracts(CONFIG)[name].inputs}
        for seed in range(3)
    ]
    usual, quantised = Network(version / "model.onnx", 1), Network(version / INT8_FILE, 1)
    assert 0 < relative_error(usual, quantised, given) < TOLERANCE
    assert relative_error(usual, usual, given) == 0


def test_a_file_tells_whose_weights_it_has(versions):
    version = versions["audio_encoder"]
    quantise(version)
    found = Network(version / INT8_FILE, 1).session.get_modelmeta().custom_metadata_map
    manifest = checkpoint.load(version, "audio_encoder").manifest
    assert found == {WEIGHTS_KEY: manifest["sha256"]}


def test_a_network_without_multiplications_of_matrices_is_refused(versions):
    with pytest.raises(ValueError, match="got no matrix multiplication"):
        quantise(versions["vae_encoder"])
    assert not (versions["vae_encoder"] / INT8_FILE).exists()


def test_the_error_is_of_the_worst_output():
    class Fixed:
        def __init__(self, **outputs):
            self.outputs, self.made = list(outputs), outputs

        def run(self, _):
            return self.made

    one = np.array([-1.0, 1.0])  # of standard deviation 1
    usual, other = Fixed(a=one, b=2 * one), Fixed(a=one + 0.1, b=2 * one + 0.4)
    assert relative_error(usual, other, [{}, {}]) == pytest.approx(0.2)  # type: ignore[arg-type]
