"""A server behind a gateway: the same frames, and a bound to what one client may take."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from visavis_client import AsyncClient, Client, Portrait, RequestRefused
from visavis_client._wire import pb

from benchmarks import provoke
from tests.integration.conftest import CONFIG, FREE, sound
from visavis.serving.gateway import Limits
from visavis.serving.server import Server

LIMITS = Limits(message_mb=2.0, unread_mb=1.0)


@pytest.fixture(scope="module")
def limited(repository):
    with Server(
        repository, ports=FREE, limits=LIMITS, max_sessions=64, stop_timeout_s=2
    ) as running:
        yield running


@pytest.fixture
def face(portrait) -> Portrait:
    return Portrait(portrait["portrait"], portrait["region_centers"])


def frames(url: str, face: Portrait) -> list[bytes]:
    with Client(url) as client, client.session(portrait=face, seed=3) as session:
        for part in range(4):
            session.send(avatar_audio=sound(20, part))
        session.finish()
        return [frame.content for frame in session.frames()]


def test_the_frames_are_those_of_a_server_without(server, limited, face):
    assert frames(limited.grpc_url, face) == frames(server.grpc_url, face)


def test_any_server_can_get_one(server, face):
    with provoke.gateway(server.grpc_url) as (url, _):
        assert frames(url, face) == frames(server.grpc_url, face)


def test_a_client_of_asyncio_may_be_in_the_servers_process(server, limited, face):
    async def converse() -> list[bytes]:
        client = AsyncClient(limited.grpc_url)
        async with client, await client.session(portrait=face, seed=3) as session:
            for part in range(4):
                await session.send(avatar_audio=sound(20, part))
            await session.finish()
            return [frame.content async for frame in session.frames()]

    assert asyncio.run(converse()) == frames(server.grpc_url, face)


def test_too_large_a_message_is_refused_and_nobody_else_notices(limited, face):
    with Client(limited.grpc_url) as client, client.session(portrait=face) as neighbour:
        neighbour.send(avatar_audio=sound(CONFIG.block_frames, 0))
        with client.session(portrait=face) as session:
            session.send(avatar_audio=np.zeros(10**6, np.float32))
            with pytest.raises(RequestRefused, match=r"of one client .* shorter pieces"):
                list(session.frames())
        neighbour.send(avatar_audio=sound(CONFIG.block_frames, 1))
        neighbour.finish()
        assert len(list(neighbour.frames())) == 2 * CONFIG.block_frames


def test_the_watchdog_and_its_key_reach_triton(limited, face):
    provoke.process_of(limited, "sdcm_denoiser").kill()
    assert len(frames(limited.grpc_url, face)) == 80
    request = pb.RepositoryModelUnloadRequest(model_name="echo")
    with provoke.stub(limited.grpc_url) as service:
        with pytest.raises(grpc.RpcError, match="This protocol is restricted"):
            service.RepositoryModelUnload(request)
        service.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name="nothing"),
            metadata=list(limited.admin_headers.items()),
        )


def test_triton_itself_is_for_this_machine_alone(repository, limited):
    host, _, port = limited.triton_url.rpartition(":")
    assert host == "127.0.0.1" and int(port) != limited.ports.grpc
    server = Server(repository, host="0.0.0.0", limits=LIMITS, ports=FREE)
    assert server.http_url.startswith("http://127.0.0.1:")
    assert server.metrics_url.startswith("http://0.0.0.0:")
