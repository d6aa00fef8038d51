"""The asyncio client: the same laws where only the waiting differs."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import grpc
import numpy as np
import pytest
from visavis_client import (
    AsyncClient,
    AsyncFakeTransport,
    DeadlineExceeded,
    FakeTransport,
    RequestRefused,
    ServerUnavailable,
    StreamBroken,
)

from tests.client.in_process_server import SIZE

FRAME = np.zeros(640, np.float32)


@asynccontextmanager
async def opened(portrait, url="", **options):
    """A session of a client of its own."""
    client = AsyncClient(url, **options)
    async with client, await client.session(portrait=portrait) as session:
        yield session


async def indices(frames):
    return [frame.index async for frame in frames]


def test_a_conversation_gives_every_frame_once_and_in_order(server, portrait, conversation):
    async def run():
        async with opened(portrait, server.url) as session:
            return await indices(session.stream(conversation))

    assert asyncio.run(run()) == list(range(53))


def test_messages_bring_their_trace(server, portrait, conversation):
    async def run():
        def trace(headers):
            headers["traceparent"] = "00-ours"

        async with opened(portrait, server.url, trace=trace) as session:
            await indices(session.stream(conversation))

    asyncio.run(run())
    assert {request.trace["traceparent"] for request in server.requests} == {"00-ours"}


def test_sessions_run_side_by_side(server, portrait, conversation):
    async def one(client):
        async with await client.session(portrait=portrait) as session:
            return await indices(session.stream(conversation))

    async def run():
        async with AsyncClient(server.url) as client:
            return await asyncio.gather(*(one(client) for _ in range(3)))

    assert asyncio.run(run()) == [list(range(53))] * 3


def test_one_task_may_send_while_another_reads(server, portrait):
    async def run():
        async with opened(portrait, server.url) as session:

            async def speak():
                for _ in range(12):
                    await session.send(avatar_audio=FRAME)
                await session.finish()

            _, seen = await asyncio.gather(speak(), indices(session.frames()))
            return seen

    assert asyncio.run(run()) == list(range(12))


def test_closing_the_iterator_cancels_the_stream(server, portrait, conversation):
    usual = server.behaviour
    server.behaviour = lambda request: usual(request) if len(server.requests) < 3 else []

    async def run():
        async with AsyncClient(server.url) as client:
            session = await client.session(portrait=portrait)
            async with aclosing(session.stream(conversation)) as frames:
                assert (await anext(frames)).index == 0
            assert await asyncio.to_thread(server.cancelled.wait, 5)

    asyncio.run(run())


def test_a_cancelled_task_cancels_the_stream(server, portrait, conversation):
    server.behaviour = lambda request: []

    async def run():
        async with AsyncClient(server.url) as client:
            session = await client.session(portrait=portrait)
            task = asyncio.create_task(indices(session.stream(conversation)))
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.cancelled.wait, 5)

    asyncio.run(run())


def test_a_silent_server_is_given_up(portrait, conversation):
    silent = AsyncFakeTransport(FakeTransport(image_size=SIZE, answer=lambda request: []))

    async def run():
        async with opened(portrait, transport=silent, start_timeout_s=0.05) as session:
            await indices(session.stream(conversation))

    with pytest.raises(DeadlineExceeded):
        asyncio.run(run())
    assert len(silent.fake.requests) == 2
    assert silent.fake.cancelled


def test_errors_have_their_class(server, portrait, conversation):
    async def run():
        async with opened(portrait, server.url, resume_timeout_s=0) as session:
            async for frame in session.stream(conversation):
                if frame.index == 6:
                    server.lost = grpc.StatusCode.UNAVAILABLE

    with pytest.raises(StreamBroken, match="the stream was lost"):
        asyncio.run(run())
    server.lost = None
    server.behaviour = lambda request: ["[INVALID_ARG] seed: got -1"]
    with pytest.raises(RequestRefused, match="seed"):
        asyncio.run(run())
    server.models = {}
    with pytest.raises(ServerUnavailable):
        asyncio.run(run())


def test_a_snapshot_continues_where_it_was(server, portrait, conversation):
    async def run():
        async with opened(portrait, server.url) as session:
            frames = session.stream(conversation)
            while (await anext(frames)).index < 12:
                pass
            snapshot = await session.snapshot()
            await frames.aclose()
        client = AsyncClient(server.url)
        async with client, await client.resume(snapshot) as session:
            return await indices(session.stream(conversation))

    seen = asyncio.run(run())
    assert seen == list(range(seen[0], 53)) and 13 <= seen[0] <= 25


def test_leaving_a_live_session_ends_it_on_the_server(server, portrait):
    async def run():
        async with opened(portrait, server.url) as session:
            await session.send(avatar_audio=np.tile(FRAME, 5))
            await session.snapshot()
            return list(session.ready())

    assert [frame.index for frame in asyncio.run(run())] == list(range(5))
    assert server.requests[-1].end


def test_a_session_may_outlive_its_client(server, portrait, conversation):
    async def run():
        async with AsyncClient(server.url) as client:
            session = await client.session(portrait=portrait)
            frames = session.stream(conversation)
            await anext(frames)
        await frames.aclose()
        await session.close()

    asyncio.run(run())
