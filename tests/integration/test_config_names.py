"""Other ways to run the networks: in use, near the usual one, and never in name only."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from export.rehearsal import Models, conversation
from export.repository import VARIANTS
from tests.integration.conftest import FREE
from tests.integration.stream import Stream
from tests.integration.test_sessions import OPTIONS, TURNS, signals, talk_once
from visavis.serving.doctor import models
from visavis.serving.network import INT8_FILE
from visavis.serving.server import LaunchError, Server

HAS_OPENVINO = find_spec("onnxruntime_ep_openvino") is not None
MODELS = {variant.name: set(variant.models) for variant in VARIANTS}
MEAN_DIFFERENCE = 1.0  # of 255


@pytest.fixture(scope="module")
def with_int8(exported, tmp_path_factory):
    """The repository of untrained networks, with weights of eight bits as well."""
    from export.int8 import NETWORKS, quantise

    folder = tmp_path_factory.mktemp("int8") / "repository"
    shutil.copytree(exported, folder)
    for name in NETWORKS:
        quantise(folder / name / "1")
    return folder


def frames(repository: Path, portrait, config_name: str | None = None):
    """Of a conversation without a server."""
    made = Models(repository, config_name)
    return conversation(made, portrait, signals(), json.dumps(OPTIONS), json.dumps(TURNS))


def difference(one: dict[int, bytes], other: dict[int, bytes]) -> float:
    """Mean absolute difference in grey levels."""
    ours, theirs = (
        np.frombuffer(b"".join(each[n] for n in sorted(each)), np.uint8).astype(int)
        for each in (one, other)
    )
    return float(np.abs(ours - theirs).mean())


def served_and_near(repository: Path, portrait, variant: str) -> dict[str, str]:
    """Serve a variant, hold its frames against those without a server; what computed what."""
    usual = frames(repository, portrait)
    expected = frames(repository, portrait, variant)
    with (
        Server(repository, ports=FREE, stop_timeout_s=2, config_name=variant) as server,
        Stream(server.grpc_url) as stream,
    ):
        answer = talk_once(stream, portrait)
        providers = server.providers()
    assert answer.error is None
    assert answer.frames == expected  # so that it is this one that runs,
    assert answer.frames != usual  # and not the usual one
    assert difference(expected, usual) < MEAN_DIFFERENCE
    return providers


def test_weights_of_eight_bits_are_served_and_near(with_int8, portrait):
    providers = served_and_near(with_int8, portrait, "int8")
    for model, provider in providers.items():
        file = INT8_FILE if model in MODELS["int8"] else "model.onnx"
        assert provider == f"{file} by CPUExecutionProvider", model
    assert MODELS["int8"] < set(providers)


@pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO comes with visavis[openvino]")
def test_openvino_is_served_and_near(exported, portrait):
    if lacking := [check.found for check in models(exported, "openvino") if not check.ok]:
        pytest.skip(lacking[0])  # a processor without half precision
    providers = served_and_near(exported, portrait, "openvino")
    by_openvino = {model for model, provider in providers.items() if "OpenVINO" in provider}
    assert by_openvino == MODELS["openvino"]


@pytest.mark.skipif(HAS_OPENVINO, reason="OpenVINO is here")
def test_openvino_is_never_replaced_in_silence(repository):
    server = Server(repository, ports=FREE, stop_timeout_s=2, config_name="openvino")
    with pytest.raises(LaunchError, match=r"pip install 'visavis\[openvino\]'"), server:
        pass
    ill = {check.name: check for check in models(repository, "openvino") if not check.ok}
    assert set(ill) == MODELS["openvino"]
    assert all("visavis[openvino]" in check.remedy for check in ill.values())


def test_a_file_that_is_not_there_is_told(repository):
    server = Server(repository, ports=FREE, stop_timeout_s=2, config_name="int8")
    with (
        pytest.raises(LaunchError, match=r"int8\.onnx: got no file.*python -m export\.int8 --repo"),
        server,
    ):
        pass
    ill = {check.name: check for check in models(repository, "int8") if not check.ok}
    assert set(ill) == MODELS["int8"]
    command = f"python -m export.int8 --repository {repository}"
    assert all(command in check.remedy for check in ill.values())


def test_outdated_weights_are_not_served(with_int8, tmp_path):
    outdated = Path(shutil.copytree(with_int8, tmp_path / "repository"))
    manifest = outdated / "sdcm_denoiser" / "1" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "0" * 64}))
    server = Server(outdated, ports=FREE, stop_timeout_s=2, config_name="int8")
    with (
        pytest.raises(LaunchError, match=r"expected those of 0000.*python -m export\.int8 --repo"),
        server,
    ):
        pass


def test_a_name_that_no_model_has_is_refused(repository):
    with (
        pytest.raises(LaunchError, match="got 'int4', expected one of int8, openvino"),
        Server(repository, ports=FREE, config_name="int4"),
    ):
        pass
    assert [c.name for c in models(repository, "int4") if not c.ok] == ["config name"]
