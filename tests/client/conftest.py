from collections.abc import Iterator

import numpy as np
import pytest
from visavis_client import Client, Conversation, Portrait

from tests.client.in_process_server import SIZE, InProcessServer


@pytest.fixture
def server() -> Iterator[InProcessServer]:
    """A pretended Triton over real gRPC."""
    server = InProcessServer()
    yield server
    server.stop()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[Client]:
    """A client of `server`."""
    with Client(server.url) as client:
        yield client


@pytest.fixture
def portrait() -> Portrait:
    """An aligned portrait of the server's size, of nobody."""
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    return Portrait(image, np.array([[0.5, 0.68], [0.5, 0.53]], np.float32))


@pytest.fixture
def conversation() -> Conversation:
    """53 frames of the avatar's voice and a user who is heard for a while."""
    rng = np.random.default_rng(0)
    voice = rng.uniform(-0.5, 0.5, 52 * 640 + 100).astype(np.float32)
    return Conversation(voice, user_audio=voice[:9000])


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8: a real face, NASA's portrait of Eileen Collins (public domain)."""
    return pytest.importorskip("skimage.data").astronaut()
