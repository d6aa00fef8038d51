"""A real server over stand-in networks, started once for all tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.repository import Cores, write
from tests.fakes.networks import write_networks
from tests.sizes import tiny
from visavis.serving.server import Ports, Server
from visavis.serving.supervisor import keep

pytest.importorskip("pytriton", reason="the server comes with nvidia-pytriton")

FREE = Ports(0, 0, 0, 0)
CONFIG = tiny()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model repository."""
    folder = tmp_path_factory.mktemp("repository")
    write(folder, CONFIG, Cores(threads=1))
    write_networks(folder, CONFIG)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """The server that all tests share, started again should it end."""
    with Server(repository, ports=FREE, max_sessions=64, stop_timeout_s=2) as running:
        threading.Thread(target=keep, args=[running], daemon=True).start()
        yield running


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the real networks, untrained and small."""
    pytest.importorskip("torch")
    from export.networks import random_networks
    from export.onnx import export_network

    folder = tmp_path_factory.mktemp("exported")
    write(folder, CONFIG, Cores(threads=1))
    for name, network in random_networks(CONFIG).items():
        export_network(name, network, CONFIG, folder / name / "1")
    return folder


@pytest.fixture
def portrait() -> dict[str, Any]:
    """What starts a session."""
    size = CONFIG.image_size
    return {
        "portrait": np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8),
        "region_centers": np.array([[0.5, 0.68], [0.5, 0.53]], np.float32),
    }


def sound(frames: int, seed: int) -> np.ndarray:
    """(frames · 640,) float32 in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, frames * 640).astype(np.float32)


def video(frames: int, seed: int) -> np.ndarray:
    """(frames, H, W, 3) uint8."""
    size = CONFIG.image_size
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), np.uint8)
