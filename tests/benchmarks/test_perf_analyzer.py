"""What perf_analyzer is given is what the models take, and a whole conversation."""

import base64
import json

import numpy as np
import pytest

from benchmarks.perf_analyzer import SESSIONS, commands, write
from tests.fakes.talk import noise
from tests.sizes import tiny
from tests.unit.test_session_host import ask, call
from visavis.affect import LexiconAffect
from visavis.config import FRAME_RATE_HZ
from visavis.contract import contracts
from visavis.serving.session_host import SessionHost

CONFIG, SECONDS = tiny(), 2
MODELS = contracts(CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder, CONFIG, noise(CONFIG.image_size), SECONDS)
    return folder


def tensors(step, model):
    """A step's arrays, each checked against the contract."""
    found = {}
    for name, tensor in step.items():
        spec = model.input(name)
        if "b64" in tensor:
            array = np.frombuffer(base64.b64decode(tensor["b64"]), spec.numpy_dtype)
        else:
            array = np.array([text.encode() for text in tensor["content"]], np.object_)
        found[name] = array.reshape(tensor["shape"])
        assert spec.mismatch(found[name]) is None
    return found


def sequences(folder, name):
    return [
        [tensors(step, MODELS[name]) for step in steps]
        for steps in json.loads((folder / f"{name}.json").read_text())["data"]
    ]


def test_a_sequence_is_a_conversation(folder):
    (steps,) = sequences(folder, SESSIONS)
    assert sorted(steps[0]) == ["options", "portrait", "region_centers"]
    assert any("transcript" in step for step in steps)
    host = SessionHost(CONFIG, call, LexiconAffect())
    last = len(steps) - 1
    replies = [
        ask(host, start=place == 0, end=place == last, **step) for place, step in enumerate(steps)
    ]
    host.close()
    assert not [error for reply in replies for error in reply.errors]
    frames = [image for reply in replies for image in reply.frames]
    assert len(frames) >= SECONDS * FRAME_RATE_HZ
    assert host.slots == {}


@pytest.mark.parametrize("name", ["echo", "enroll", "sdcm_sampler"])
def test_a_stateless_model_gets_all_that_it_needs(folder, name):
    ((step,),) = sequences(folder, name)
    assert sorted(step) == sorted(spec.name for spec in MODELS[name].inputs)
    if "num_steps" in step:
        assert step["num_steps"].tolist() == [CONFIG.sampling.num_steps]
        assert step["noise"].std() == pytest.approx(1.0, abs=0.2)


def test_every_model_has_a_command_and_every_file_is_there(folder):
    said = [command.split() for _, command in commands(CONFIG, folder, "a:1", "perf_analyzer")]
    assert {words[words.index("-m") + 1] for words in said} == set(MODELS)
    data = {words[words.index("--input-data") + 1] for words in said} - {"zero"}
    assert data == {str(path) for path in folder.iterdir()}
    free = [words[-1] for words in said if "--shape" in words]
    assert free == ["images:5,32,32,3", "latents:5,4,4,4"]
