"""The real networks, untrained and small, exported from torch and served."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from export.repository import check, write
from tests.integration import plain
from tests.integration.conftest import CONFIG, FREE
from tests.integration.stream import Stream, text
from tests.integration.test_sessions import OPTIONS, TURNS, signals, talk_once
from visavis.serving.server import Server


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A repository of the real networks."""
    pytest.importorskip("torch")
    from export.networks import random_networks
    from export.onnx import export_network

    folder = tmp_path_factory.mktemp("exported")
    write(folder, CONFIG, threads=1)
    for name, network in random_networks(CONFIG).items():
        export_network(name, network, CONFIG, folder / name / "1")
    return folder


def test_an_exported_repository_serves_what_its_files_say(exported, portrait):
    """And sessions that run side by side, sharing batches, do not change each other's bits."""
    assert check(exported, CONFIG) == []
    expected = [
        plain.conversation(exported, portrait, signals(seed), text(OPTIONS), text(TURNS))
        for seed in range(3)
    ]

    def talk(seed):
        with Stream(server.grpc_url) as stream:
            return talk_once(stream, portrait, seed)

    with (
        Server(exported, ports=FREE, stop_timeout_s=2) as server,
        ThreadPoolExecutor(len(expected)) as threads,
    ):
        answers = list(threads.map(talk, range(len(expected))))
    assert [answer.error for answer in answers] == [None] * len(expected)
    assert [answer.frames for answer in answers] == expected
