"""This is where a server runs that is measured beside others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visavis_client import Client

from visavis.serving.server import Ports, Server


@contextmanager
def served(repository: Path, **options: Any) -> Iterator[tuple[Server, Client]]:
    """A server with `options` of `Server`, and a client of it; without a watchdog, whose canaries
    would count, and be felt while another is measured."""
    with (
        Server(repository, ports=Ports(0, 0, 0), watched=False, **options) as server,
        Client(server.grpc_url) as client,
    ):
        yield server, client
