"""This is where a server runs until somebody ends it, and is started again when it ends by itself.

    serve(Server("model_repository"))

Triton 2.51 ends by itself when a model's process is killed in the very moment in which it holds the
lock of the memory that both share: its Python backend does not catch Boost's `lock_exception`.
Nothing outside of it can prevent that. What clients notice is a pause: they resume their sessions
from snapshots.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from visavis.serving.server import LaunchError, Server, stopped_by_signals

LOG = logging.getLogger(__name__)

RESTARTS = 3  # of a server that ends by itself
WITHIN_S = 600.0  # as many within so long, and one more would not mend it


def serve(server: Server, started: Callable[[], object] = lambda: None) -> None:
    """Run `server` until Ctrl-C or SIGTERM, and leave nothing behind.

    `started` is called once every model is ready.

    Raises:
        LaunchError: it does not start, or ends over and over.
    """
    with stopped_by_signals(), server:
        started()
        keep(server)


def keep(server: Server, clock: Callable[[], float] = time.monotonic) -> None:
    """Start `server` again in its place whenever it ends by itself, until it is stopped.

    Raises:
        LaunchError: it ends over and over, or does not start any more.
    """
    ends_s: deque[float] = deque(maxlen=RESTARTS + 1)
    while True:
        try:
            server.wait()
        except LaunchError as error:
            ends_s.append(clock())
            if len(ends_s) > RESTARTS and ends_s[-1] - ends_s[0] < WITHIN_S:
                raise LaunchError(
                    f"{error}\nrestarts: got {RESTARTS} within {WITHIN_S:g} s, and it ended again; "
                    "read in its log why, mend it and start it anew"
                ) from error
            LOG.error("%s; starting it again", error)
            server.restart()
        else:
            return
