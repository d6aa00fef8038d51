"""The real networks, untrained and small, exported from torch and served."""

import json
from concurrent.futures import ThreadPoolExecutor

from export.rehearsal import Models, conversation
from export.repository import check
from tests.integration.conftest import CONFIG, FREE
from tests.integration.stream import Stream
from tests.integration.test_sessions import OPTIONS, TURNS, signals, talk_once
from visavis.serving.server import Server


def test_an_exported_repository_serves_what_its_files_say(exported, portrait):
    """And sessions that run side by side, sharing batches, do not change each other's bits."""
    assert check(exported, CONFIG) == []
    expected = [
        conversation(
            Models(exported), portrait, signals(seed), json.dumps(OPTIONS), json.dumps(TURNS)
        )
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
