"""This is where a server that somebody else started is watched over.

    watch("localhost:8001", config, admin_key="…")

It is any `tritonserver` with `--model-control-mode=explicit --load-model=*`. Where its process is
on this machine, models whose own process has died are seen at once; from elsewhere they are found
by canaries, within some ten seconds. A server that ends is waited for: another may take its place.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
from tritonclient.utils import InferenceServerException

from visavis.config import EchoConfig
from visavis.contract import ModelContract
from visavis.serving import watchdog_metrics
from visavis.serving.tls import Trust
from visavis.serving.watchdog import ANSWER_WITHIN_S, ServedModels, Watchdog, living

PROCESS = "tritonserver"
NO_MODEL = "visavis_watch_may_unload_this_which_is_not_there"


class WatchError(RuntimeError):
    """A server cannot be watched over."""


def watch(
    url: str,
    config: EchoConfig,
    *,
    admin_key: str | None = None,
    pid: int | None = None,
    trust: Trust | None = None,
    metrics: tuple[str, int] | None = None,
    stop: threading.Event | None = None,
    started: Callable[[str], object] = lambda how: None,
) -> None:
    """Watch over a server until `stop` is set.

    Args:
        url: host:port of its gRPC.
        config: the size that it serves.
        admin_key: what admits to its model repository's protocol, where that is restricted.
        pid: of `tritonserver`, where the port does not tell.
        trust: TLS.
        metrics: host and port of the watchdog's own metrics.
        stop: ends it; without one it goes on for ever.
        started: is told how the server is watched, once it is.

    Raises:
        WatchError: there is no server, it does not let models be loaded, or serves others.
    """
    headers = {"triton-grpc-protocol-admin-key": admin_key} if admin_key else None
    find = finder(url, pid)
    with ExitStack() as stack:
        models = ServedModels(url, config, find, headers, (trust or Trust()).channel())
        stack.callback(models.close)
        with _told(url):
            check(models)
        dog = Watchdog(models)
        dog.learn()
        if metrics is not None:
            try:
                stack.enter_context(watchdog_metrics.served(dog.counts, models.contracts, *metrics))
            except OSError as error:
                raise WatchError(
                    f"watchdog's metrics: got {metrics[0]}:{metrics[1]}, which cannot be used "
                    f"({error}), expected a free port; choose another"
                ) from error
        started("by canaries alone" if find is None else f"as process {_pid(models)}")
        dog.run(stop or threading.Event())


def finder(url: str, pid: int | None) -> Callable[[], psutil.Process | None] | None:
    """How the server's process is found, now and after it was started again; None when it is not on
    this machine, or hides itself."""
    if pid is not None:
        if living(pid) is None:
            raise WatchError(f"pid: got {pid}, which is no process here, expected tritonserver's")
        return lambda: living(pid) or listener(url)
    return None if listener(url) is None else lambda: listener(url)


def listener(url: str) -> psutil.Process | None:
    """The `tritonserver` of this machine that listens at `url`, if there is one to be seen."""
    host, _, port = url.rpartition(":")
    if not is_here(host):
        return None
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or connection.laddr[1:2] != (int(port),):
            continue
        process = None if connection.pid is None else living(connection.pid)
        if process is not None and process.name() == PROCESS:
            return process
    return None


def is_here(host: str) -> bool:
    """Whether `host` is this machine."""
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    try:
        found = socket.getaddrinfo(host.strip("[]"), None)
    except OSError:
        return False
    return any(str(address[0]) in own for *_, address in found)


def check(models: ServedModels) -> None:
    """Raise unless the models can be asked, unloaded and loaded, and are those of the contract."""
    index: Any = models.client.get_model_repository_index(
        headers=models.headers, client_timeout=ANSWER_WITHIN_S
    )
    ready = {model.name for model in index.models if model.state == "READY"}
    if missing := sorted(set(models.contracts) - ready):
        raise WatchError(
            f"server: got no {', '.join(missing)}, expected every model to be loaded; start it "
            "with --load-model=*, and see its log"
        )
    for contract in models.contracts.values():
        _check_inputs(models, contract)
    _check_control(models)


def _check_inputs(models: ServedModels, contract: ModelContract) -> None:
    """A canary of another size would be refused before it reaches the model, and tell nothing."""
    message: Any = models.client.get_model_metadata(contract.name, client_timeout=ANSWER_WITHIN_S)
    batch = () if contract.kind == "session" else (-1,)
    found = {port.name: tuple(port.shape) for port in message.inputs}
    wanted = {spec.name: (*batch, *spec.dims) for spec in contract.inputs}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise WatchError(
                f"{contract.name}: got the input {name} {found.get(name, 'absent')}, expected "
                f"{wanted.get(name, 'none')}; give the --model-repository that the server serves"
            )


def _check_control(models: ServedModels) -> None:
    try:
        models.client.unload_model(NO_MODEL, headers=models.headers, client_timeout=ANSWER_WITHIN_S)
    except InferenceServerException as error:
        if "not allowed" in str(error):
            raise WatchError(
                f"server: got {error.message()!r}, expected leave to load and unload models; "
                "start it with --model-control-mode=explicit --load-model=*"
            ) from error


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Within, Triton's errors say what to do."""
    try:
        yield
    except InferenceServerException as error:
        if "restricted" in str(error):
            raise WatchError(
                f"admin key: got {error.message()!r}, expected the key that the server was started "
                "with (--grpc-restricted-protocol=model-repository,…:admin-key=KEY); give it"
            ) from error
        raise WatchError(
            f"server {url}: got {error.message()!r}, expected a Triton server; start one, give "
            "the port of gRPC (8001), not that of HTTP (8000), and TLS's files if it has TLS"
        ) from error


def _pid(models: ServedModels) -> int | None:
    return None if models.process is None else models.process.pid
