"""What a user sees when things break: a real server, the SDK, and kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from visavis_client import Client, Conversation, Portrait

from benchmarks.provoke import kept, kill, process_of, triton_of
from tests.integration.conftest import FREE, sound, video
from visavis.serving import watchdog
from visavis.serving.server import Server

FRAMES = 150


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    return Conversation(sound(FRAMES, 0), user_audio=sound(FRAMES, 1), user_video=video(FRAMES, 2))


@pytest.fixture
def face(portrait) -> Portrait:
    return Portrait(portrait["portrait"], portrait["region_centers"])


@pytest.fixture
def doomed(repository) -> Iterator[Server]:
    """A server of one's own, to be killed."""
    with Server(repository, ports=FREE, max_sessions=64, stop_timeout_s=2) as running:
        yield running


def pictures(
    client: Client, face: Portrait, conversation: Conversation, then=None, **options
) -> np.ndarray:
    """All frames; `then` is called when frame 60 has come."""
    found = {}
    options = {"image_format": "raw", **options}
    with client, client.session(portrait=face, seed=3, **options) as session:
        for frame in session.stream(conversation):
            assert frame.index not in found
            found[frame.index] = frame.image
            if frame.index == 60 and then is not None:
                then()
    assert list(found) == list(range(FRAMES))
    return np.stack(list(found.values()))


@contextmanager
def healing(server: Server, model: str) -> Iterator[None]:
    """Within, a model is loaded anew, once. One that is killed while it holds the lock of the
    memory that it shares takes Triton with it, which is then started again."""
    healed, restarts = server.healed[model], server.watched_over.restarts
    yield
    assert server.healed[model] == healed + 1 or server.watched_over.restarts > restarts


def test_another_server_takes_over_from_one_that_is_killed(server, doomed, face, conversation):
    expected = pictures(Client(server.grpc_url), face, conversation)
    client = Client([doomed.grpc_url, server.grpc_url], snapshot_interval_s=1.0)
    assert (pictures(client, face, conversation, lambda: kill(doomed)) == expected).all()


def test_a_film_in_h264_goes_on_with_a_key_frame(server, doomed, face, conversation):
    grey = np.array([0.299, 0.587, 0.114])  # colours are halved on the way
    expected = pictures(Client(server.grpc_url), face, conversation) @ grey
    client = Client([doomed.grpc_url, server.grpc_url], snapshot_interval_s=1.0)
    h264 = {"image_format": "h264", "h264_crf": 1}
    found = pictures(client, face, conversation, lambda: kill(doomed), **h264) @ grey
    apart = np.abs(found - expected).mean(axis=(1, 2))
    assert apart.max() < 0.1 * np.abs(expected - expected.mean()).mean()


def test_a_server_that_is_killed_and_started_again_goes_on(
    server, doomed, repository, face, conversation
):
    expected = pictures(Client(server.grpc_url), face, conversation)

    def restart():
        kill(doomed)
        doomed.start()

    assert (pictures(Client(doomed.grpc_url), face, conversation, restart) == expected).all()


@pytest.mark.parametrize("gateway", ["--gateway", "--no-gateway"])
def test_a_server_that_falls_is_started_again(server, repository, face, conversation, gateway):
    expected = pictures(Client(server.grpc_url), face, conversation)
    with kept(repository, "--max-sessions", "64", gateway) as (url, keeper):
        first = triton_of(keeper)
        processes = [first, *first.children()]
        assert (pictures(Client(url), face, conversation, first.kill) == expected).all()
        assert triton_of(keeper) != first
        assert not any(map(watchdog.lives, processes))


@pytest.mark.parametrize("model", ["sdcm_denoiser", "sdcm_sampler", "vae_encoder", "echo_session"])
def test_a_model_whose_process_is_killed_is_healed_and_sessions_go_on(
    server, face, conversation, model
):
    expected = pictures(Client(server.grpc_url), face, conversation)
    client = Client(server.grpc_url, frame_timeout_s=1.0)
    with healing(server, model):
        found = pictures(client, face, conversation, process_of(server, model).kill)
    assert (found == expected).all()


@pytest.mark.parametrize("model", ["sdcm_denoiser", "echo_session"])
def test_a_model_whose_process_hangs_is_healed_and_the_process_is_ended(
    server, face, conversation, monkeypatch, model
):
    for name in ("QUIET_S", "ASK_EVERY_S", "ANSWER_WITHIN_S"):
        monkeypatch.setattr(watchdog, name, 0.5)
    expected = pictures(Client(server.grpc_url), face, conversation)
    hanging = process_of(server, model)
    client = Client(server.grpc_url, frame_timeout_s=1.0)
    with healing(server, model):
        found = pictures(client, face, conversation, hanging.suspend)
    assert (found == expected).all()
    assert not watchdog.lives(hanging)
