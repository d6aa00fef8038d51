"""NVIDIA's perf_analyzer drives the server with the data that is written for it."""

import json
import shlex
import shutil
import subprocess

import pytest

from benchmarks.perf_analyzer import commands, write
from tests.fakes.talk import noise
from tests.integration.conftest import CONFIG

pytestmark = pytest.mark.skipif(
    shutil.which("perf_analyzer") is None, reason="docs/operations.md says where it is to be had"
)

SHORT = "--request-count 30"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder, CONFIG, noise(CONFIG.image_size), seconds=2.0)
    return folder


@pytest.mark.parametrize("model", ["echo_session", "echo", "sdcm_sampler", "vae_decoder"])
def test_perf_analyzer_is_answered(server, folder, model, tmp_path):
    command = next(
        command
        for _, command in commands(CONFIG, folder, server.grpc_url, "perf_analyzer")
        if f"-m {model} " in command
    )
    export = tmp_path / "profile.json"
    words = shlex.split(f"{command} {SHORT} --profile-export-file {export}")
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    exported = export.read_text(errors="replace")  # pictures stand in it as they are
    (experiment,) = json.loads(exported, strict=False)["experiments"]
    assert len(experiment["requests"]) >= 30
    assert sum(len(request["response_timestamps"]) for request in experiment["requests"]) >= 30
