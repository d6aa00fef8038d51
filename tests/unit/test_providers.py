"""What computes a network is what was asked for, or an error."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.networks import stand_in
from tests.sizes import tiny
from visavis.contract import contracts
from visavis.serving import providers
from visavis.serving.network import Network
from visavis.serving.providers import OPENVINO, OpenVINO, ProviderError, device_for, wish


def config(*accelerators):
    return {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": accelerators}}}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(stand_in(contracts(tiny())["vae_encoder"]).SerializeToString())
    return file


@pytest.fixture
def no_plugin(monkeypatch):
    """An environment without the package."""
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    providers.offered_devices.cache_clear()
    yield
    providers.offered_devices.cache_clear()


def test_a_config_says_what_it_wants():
    assert wish({}) is None
    assert wish(config()) is None
    assert wish(config({"name": "openvino"})) == OpenVINO("bf16")
    assert wish(config({"name": "openvino", "parameters": {"precision": "f32"}})) == OpenVINO("f32")


@pytest.mark.parametrize(
    ("accelerators", "message"),
    [
        ([{"name": "tensorrt"}], "got tensorrt, expected openvino alone"),
        ([{"name": "openvino"}] * 2, "got openvino, openvino, expected openvino alone"),
        ([{"name": "openvino", "parameters": {"precision": "int4"}}], "got the precision 'int4'"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(accelerators, message):
    with pytest.raises(ProviderError, match=message):
        wish(config(*accelerators))


def test_the_usual_provider_is_told(path):
    assert Network(path, threads=1).provider == "model.onnx by CPUExecutionProvider"


def test_a_missing_package_is_told_with_the_remedy(path, no_plugin):
    with pytest.raises(
        ProviderError, match=r"got no package .*; pip install 'visavis\[openvino\]'"
    ):
        Network(path, threads=1, accelerator=OpenVINO())


def test_a_provider_that_is_dropped_is_no_provider(path, monkeypatch):
    monkeypatch.setattr(providers, "use_openvino", lambda options, accelerator: None)
    with pytest.raises(ProviderError, match=f"got CPUExecutionProvider, expected {OPENVINO}"):
        Network(path, threads=1, accelerator=OpenVINO())


def test_a_processor_without_half_precision_is_told(monkeypatch):
    device = SimpleNamespace(ep_metadata={"OPTIMIZATION_CAPABILITIES": "FP32 INT8"})
    monkeypatch.setattr(providers, "openvino_processor", lambda: device)
    with pytest.raises(ProviderError, match="computes in FP32, INT8, expected bf16; set the prec"):
        device_for(OpenVINO("bf16"))
    assert device_for(OpenVINO("f32")) is device


def test_a_processor_that_is_not_offered_is_told_as_often_as_it_is_asked_for(monkeypatch):
    device = SimpleNamespace(ep_name="CPU", ep_metadata={}, device=SimpleNamespace(vendor="AMD"))
    monkeypatch.setattr(providers, "offered_devices", lambda: [device])
    for _ in range(2):
        with pytest.raises(ProviderError, match=r"a processor of AMD, .* for Intel's alone; serve"):
            device_for(OpenVINO())


def test_openvino_computes_all_of_it_or_nothing(path):
    try:
        device_for(OpenVINO("f32"))
    except ProviderError as lacking:
        pytest.skip(str(lacking))
    network = Network(path, threads=1, accelerator=OpenVINO("f32"))
    assert network.provider == f"model.onnx by {OPENVINO} in f32"
    (told,) = network.session.get_provider_options()[OPENVINO].values()
    assert json.loads(told)["CPU"]["INFERENCE_NUM_THREADS"] == 1
    model = onnx.load(str(path))
    distance = helper.make_node("CDist", ["a", "a"], ["b"], domain="com.microsoft")  # ORT's own
    model.graph.node.append(distance)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "a"))
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [2, 2]))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    # A constant would be folded away by ONNX Runtime before OpenVINO sees it.
    model.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 2]))
    onnx.save(model, str(path))
    assert Network(path, threads=1).provider.endswith("CPUExecutionProvider")
    with pytest.raises(ProviderError, match=f"expected {OPENVINO} to compute all of it"):
        Network(path, threads=1, accelerator=OpenVINO("f32"))
