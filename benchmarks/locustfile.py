"""This is where conversations load a server: `locust -f benchmarks/locustfile.py --host HOST:PORT`.

A user is a conversation at live pace (`benchmarks.live`): portrait, voices, faces and transcript of
`examples/`, over and over, each with its own seed, begun anew after some `--talk-s` seconds. Its
figures:

| type, name | what | fails when |
|---|---|---|
| start, first frame | opening a session to its first pictures | refused, or an error |
| block, latency | a block's last input due to its pictures | – |
| block, deadline | the same | later than `--deadline-ms` |
| stop, barge-in | leaving in mid-speech to the server's word that it has stopped | – |
| error, session | a session that ended otherwise; a lost server that was replaced is none | each |

Shapes: `--shape constant|soak|step|ramp|spike` over `--users` and `--run-time`. Headless with
`--headless`, workers with `--processes` or `--master` and `--worker`, `--csv` and `--html` for
files, `--samples FILE` for every raw sample, one JSON line each.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import gevent
import grpc.experimental.gevent as grpc_gevent

# Before any channel: gRPC's waiting must be gevent's, or one conversation would stop all others;
# and every stream takes a thread of gevent's pool, which has ten.
grpc_gevent.init_gevent()
gevent.get_hub().threadpool.maxsize = 1000

from locust import LoadTestShape, User, constant, events, task  # noqa: E402
from visavis_client import Client, VisavisError  # noqa: E402

from benchmarks.live import Talk, example, latencies  # noqa: E402
from benchmarks.shapes import SHAPES  # noqa: E402
from visavis.config import FRAME_RATE_HZ  # noqa: E402

HOST = "localhost:8001"


class DeadlineMissed(Exception):
    """A block came too late to be shown."""


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.add_argument("--shape", choices=list(SHAPES), default="constant", help="of the load")
    parser.add_argument(
        "--deadline-ms", type=float, default=200.0, help="a block is late after so long"
    )
    parser.add_argument("--talk-s", type=float, default=60.0, help="mean length of a conversation")
    parser.add_argument("--samples", default="", help="a file for every sample, as JSON lines")


@events.init.add_listener
def _keep_samples(environment: Any, **_: Any) -> None:
    if not environment.parsed_options.samples:
        return
    file = Path(environment.parsed_options.samples).open("a", buffering=1)  # noqa: SIM115

    def keep(request_type: str, name: str, response_time: float, exception: Any, **_: Any) -> None:
        sample = {
            "time_s": round(time.time(), 3),
            "users": environment.runner.user_count,
            "type": request_type,
            "name": name,
            "ms": round(response_time, 2),
            "error": None if exception is None else repr(exception),
        }
        file.write(json.dumps(sample) + "\n")

    environment.events.request.add_listener(keep)


@events.test_start.add_listener
def _read_the_example(environment: Any, **_: Any) -> None:
    with Client(environment.host or HOST) as client:
        Conversation.talk = example(client.server)


class Conversation(User):
    """One person who talks with the avatar."""

    host = HOST
    wait_time = constant(0.5)
    talk: Talk  # shared by all

    def on_start(self) -> None:
        """Connect."""
        self.client = Client(self.host or HOST, frame_timeout_s=10.0)

    def on_stop(self) -> None:
        """Leave."""
        self.client.close()

    @task
    def converse(self) -> None:
        """One conversation, left in mid-speech."""
        options = self.environment.parsed_options
        talk, block_frames = Conversation.talk, self.client.server.block_frames
        assert options is not None
        block_s = block_frames / FRAME_RATE_HZ
        blocks = max(2, round(random.uniform(0.5, 1.5) * options.talk_s / block_s))
        session = self.client.session(
            portrait=talk.portrait,
            seed=random.randrange(2**31),
            user_audio=True,
            user_video=True,
        )
        try:
            chunks = itertools.islice(talk.chunks(block_frames), blocks)
            for n, latency_s in enumerate(latencies(session, chunks, block_s, finish=False)):
                if n == 0:
                    self._fire("start", "first frame", latency_s)
                else:
                    self._fire("block", "latency", latency_s)
                    late = DeadlineMissed() if 1e3 * latency_s > options.deadline_ms else None
                    self._fire("block", "deadline", latency_s, late)
            left_s = time.perf_counter()
            session.close()
            self._fire("stop", "barge-in", time.perf_counter() - left_s)
        except VisavisError as error:
            self._fire("error", "session", 0.0, error)
            gevent.sleep(getattr(error, "retry_after_s", None) or 1.0)
        finally:
            session.close()

    def _fire(
        self, kind: str, name: str, seconds: float, error: BaseException | None = None
    ) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=1e3 * seconds,
            response_length=0,
            exception=error,
            context={},
        )


class Load(LoadTestShape):
    """`--shape`, over the usual `--users`, `--spawn-rate` and `--run-time`."""

    use_common_options = True
    begun = False

    def tick(self) -> tuple[int, float] | None:
        """Users and how many may begin a second; None at the end."""
        assert self.runner is not None and self.runner.environment.parsed_options is not None
        if not self.begun:
            self.reset_time()  # the time begins with the first user: reading the example takes some
            self.begun = self.runner.user_count > 0
        options, time_s = self.runner.environment.parsed_options, self.get_run_time()
        users, rate = options.num_users or 1, options.spawn_rate or 1.0
        length_s = options.run_time or 0
        if not length_s:
            return users, rate
        if time_s >= length_s:
            return None
        return SHAPES[options.shape](time_s, users, length_s), rate
