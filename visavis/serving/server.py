"""This is where Triton Inference Server is started and stopped on this machine, no container.

    with Server("model_repository") as server:
        ...  # server.grpc_url, server.http_url

The wheel `nvidia-pytriton` carries the real `tritonserver` with its Python backend, but not the
ONNX Runtime backend; a folder beside the Python backend takes its place (`backend_onnxruntime`).
The server's Python models run in the environment of the Python that starts the server.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from visavis import config as configs
from visavis.config import EchoConfig
from visavis.serving import gateway, logs, tracing, watchdog_metrics
from visavis.serving.gateway import GatewayError, Limits
from visavis.serving.model_config import config_names
from visavis.serving.tls import Tls, Trust
from visavis.serving.tracing import Traces
from visavis.serving.watchdog import Counts, ServedModels, Watchdog, living

LOG = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
# What each model shares with Triton from the start, enough for `nano` and two messages at the same
# moment, and how much more it takes when that is short; none is given back. With all that eight
# sessions need it is 58 MB, as Docker gives 64 unless told otherwise.
REGION_MB, REGION_GROWTH_MB = 4, 2
PACKAGE_ROOT = Path(__file__).parents[2]
ONNX_BACKEND = Path(__file__).parent / "backend_onnxruntime"
POLL_S = 0.1
KILL_S = 2.0  # how long killed processes may take to go; under a careless init some never do
LOG_LINES = 20  # of the server's log, in an error
LOOPBACK = "127.0.0.1"
ADMIN_APIS = "model-repository,shared-memory,logging,trace"
ERROR_LINE = re.compile(r"E\d{4} ")
PROVIDER_LINE = re.compile(r'"(\w+) runs (\S+ by [^"]+)"')  # what `backend_onnxruntime` logs


class LaunchError(RuntimeError):
    """The server could not be started, or ended by itself."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on the server's address; 0 takes a free one.

    `watchdog` is for the watchdog's own metrics, which are not Triton's; None is nowhere.
    """

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002
    watchdog: int | None = None


class Server:
    """One running server; a context manager.

    Args:
        repository: the model repository.
        host: the address to listen on. Only this machine by default: Triton has no users.
        ports: where.
        start_timeout_s: how long all models together may take to load.
        stop_timeout_s: how long it may take to stop before it is killed. Triton waits that long
            for the end of every open session.
        config_name: serve `configs/<config_name>.pbtxt` of the models that have one, and the others
            as usual.
        max_sessions: how many conversations there may be, or None for what `echo_session`'s config
            says: as many as the machine bears.
        tls: on gRPC. HTTP and metrics, which this server cannot encrypt, are then for this machine
            alone.
        limits: what one client may take: a gateway with them stands before Triton, whose own gRPC
            and HTTP, which know no limits, are then for this machine alone
            (`visavis.serving.gateway`).
        watched: load a model anew when its process has died or hangs (`visavis.serving.watchdog`).
        admin_key: whoever may load and unload models, trace, log and register shared memory says
            it; see `admin_headers`. By default one that nobody else knows.
        traces: where OpenTelemetry spans go (`visavis.serving.tracing`). By default as the
            environment has it, in OpenTelemetry's own variables.
        log_format: of what the models and the watchdog say (`visavis.serving.logs`).
        log: where the server's log goes, a path or an open file such as `sys.stderr`; None keeps it
            in a temporary file for errors.
        arguments: further arguments of `tritonserver`.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        host: str = LOOPBACK,
        ports: Ports | None = None,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 5.0,
        config_name: str | None = None,
        max_sessions: int | None = None,
        tls: Tls | None = None,
        limits: Limits | None = None,
        watched: bool = True,
        admin_key: str | None = None,
        traces: Traces | None = None,
        log_format: logs.Form = "text",
        log: str | Path | IO | None = None,
        arguments: tuple[str, ...] = (),
    ):
        self.repository = Path(repository).resolve()
        self.host = host
        self.ports = ports or Ports()
        self.start_timeout_s = start_timeout_s
        self.stop_timeout_s = stop_timeout_s
        self.config_name = config_name
        self.max_sessions = max_sessions
        self.tls = tls
        self.limits = limits
        self.watched = watched
        self.admin_key = admin_key or secrets.token_urlsafe()
        self.traces = traces
        self.log_format = log_format
        self.arguments = arguments
        # The regions' names are ours alone, so that cleaning up touches no other server's.
        self.region_prefix = f"visavis_{uuid.uuid4().hex[:12]}_"
        self.work: Path | None = None
        self.log = Path(log) if isinstance(log, str) else log
        self.process: subprocess.Popen | None = None
        self.watched_over = Counts()  # what the watchdog has done
        self.triton_url = self.grpc_url  # of its own gRPC; another behind a gateway
        self.helpers = ExitStack()  # which run in this process

    @property
    def admin_headers(self) -> dict[str, str]:
        """What a gRPC request carries that is an administrator's."""
        return {"triton-grpc-protocol-admin-key": self.admin_key}

    @property
    def grpc_url(self) -> str:
        """host:port of gRPC, for clients."""
        return f"{self.host}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """Base address of HTTP."""
        return f"http://{self.http_host}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus metrics."""
        return f"http://{self.plain_host}:{self.ports.metrics}/metrics"

    @property
    def watchdog_metrics_url(self) -> str:
        """Address of the watchdog's metrics, if they are anywhere."""
        return f"http://{self.plain_host}:{self.ports.watchdog}/metrics"

    @property
    def healed(self) -> Counter[str]:
        """How often each model was loaded anew."""
        return self.watched_over.reloads

    @property
    def http_host(self) -> str:
        """The address of HTTP, whose messages nobody bounds."""
        return self.plain_host if self.limits is None else LOOPBACK

    @property
    def plain_host(self) -> str:
        """The address of what is not encrypted."""
        return self.host if self.tls is None else LOOPBACK

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when every model is ready.

        Raises:
            LaunchError: something is missing (`visavis.serving.doctor` lists it), a port is
                taken, a model does not load, or loading takes too long.
        """
        check_environment()
        if self.traces is not None and not tracing.is_possible():
            raise LaunchError(
                "traces: got no OpenTelemetry, expected it to send them; "
                "pip install 'visavis[traces]'"
            )
        if not self.repository.is_dir():
            raise LaunchError(
                f"{self.repository}: got no folder, expected a model repository; write one with "
                "`python -m export.repository`"
            )
        self._check_config_name()
        self.ports = free_ports(self.host, self.ports)
        self.triton_url = self.grpc_url if self.limits is None else free_address()
        self.work = Path(tempfile.mkdtemp(prefix="visavis-server-"))
        self.log = self.log or self.work / "server.log"
        try:
            with _writable(self.log) as log:
                self.process = subprocess.Popen(
                    self._command(assemble_backends(self.work / "backends")),
                    env=environment() | self._variables(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group of its own, stubs included
                )
            _forbid_core(self.process.pid)
            self._await_readiness()
            if self.watched:
                self._watch()
            if self.limits is not None:
                self._limit(self.limits)
        except BaseException:  # Ctrl-C while loading leaves nothing behind either
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and all its processes, and free its shared memory. May be called twice."""
        self.helpers.close()
        process, self.process = self.process, None
        if process is not None:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                LOG.warning("the server did not stop in %g s; killing it", self.stop_timeout_s)
            finally:
                _kill_group(process)
        for region in SHARED_MEMORY.glob(f"{self.region_prefix}*"):
            region.unlink(missing_ok=True)
        work, self.work = self.work, None
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(self.log, Path) and self.log.parent == work:
                self.log = None  # so that it may be started again

    def restart(self) -> None:
        """Start again in the same place, what is left of it before included; see `start`."""
        self.stop()
        self.watched_over.restarts += 1
        self.start()

    def wait(self) -> None:
        """Block until `stop` is called elsewhere; LaunchError, with the end of the log, when the
        server ends by itself."""
        process = self.process
        assert process is not None, "start() comes first"
        code = process.wait()
        if self.process is process:
            raise LaunchError(f"tritonserver: got {_ending(code)}, expected it to run{self.tail()}")

    def tail(self) -> str:
        """The end of the server's log, a line break before each line."""
        return _last(self._said().splitlines())

    def complaints(self) -> str:
        """What the server's log says of errors, or else its end, likewise."""
        lines = self._said().splitlines()
        return _last([line for line in lines if ERROR_LINE.match(line)] or lines)

    def providers(self) -> dict[str, str]:
        """What computes each network, and from which file, as its model said when it was loaded."""
        return dict(PROVIDER_LINE.findall(self._said()))

    def _said(self) -> str:
        """The log, where it is a file of its own."""
        if not isinstance(self.log, Path) or not self.log.is_file():
            return ""
        return self.log.read_text(errors="replace")

    def _check_config_name(self) -> None:
        """Triton would serve all models as usual under a name that none has."""
        known = config_names(self.repository)
        if self.config_name is not None and self.config_name not in known:
            raise LaunchError(
                f"config_name: got {self.config_name!r}, expected one of "
                f"{', '.join(known) or 'none, as no model has another config'}; choose one, or "
                "leave it out"
            )

    def _command(self, backends: Path) -> list[str]:
        grpc_host, _, grpc_port = self.triton_url.rpartition(":")
        flags = {
            "model-repository": self.repository,
            "backend-directory": backends,
            "http-address": self.http_host,
            "http-port": self.ports.http,
            "grpc-address": grpc_host,
            "grpc-port": grpc_port,
            "metrics-address": self.plain_host,
            "metrics-port": self.ports.metrics,
            "allow-gpu-metrics": "false",
            "model-control-mode": "explicit",  # what the watchdog needs
            "load-model": "*",
            "grpc-restricted-protocol": f"{ADMIN_APIS}:admin-key={self.admin_key}",
            "http-restricted-api": f"{ADMIN_APIS}:admin-key={self.admin_key}",
            "exit-on-error": "true",
            "exit-timeout-secs": max(1, int(self.stop_timeout_s) - 1),
            "log-verbose": 0,
        }
        if self.tls is not None:
            flags |= self.tls.flags()
        if self.config_name:
            flags["model-config-name"] = self.config_name
        regions = {  # of all models: the ONNX Runtime's backend here is made of the Python one
            "shm-region-prefix-name": self.region_prefix,
            "shm-default-byte-size": REGION_MB << 20,
            "shm-growth-byte-size": REGION_GROWTH_MB << 20,
        }
        return [
            str(binary()),
            *(f"--{name}={value}" for name, value in flags.items()),
            *(f"--backend-config=python,{name}={value}" for name, value in regions.items()),
            # The configs are complete; completing them would start every model's process twice.
            "--disable-auto-complete-config",
            *self.arguments,
        ]

    def _variables(self) -> dict[str, str]:
        chosen = {} if self.traces is None else self.traces.variables()
        if self.max_sessions is not None:
            chosen["VISAVIS_MAX_SESSIONS"] = str(self.max_sessions)
        return {logs.VARIABLE: self.log_format, **chosen}

    def _watch(self) -> None:
        assert self.process is not None
        config = configs.load(EchoConfig, self.repository / "config.json")
        models = ServedModels(
            self.triton_url,
            config,
            partial(living, self.process.pid),
            self.admin_headers,
            self._own_trust().channel(),
        )
        stop = threading.Event()
        dog = Watchdog(models)
        dog.counts = self.watched_over  # which a server that is started again goes on with
        dog.learn()
        models.ask("echo_session")  # which then knows how many it can hold before anyone comes
        thread = threading.Thread(target=dog.run, args=[stop], name="watchdog", daemon=True)
        thread.start()
        if self.ports.watchdog is not None:
            self.helpers.enter_context(
                watchdog_metrics.served(
                    dog.counts, models.contracts, self.plain_host, self.ports.watchdog
                )
            )
        self.helpers.callback(models.close)
        self.helpers.callback(thread.join)
        self.helpers.callback(stop.set)

    def _limit(self, limits: Limits) -> None:
        credentials = None if self.tls is None else self.tls.credentials()
        try:
            self.helpers.enter_context(
                gateway.served(
                    self.grpc_url,
                    self.triton_url,
                    limits,
                    credentials=credentials,
                    trust=self._own_trust(),
                )
            )
        except GatewayError as error:
            raise LaunchError(str(error)) from error

    def _own_trust(self) -> Trust:
        return Trust() if self.tls is None else self.tls.own()

    def _await_readiness(self) -> None:
        assert self.process is not None
        deadline_s = time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise LaunchError(
                    f"tritonserver: got {_ending(self.process.returncode)}, expected every model "
                    f"to load; the log says why{self.complaints()}"
                )
            if self.is_ready():
                return
            time.sleep(POLL_S)
        raise LaunchError(
            f"tritonserver: got no readiness in {self.start_timeout_s:g} s, expected all models "
            f"loaded; give it more time or read the log{self.complaints()}"
        )

    def is_ready(self) -> bool:
        """Whether the health endpoint says that every model is ready."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=1.0):
                return True
        except OSError:
            return False


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit, as Ctrl-C raises KeyboardInterrupt: `with` cleans up."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What the server is made of


def wheel() -> Path:
    """The folder of `nvidia-pytriton`'s server; LaunchError when it is not installed."""
    spec = importlib.util.find_spec("pytriton")  # found, not imported: importing takes a second
    if spec is None or spec.origin is None:
        raise LaunchError(
            "nvidia-pytriton: got no such package, expected it, as it carries tritonserver; "
            "pip install 'visavis[serve]'"
        )
    return Path(spec.origin).parent / "tritonserver"


def binary() -> Path:
    """The `tritonserver` executable."""
    return wheel() / "bin" / "tritonserver"


def stub() -> Path:
    """The process in which a Python model runs, for this Python's version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return wheel() / "python_backend_stubs" / version / "triton_python_backend_stub"


def check_environment() -> None:
    """LaunchError unless this Python can be the server's."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise LaunchError(
            f"numpy: got {np.__version__}, expected below 2, with which this server's tensors "
            "arrive empty without a word; pip install 'numpy<2'"
        )
    if not stub().is_file():
        raise LaunchError(
            f"Python: got {sys.version.split()[0]}, expected one of "
            f"{', '.join(sorted(p.name for p in stub().parents[1].iterdir()))}, for which "
            "nvidia-pytriton has a stub; use one of these"
        )


def assemble_backends(directory: Path) -> Path:
    """A backend directory: the wheel's for Python with this Python's stub, and ours for ONNX."""
    shutil.copytree(wheel() / "backends", directory)
    shutil.copy(stub(), directory / "python" / stub().name)
    shutil.copytree(ONNX_BACKEND, directory / "onnxruntime")
    return directory


def environment() -> dict[str, str]:
    """The server's variables: its libraries, and this Python with all that it can import."""
    libraries = [
        wheel().parents[1] / "nvidia_pytriton.libs",
        sysconfig.get_config_var("LIBDIR"),  # else the stub takes the system's Python library
    ]
    imports = [PACKAGE_ROOT, *(path for path in sys.path if path)]
    added = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join(map(str, dict.fromkeys(imports))),
        "PATH": str(Path(sys.executable).parent),
    }
    for name in ("LD_LIBRARY_PATH", "PATH"):
        added[name] = os.pathsep.join(filter(None, (added[name], os.environ.get(name))))
    return {**os.environ, **added}


def free_ports(host: str, ports: Ports) -> Ports:
    """`ports` with free ones for 0; LaunchError when one is taken."""
    with ExitStack() as held:  # all at once, or the same free port would be found three times
        found = {
            name: _bound(held.enter_context(socket.socket()), host, name, port)
            for name, port in vars(ports).items()
            if port is not None
        }
    return Ports(**found)


def free_address() -> str:
    """host:port that nobody else may come to from another machine."""
    with socket.socket() as probe:
        return f"{LOOPBACK}:{_bound(probe, LOOPBACK, 'gRPC', 0)}"


def _bound(probe: socket.socket, host: str, name: str, port: int) -> int:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
    try:
        probe.bind((host, port))
    except OSError as error:
        raise LaunchError(
            f"{name} port: got {host}:{port}, which cannot be used ({error}), expected a free "
            "one; stop what listens there or choose another"
        ) from error
    return probe.getsockname()[1]


def _writable(log: Path | IO) -> AbstractContextManager[IO]:
    """A log to write to, which stays open if it was."""
    return log.open("ab") if isinstance(log, Path) else nullcontext(log)


def _last(lines: list[str]) -> str:
    return "".join(f"\n{line}" for line in lines[-LOG_LINES:])


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _forbid_core(pid: int) -> None:
    """Have a process leave no core file should it fall. A server's has what was said and seen, and
    is of tens of GB; as long as it is written, clients wait."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, hard))


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of a group; False when there are none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _kill_group(leader: subprocess.Popen) -> None:
    """Kill what is left of a group and wait until it is gone, as its memory is freed next."""
    _signal_group(leader.pid, signal.SIGKILL)
    leader.wait()
    deadline_s = time.monotonic() + KILL_S
    while _signal_group(leader.pid, 0) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
