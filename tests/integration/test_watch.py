"""A server that somebody else started, and what is said when it cannot be watched over."""

from __future__ import annotations

import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner
from visavis_client.cli import app

from tests.integration.conftest import CONFIG, FREE, sound
from tests.integration.stream import Stream, new_id
from visavis.config import nano
from visavis.serving import watch as watching
from visavis.serving.server import (
    LOOPBACK,
    SHARED_MEMORY,
    Server,
    assemble_backends,
    binary,
    environment,
    free_ports,
)
from visavis.serving.watch import WatchError, finder, is_here, listener, watch
from visavis.serving.watchdog import ServedModels

EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
KEY = "a key"
WAIT_S = 30.0


@dataclass
class Plain:
    """A `tritonserver` that knows nothing of visavis's `Server`."""

    url: str
    process: subprocess.Popen


@contextmanager
def started(repository: Path, folder: Path, *flags: str) -> Iterator[Plain]:
    port, prefix = free_ports(LOOPBACK, FREE).grpc, f"watched_{new_id()}_"
    command = [
        str(binary()),
        f"--model-repository={repository}",
        f"--backend-directory={assemble_backends(folder / 'backends')}",
        f"--grpc-port={port}",
        "--exit-timeout-secs=1",
        *("--allow-http=false", "--allow-metrics=false", "--disable-auto-complete-config"),
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *flags,
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    plain = Plain(f"{LOOPBACK}:{port}", process)
    try:
        until(lambda: is_ready(plain.url))
        yield plain
    finally:
        process.terminate()
        process.wait()
        for region in SHARED_MEMORY.glob(f"{prefix}*"):
            region.unlink(missing_ok=True)  # its models' processes, still ending, free theirs


def is_ready(url: str) -> bool:
    with triton.InferenceServerClient(url) as client:
        try:
            return bool(client.is_server_ready())
        except InferenceServerException:
            return False


def until(done) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def plain(repository, tmp_path_factory) -> Iterator[Plain]:
    restricted = f"--grpc-restricted-protocol=model-repository:admin-key={KEY}"
    with started(repository, tmp_path_factory.mktemp("plain"), *EXPLICIT, restricted) as found:
        yield found


@contextmanager
def watched(url: str, **arguments) -> Iterator[str]:
    """Within, a server is watched; gives the address of the metrics."""
    port = free_ports(LOOPBACK, FREE).http
    stop, begun = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: watch(
            url,
            CONFIG,
            admin_key=KEY,
            metrics=(LOOPBACK, port),
            stop=stop,
            started=lambda how: begun.set(),
            **arguments,
        )
    )
    thread.start()
    try:
        assert begun.wait(WAIT_S)
        yield f"http://{LOOPBACK}:{port}/metrics"
    finally:
        stop.set()
        thread.join()


def told(metrics_url: str, name: str, model: str) -> float:
    with urllib.request.urlopen(metrics_url) as page:
        lines = page.read().decode()
    found = re.search(rf'^visavis_watchdog_{name}{{model="{model}"}} (\S+)$', lines, re.MULTILINE)
    assert found is not None, lines
    return float(found[1])


def kill_process_of(plain: Plain, model: str) -> None:
    models = ServedModels(plain.url, CONFIG, lambda: psutil.Process(plain.process.pid))
    (process,) = [process for name, process in models.stubs() if name == model]
    models.close()
    process.kill()


def converses(url: str, portrait) -> bool:
    with Stream(url) as stream:
        answer = stream.ask(new_id(), start=True, end=True, avatar_audio=sound(5, 0), **portrait)
    return answer.error is None and len(answer.frames) == 5


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_model_that_is_killed_is_healed_and_counted(plain, portrait, where, monkeypatch):
    if where == "elsewhere":
        monkeypatch.setattr(watching, "listener", lambda url: None)
    with watched(plain.url) as metrics_url:
        assert told(metrics_url, "reloads_total", "vae_decoder") == 0
        kill_process_of(plain, "vae_decoder")
        until(lambda: told(metrics_url, "reloads_total", "vae_decoder"))
        assert told(metrics_url, "reloads_total", "sdcm_denoiser") == 0
        failed = told(metrics_url, "failed_canaries_total", "vae_decoder")
        assert failed == (where == "elsewhere")  # a dead process that is seen is not asked
    assert converses(plain.url, portrait)


def test_a_servers_own_watchdog_tells_its_counts(server):
    assert told(server.watchdog_metrics_url, "reloads_total", "vae_encoder") >= 0
    with urllib.request.urlopen(server.watchdog_metrics_url) as page:
        looked = re.search(r"last_look_timestamp_seconds ([\d.e+]+)\n", page.read().decode())
    assert looked is not None and abs(float(looked[1]) - time.time()) < WAIT_S


def test_the_process_is_found_by_its_port(plain):
    found = listener(plain.url)
    assert found is not None and found.pid == plain.process.pid
    assert finder(plain.url, None) is not None
    port = plain.url.rpartition(":")[2]
    assert listener(f"192.0.2.1:{port}") is None  # the same port of another machine
    assert is_here("localhost") and not is_here("192.0.2.1") and not is_here("no.such.host.invalid")


@pytest.mark.parametrize("key", [None, "another key"])
def test_a_wrong_key_is_told(plain, key):
    with pytest.raises(WatchError, match=r"This protocol is restricted.* expected the key"):
        watch(plain.url, CONFIG, admin_key=key)


def test_another_size_is_told(plain):
    with pytest.raises(WatchError, match="give the --model-repository that the server serves"):
        watch(plain.url, nano(), admin_key=KEY)


def test_another_process_is_told(plain):
    with pytest.raises(WatchError, match="pid: got 4194304"):
        watch(plain.url, CONFIG, admin_key=KEY, pid=2**22)


def test_a_server_that_lets_nobody_load_models_is_told(repository, tmp_path):
    with (
        started(repository, tmp_path) as unwatchable,
        pytest.raises(WatchError, match="start it with --model-control-mode=explicit"),
    ):
        watch(unwatchable.url, CONFIG)


def test_the_command_tells_that_nobody_listens(repository):
    command = ["watch", "localhost:1", "--model-repository", str(repository)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 11
    assert "expected a Triton server" in result.stderr and result.stderr.count("\n") == 1
    result = CliRunner().invoke(app, ["watch", "localhost:1", "--model-repository", "/none"])
    assert result.exit_code == 3 and "config.json" in result.stderr


def test_a_taken_port_for_the_metrics_is_told(server: Server):
    assert server.ports.watchdog is not None
    with pytest.raises(WatchError, match="watchdog's metrics"):
        watch(
            server.grpc_url,
            CONFIG,
            admin_key=server.admin_key,
            metrics=(LOOPBACK, server.ports.watchdog),
        )
