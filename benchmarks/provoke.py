"""This is where a server is given trouble on purpose: kill -9, and messages that no client of ours
would send. `benchmarks.faults` measures what comes of it, `tests/integration` tests it.

    python -m benchmarks.provoke HOST:PORT      somebody who converses until killed
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import grpc
import numpy as np
import psutil
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2_grpc
from visavis_client import Client, Portrait, Request, Response, VisavisError, _wire
from visavis_client._grpc import GrpcTransport

from benchmarks.live import example, latencies
from visavis import config as configs
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.serving.server import LOOPBACK, Ports, Server, free_ports
from visavis.serving.watchdog import ServedModels, living

VISAVIS = Path(sys.executable).parent / "visavis"
START_S = 120.0
ANSWER_S = 60.0
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


# kill -9


def kill(server: Server) -> None:
    """Without a word of farewell."""
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
    server.stop()  # what it left in /dev/shm


def process_of(server: Server, model: str) -> psutil.Process:
    """The model's own process; the newest, should an older one not have ended yet."""
    assert server.process is not None
    config = configs.load(EchoConfig, server.repository / "config.json")
    models = ServedModels(server.grpc_url, config, partial(living, server.process.pid))
    found = [process for name, process in models.stubs() if name == model]
    models.close()
    return max(found, key=psutil.Process.create_time)


@contextmanager
def kept(repository: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """`visavis serve`, which starts a server again that ends: its address, and its process."""
    ports = free_ports(LOOPBACK, Ports(0, 0, 0, 0))
    url = f"{LOOPBACK}:{ports.grpc}"
    command = [VISAVIS, "serve", f"--repository={repository}", *options]
    command += [f"--grpc-port={ports.grpc}", f"--http-port={ports.http}"]
    command += [f"--metrics-port={ports.metrics}", f"--watchdog-metrics-port={ports.watchdog}"]
    with TemporaryFile() as said, subprocess.Popen(command, stderr=said) as process:
        try:
            with grpc.insecure_channel(url) as channel:
                grpc.channel_ready_future(channel).result(START_S)
            yield url, psutil.Process(process.pid)
        except grpc.FutureTimeoutError as error:
            said.seek(0)
            raise RuntimeError(f"serve: got no server, expected one\n{said.read()!r}") from error
        finally:
            process.terminate()


def triton_of(keeper: psutil.Process) -> psutil.Process:
    """The server that `visavis serve` has now."""
    return next(child for child in keeper.children() if child.name() == "tritonserver")


@contextmanager
def gateway(url: str) -> Iterator[tuple[str, int]]:
    """`visavis gateway` before a server: its address, and its process."""
    command = [VISAVIS, "gateway", url, "--grpc-port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address, _, said = process.stderr.readline().partition(" is before ")
            if not said:
                raise RuntimeError(f"gateway: got {address!r}, expected its address")
            yield address, process.pid
        finally:
            process.terminate()


# Messages by hand


def new_id() -> str:
    """A session's id."""
    return str(uuid.uuid4())


def text(value: object) -> np.ndarray:
    """A value as the JSON of a BYTES tensor."""
    return np.array([json.dumps(value).encode()], np.object_)


def start_of(portrait: Portrait) -> dict[str, np.ndarray]:
    """What a session starts with."""
    centers = portrait.region_centers.astype(np.float32)
    return {"portrait": portrait.image, "region_centers": centers}


class Talker:
    """One stream on which requests of any sessions are sent, and answered one after the other."""

    def __init__(self, url: str) -> None:
        self.transport = GrpcTransport(url)
        self.arrived: queue.SimpleQueue[Response] = queue.SimpleQueue()
        self.stream = self.transport.open_stream(self.arrived.put, lambda error: None)

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def ask(
        self,
        session_id: str,
        tensors: Mapping[str, np.ndarray] | None = None,
        *,
        start: bool = False,
        end: bool = False,
    ) -> list[Response]:
        """All that is answered to one request."""
        self.stream.send(Request(new_id(), session_id, tensors or {}, start=start, end=end))
        answers: list[Response] = []
        while not answers or not answers[-1].final:
            try:
                answers.append(self.arrived.get(timeout=ANSWER_S))
            except queue.Empty as error:
                raise TimeoutError(f"got no answer in {ANSWER_S:g} s, expected one") from error
        return answers


@contextmanager
def stub(url: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """Triton's own service."""
    with grpc.insecure_channel(url, UNLIMITED) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def ask_raw(service: service_pb2_grpc.GRPCInferenceServiceStub, message: _wire.Message) -> str:
    """The error that one message on a stream of its own is answered by; "" is none."""
    return refusal(service.ModelStreamInfer(iter([message]), timeout=ANSWER_S))


def refusal(call: Iterable[_wire.Message]) -> str:
    """The first error that a call is answered by, or ends with; "" is none."""
    try:
        errors = [answer.error_message for answer in call if answer.error_message]
    except grpc.RpcError as error:
        return str(error.details()) if isinstance(error, grpc.Call) else repr(error)
    return errors[0] if errors else ""


def claiming(
    shape: list[int], content: bytes = bytes(16), start: Mapping[str, np.ndarray] | None = None
) -> _wire.Message:
    """A session's start whose sound is said to be of some shape, whatever there is of it."""
    message = _wire.encode(Request("0", new_id(), start or {}, start=True))
    message.inputs.add(name="avatar_audio", datatype="FP32", shape=shape)
    message.raw_input_contents.append(content)
    return message


def ask_large(url: str, megabytes: int, start: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """What `ask_raw` says of a session's start with so much sound, and after how many seconds."""
    content = bytes(megabytes * 10**6)
    message = claiming([len(content) // 4], content, start)
    with stub(url) as service:
        begun_s = time.perf_counter()
        return ask_raw(service, message), time.perf_counter() - begun_s


def malformed(portrait: Portrait) -> dict[str, Callable[[], _wire.Message]]:
    """Starts of sessions that must be refused, by what is wrong with them."""
    start = start_of(portrait)
    size = len(portrait.image)

    def having(**tensors: np.ndarray) -> Callable[[], _wire.Message]:
        return lambda: _wire.encode(Request("0", new_id(), {**start, **tensors}, start=True))

    return {
        "sound that is not a number": having(avatar_audio=np.full(640, np.nan, np.float32)),
        "infinite sound": having(avatar_audio=np.full(640, np.inf, np.float32)),
        "sound in the scale of integers": having(avatar_audio=np.full(640, 9e3, np.float32)),
        "sound with an axis too many": having(avatar_audio=np.zeros((1, 640), np.float32)),
        "sound of 2^40 samples, said to be": lambda: claiming([2**40], start=start),
        "sound of a negative length": lambda: claiming([-1], start=start),
        "sound without an axis": lambda: claiming([], start=start),
        "pictures of another size": having(
            user_video=np.zeros((2, size // 2, size // 2, 3), np.uint8)
        ),
        "an unknown option": having(options=text({"sed": 1})),
        "a transcript that is no JSON": having(transcript=np.array([b"{"], np.object_)),
    }


def blocks_made(url: str) -> tuple[int, float]:
    """How many blocks a server has made, and when the last one was asked for, in seconds since
    1970."""
    with triton.InferenceServerClient(url) as client:
        (echo,) = client.get_inference_statistics("echo").model_stats  # type: ignore[union-attr]
    return echo.inference_count, echo.last_inference / 1e3


def main(url: str) -> None:
    """Converse at live pace until killed; tells every block in a line."""
    with Client(url) as client:
        talk, block_frames = example(client.server), client.server.block_frames
        session = client.session(portrait=talk.portrait, user_audio=True, user_video=True)
        try:
            for latency_s in latencies(
                session, talk.chunks(block_frames), block_frames / FRAME_RATE_HZ
            ):
                print(f"{1e3 * latency_s:.0f}", flush=True)
        except VisavisError as error:
            print(repr(error), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
