"""Starting and stopping: what is said when it fails, and that nothing stays behind."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import FREE
from tests.integration.stream import Stream, new_id
from tests.sizes import tiny
from visavis.contract import contracts
from visavis.serving.doctor import checks
from visavis.serving.server import SHARED_MEMORY, LaunchError, Ports, Server

PROCESSES = sum(model.kind != "ensemble" for model in contracts(tiny()).values())


def group(process_group: int) -> list[str]:
    """The living processes of a group."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[2]) == process_group and fields[0] != "Z":
            members.append(folder.name)
    return members


def regions(prefix: str) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"{prefix}*"))


def test_stopping_leaves_nothing(repository, portrait):
    server = Server(repository, ports=FREE, stop_timeout_s=2)
    with server:
        assert server.process is not None
        pid, work = server.process.pid, server.work
        assert psutil.Process(pid).rlimit(psutil.RLIMIT_CORE)[0] == 0  # no file of what was said
        assert len(group(pid)) > PROCESSES  # the server's own, and one for every model of these
        assert len(regions(server.region_prefix)) == PROCESSES
        with urllib.request.urlopen(server.metrics_url) as page:  # measured, before anyone came
            (places,) = re.findall(r"^visavis_places\{.*\} (\d+)", page.read().decode(), re.M)
        assert int(places) >= 1
        with Stream(server.grpc_url) as stream:  # a session that is never ended
            assert stream.ask(new_id(), start=True, **portrait).error is None
    assert group(pid) == []
    assert regions(server.region_prefix) == []
    assert work is not None
    assert not work.exists()
    server.stop()  # twice is no harm


# What a shell runs in the background ignores SIGINT, and so would all that it starts.
SERVE = """
import signal, sys
from visavis.serving.server import Ports, Server
from visavis.serving.supervisor import serve
signal.signal(signal.SIGINT, signal.default_int_handler)
server = Server(sys.argv[1], ports=Ports(0, 0, 0), stop_timeout_s=2, log=sys.stderr)
serve(server, lambda: print(server.process.pid, server.region_prefix, flush=True))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_leaves_nothing(repository, number, code):
    command = [sys.executable, "-c", SERVE, str(repository)]
    journal, stderr = socket.socketpair()  # what systemd gives; it cannot be opened by its name
    with (
        ThreadPoolExecutor() as reader,
        journal,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr.fileno(), text=True
        ) as process,
    ):
        stderr.close()
        said = reader.submit(lambda: b"".join(iter(partial(journal.recv, 1 << 16), b"")))
        assert process.stdout is not None
        pid, prefix = process.stdout.readline().split()
        assert regions(prefix)
        process.send_signal(number)
        assert process.wait(30) == code
        assert b"Started GRPCInferenceService" in said.result()
    assert group(int(pid)) == []
    assert regions(prefix) == []


def test_a_model_that_does_not_load_is_named(repository, tmp_path):
    broken = Path(shutil.copytree(repository, tmp_path / "repository"))
    config = broken / "vae_decoder" / "config.pbtxt"
    config.write_text(config.read_text().replace('"latents"', '"latent"'))
    server = Server(broken, ports=FREE, stop_timeout_s=2)
    with pytest.raises(LaunchError, match=r"input latents: got none in config\.pbtxt"), server:
        pass
    assert regions(server.region_prefix) == []


def test_what_is_missing_is_said_before_anything_starts(server, repository, tmp_path):
    with pytest.raises(LaunchError, match="expected a model repository"), Server(tmp_path / "no"):
        pass
    taken = Ports(server.ports.grpc, 0, 0)
    with pytest.raises(LaunchError, match="grpc port"), Server(repository, ports=taken):
        pass


def test_the_doctor_finds_what_the_server_needs(server, repository, tmp_path):
    assert [check for check in checks(repository, ports=FREE) if not check.ok] == []
    shutil.copytree(repository, tmp_path / "repository")
    (tmp_path / "repository" / "echo" / "config.pbtxt").unlink()
    ill = [c for c in checks(tmp_path / "repository", ports=server.ports) if not c.ok]
    assert [check.name for check in ill] == ["echo", "ports"]
    assert all(check.remedy for check in ill)
    assert not checks(tmp_path)[-2].ok  # no repository at all


def test_only_an_administrator_loads_and_unloads_models(server):
    with triton.InferenceServerClient(server.grpc_url) as client:
        for refused in (
            lambda: client.unload_model("enroll"),
            lambda: client.register_system_shared_memory("region", "/region", 64),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
        ):
            with pytest.raises(InferenceServerException, match="protocol is restricted"):
                refused()
        index: Any = client.get_model_repository_index(headers=server.admin_headers)
        assert {model.name for model in index.models} == set(contracts(tiny()))
    request = urllib.request.Request(
        f"{server.http_url}/v2/repository/models/enroll/unload", data=b"{}", method="POST"
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)
