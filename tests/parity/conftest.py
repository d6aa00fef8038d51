"""Untrained networks of a small size, exported once for all tests of this folder."""

from pathlib import Path

import pytest
from torch import nn

from export.networks import random_networks
from export.onnx import export_network
from tests.sizes import tiny


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, nn.Module], dict[str, Path]]:
    """The networks and their files, by name."""
    folder, config = tmp_path_factory.mktemp("repository"), tiny()
    networks = random_networks(config)
    paths = {
        name: export_network(name, network, config, folder / name / "1")
        for name, network in networks.items()
    }
    return networks, paths
