"""The model repository against the contract: what is checked in, and what is written."""

import re
import shutil
from pathlib import Path

import onnx
import pytest

from export.repository import ENSEMBLES, SOURCE, check, render, variants, write
from tests.fakes.networks import write_networks
from tests.sizes import tiny
from visavis import config as configs
from visavis.config import SIZES, EchoConfig
from visavis.contract import contracts
from visavis.serving.model_config import CONFIGS, config_path, read
from visavis.serving.providers import OpenVINO, wish

NO_FILE = "model.onnx: got no file"  # the networks of the checkout are exported, not checked in

SHIPPED = (SOURCE, SOURCE.parent / "model_repository_pico")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    write(folder, tiny())
    write_networks(folder, tiny())
    return folder


@pytest.fixture
def repository(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "repository"))


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_a_checked_in_repository_is_the_contracts(shipped):
    assert [problem for problem in check(shipped) if NO_FILE not in problem] == []


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_a_checked_in_repository_is_as_it_is_written(tmp_path, shipped):
    write(tmp_path, configs.load(EchoConfig, shipped / "config.json"))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_text() == (shipped / path.relative_to(tmp_path)).read_text(), path


def test_a_written_repository_has_no_problems(written):
    assert check(written, tiny()) == []


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_portable_keys_only(size):
    config = SIZES[size]()
    for model in contracts(config).values():
        for variant in (None, *variants(model)):
            text = render(model, config, variant=variant)
            assert not re.search(r"runtime:|queue|priority|KIND_GPU|gpus", text)
            assert "max_batch_size: " in text


def test_variants_differ_from_the_usual_way_in_what_they_are_about(written):
    found = {}
    for path in sorted(written.glob(f"*/{CONFIGS}/*.pbtxt")):
        usual, other = read(path.parents[1] / "config.pbtxt"), read(path)
        changed = {key for key in usual | other if usual.get(key) != other.get(key)}
        found.setdefault(path.stem, {})[path.parents[1].name] = changed
    assert found == {
        "int8": {name: {"default_model_filename"} for name in ("audio_encoder", "sdcm_denoiser")},
        "openvino": {
            name: {"optimization"}
            for name in ("audio_encoder", "sdcm_denoiser", "vae_decoder", "vae_encoder")
        },
    }
    accelerated = read(config_path(written / "vae_decoder", "openvino"))
    assert wish(accelerated) == OpenVINO("bf16")
    assert config_path(written / "motion_prior", "openvino").name == "config.pbtxt"


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_ensembles_are_wired(ensemble):
    models = contracts(tiny())
    whole = models[ensemble]
    known = {spec.name: spec for spec in whole.inputs}
    used = set()
    for step in ENSEMBLES[ensemble]:
        for spec in models[step.model].inputs:
            name = step.inputs.get(spec.name, spec.name)
            assert known[name].dtype == spec.dtype, f"{step.model}.{spec.name}"
            for ours, theirs in zip(known[name].dims, spec.dims, strict=True):
                assert ours == theirs or -1 in (ours, theirs), f"{step.model}.{spec.name}"
            used.add(name)
        for spec in models[step.model].outputs:
            known[step.outputs.get(spec.name, spec.name)] = spec
    assert {spec.name for spec in whole.inputs} <= used
    assert {spec.name for spec in whole.outputs} <= known.keys()


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("vae_decoder/config.pbtxt", "TYPE_UINT8", "TYPE_FP32", "vae_decoder.*output"),
        ("sdcm_denoiser/config.pbtxt", '"x_t"', '"z_t"', "sdcm_denoiser.*input"),
        ("sdcm_denoiser/configs/int8.pbtxt", "model.int8", "model.int4", "int8.*default_model"),
        ("vae_encoder/configs/openvino.pbtxt", "TYPE_UINT8", "TYPE_FP32", "openvino.*input"),
        ("echo/config.pbtxt", 'value: "user_latents"', 'value: "latents"', "ensemble_scheduling"),
        ("enroll/config.pbtxt", "max_batch_size: 8", "max_batch_size: {", "expected a Triton"),
        (
            "lcu_encoder/config.pbtxt",
            "dynamic_batching { }",
            "dynamic_batching { default_queue_policy { max_queue_size: 4 } }",
            "queue policy",
        ),
        ("config.json", '"image_size": 32', '"image_size": 64', "got the size tiny"),
    ],
)
def test_a_changed_file_is_found(repository, file, old, new, problem):
    text = (repository / file).read_text()
    assert old in text
    (repository / file).write_text(text.replace(old, new))
    assert any(re.search(problem, found) for found in check(repository, tiny()))


def test_a_missing_file_is_found(repository):
    (repository / "echo_session" / "1" / "model.py").unlink()
    shutil.rmtree(repository / "vae_encoder")
    assert [Path(found.split(":")[0]).parts[-2:] for found in check(repository)] == [
        ("vae_encoder", "config.pbtxt"),
        ("1", "model.py"),
    ]
    assert "expected the size" in check(repository / "nowhere")[0]


def test_a_network_of_another_shape_is_found(repository):
    path = str(repository / "affect_encoder" / "1" / "model.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
    model.graph.output[0].name = "tokens"
    onnx.save(model, path)
    found = check(repository)
    assert len(found) == 3  # the input, the output that is there and the one that is not
    assert all("expected" in problem for problem in found)
