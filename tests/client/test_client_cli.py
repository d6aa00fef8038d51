"""The command line, against a pretended Triton over real gRPC."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner
from visavis_client import BlockTiming, InputError, ModelStatistics, ServerUnavailable, cli
from visavis_client._report import Report
from visavis_client.cli import app
from visavis_client.media import read_audio, read_video

from tests.client.in_process_server import SIZE


@pytest.fixture
def files(tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "portrait.png")
    voice = 0.3 * np.sin(np.arange(24_000) / 10)
    soundfile.write(tmp_path / "avatar.wav", voice, 24_000)
    soundfile.write(tmp_path / "user.wav", np.stack([voice, voice], axis=1), 24_000)
    (tmp_path / "transcript.json").write_text('[{"role": "user", "text": "hi", "start_s": 0}]')
    return tmp_path


def visavis(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def talk(files, server, **changed):
    options = {
        "--portrait": files / "portrait.png",
        "--avatar-audio": files / "avatar.wav",
        "--out": files / "new" / "film.mp4",
        "--server": getattr(server, "url", server),
        **changed,
    }
    return visavis("talk", *(part for option in options.items() for part in option))


def test_talk_writes_a_film_and_tells_the_speed(server, files):
    user = {"--user-audio": files / "user.wav", "--transcript": files / "transcript.json"}
    result = talk(files, server, **user, **{"--seed": 3, "--steps": 4})
    assert result.exit_code == 0, result.output
    frames = list(read_video(files / "new" / "film.mp4"))
    assert len(frames) == 25 and frames[0].shape == (SIZE, 2 * SIZE, 3)
    assert abs(frames[20][:, SIZE:].mean() - 20) < 4  # the avatar's frame 20 is grey 20
    assert len(read_audio(files / "new" / "film.mp4")) > 15_000
    assert all(word in result.stdout for word in ("first frame", "p99", "frames a second"))
    assert b'"num_steps": 4' in server.requests[0].tensors["options"][0]


def test_demo_takes_a_folder(server, files):
    result = visavis(
        "demo", "--examples", files, "--out", files / "demo.mp4", "--server", server.url
    )
    assert result.exit_code == 0, result.output
    assert len(list(read_video(files / "demo.mp4"))) == 25
    assert "user_audio" in server.requests[2].tensors


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"--avatar-audio": "transcript.json"}, 5, "text that starts with"),
        ({"--avatar-audio": "none.wav"}, 5, "no such file"),
        ({"--portrait": "avatar.wav"}, 4, "cannot be read as a picture"),
        ({"--transcript": "avatar.wav"}, 6, "cannot be read as JSON"),
        ({"--image-format": "/gif"}, 3, "image_format"),
        ({"--server": "/localhost:1"}, 11, "visavis serve"),
        ({"--server": "/nowhere"}, 3, "localhost:8001"),
    ],
)
def test_a_users_error_is_one_message_and_a_code(server, files, changed, code, message):
    changed = {
        option: value[1:] if value[0] == "/" else files / value for option, value in changed.items()
    }
    result = talk(files, server, **changed)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_a_warning_is_told_and_the_film_made(server, files):
    soundfile.write(files / "avatar.wav", np.zeros(8_000), 16_000)
    result = talk(files, server)
    assert result.exit_code == 0
    assert "warning:" in result.stderr and "silent" in result.stderr


def test_a_refusal_by_the_server_is_told(server, files):
    server.behaviour = lambda request: ["[INVALID_ARG] options.num_steps: got 99, expected 1 to 64"]
    result = talk(files, server)
    assert (result.exit_code, result.stderr.count("got 99")) == (13, 1)


def test_no_repository_to_serve_is_told(files):
    result = visavis(
        "talk",
        *("--portrait", files / "portrait.png", "--avatar-audio", files / "avatar.wav"),
        *("--out", files / "film.mp4", "--repository", files / "none"),
    )
    assert result.exit_code == ServerUnavailable.exit_code
    assert "model repository" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--traces-to", "collector:4318", 3, "http://localhost:4318/v1/traces"),
        ("--trace-rate", "7", 2, "trace-rate"),
        ("--log-format", "xml", 2, "json"),
    ],
)
def test_a_wrong_setting_of_the_server_is_told(files, option, value, code, message):
    result = visavis("serve", "--repository", files / "none", option, value)
    assert result.exit_code == code
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["8001"], "expected host:port"),
        (["localhost:8001", "--max-message-mb", "0"], "message_mb: got 0.0, expected more than 0"),
        (["localhost:8001", "--tls-key", "key.pem"], "expected both"),
        (["localhost:8001", "--tls-key", "no.pem", "--tls-certificate", "no.pem"], "no.pem"),
    ],
)
def test_a_wrong_setting_of_the_gateway_is_told(arguments, message):
    result = visavis("gateway", *arguments)
    assert result.exit_code == InputError.exit_code
    assert message in result.stderr


@pytest.mark.parametrize(
    ("host", "others"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("a", True)],
)
def test_who_may_come_to_an_address_is_known(host, others):
    assert cli._for_others(host) is others


def test_doctor_says_what_is_missing(files):
    result = visavis("doctor", "--repository", files)
    assert result.exit_code == 1
    assert "model repository" in result.stdout and "->" in result.stdout


def test_another_way_to_run_the_networks_is_chosen_by_name():
    repository = Path(__file__).parents[2] / "model_repository"
    refused = visavis("serve", "--repository", repository, "--config-name", "int4")
    assert refused.exit_code == ServerUnavailable.exit_code
    assert "got 'int4', expected one of int8, openvino" in refused.stderr
    told = visavis("doctor", "--repository", repository, "--config-name", "int4")
    assert told.exit_code == 1 and "choose one of these" in told.stdout


def test_a_report_counts_only_the_servers_time():
    timings = [
        BlockTiming(0, 5, latency_s=0.3, arrived_s=0.5),
        BlockTiming(5, 5, latency_s=0.4, arrived_s=0.7),  # waited behind the first
        BlockTiming(10, 5, latency_s=0.1, arrived_s=2.0),  # the client sent it late
    ]
    before = {"vae_decoder": ModelStatistics("vae_decoder", 3, 3, 1.0)}
    after = {
        "vae_decoder": ModelStatistics("vae_decoder", 6, 6, 1.6),
        "echo": ModelStatistics(
            "echo", 3, 3, 9.0
        ),  # is made of the networks, and would count twice
    }
    report = Report.of(timings, before, after)
    assert report.first_frame_s == 0.5
    np.testing.assert_allclose(report.block_s, [0.2, 0.1])
    assert report.frames_per_s == pytest.approx(10 / 0.3)
    (model,) = report.models
    assert (model.name, model.executions) == ("vae_decoder", 3)
    assert model.compute_s == pytest.approx(0.6)
