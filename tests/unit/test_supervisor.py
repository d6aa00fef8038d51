"""A server that ends by itself is started again, unless it does so over and over."""

from __future__ import annotations

from typing import Any

import pytest

from visavis.serving.server import LaunchError
from visavis.serving.supervisor import RESTARTS, WITHIN_S, keep


class Falling:
    """A server that ends `each_s` after every start, and does not start the `last` time."""

    def __init__(self, each_s: float, last: int | None = None) -> None:
        self.each_s = each_s
        self.last = last
        self.now_s = 0.0
        self.restarts = 0

    def wait(self) -> None:
        self.now_s += self.each_s
        raise LaunchError(f"ended at {self.now_s:g} s")

    def restart(self) -> None:
        if self.restarts == self.last:
            raise LaunchError("no more")
        self.restarts += 1


def kept(server: Any) -> str:
    with pytest.raises(LaunchError) as told:
        keep(server, clock=lambda: server.now_s)
    return str(told.value)


def test_a_server_that_ends_over_and_over_is_given_up():
    server = Falling(each_s=1.0)
    assert "ended at 4 s" in kept(server)
    assert server.restarts == RESTARTS


def test_one_that_ends_now_and_then_is_not():
    server = Falling(each_s=WITHIN_S / RESTARTS, last=50)
    assert kept(server) == "no more"
    assert server.restarts == 50
