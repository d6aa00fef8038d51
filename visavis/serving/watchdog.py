"""This is where a server's models are watched, and loaded anew when one has died or hangs.

    Watchdog(ServedModels(…)).run(stop)

Triton goes on calling a model ready whose process is gone, and never starts it again. So its
processes are looked at several times a second, which costs nothing. A process that is there may
still hang: a model that has done nothing for a while is asked something small (a canary), seldom,
as on a machine of two cores every network's turn is felt. Unloading and loading mends both; those
sessions whose blocks were under way are resumed by their clients. What hangs is killed first:
Triton would wait for its end for ever, and at times falls when it is unloaded. A model that does
not answer while others do may be waiting for its turn on a crowded machine, so it is asked several
times before it counts as hanging.

`Server` has one for its own server; `visavis.serving.watch` is for one that somebody else started.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import psutil
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from visavis.config import EchoConfig
from visavis.contract import ModelContract, contracts
from visavis.serving.session_log import CANARY
from visavis.serving.tracing import UNTRACED

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
QUIET_S = 2.0  # after so long without work a model is asked something,
ASK_EVERY_S = 10.0  # and then this often
ANSWER_WITHIN_S = 3.0
RELOADED_WITHIN_S = 120.0  # unloaded, and loaded; whoever stops a server waits for it no longer
PATIENCE = 3  # unanswered canaries in a row, while others answer, until a model counts as hanging
STUB = "triton_python_backend_stub"


class ServerGone(RuntimeError):
    """The server's process has ended, and there is no other in its place."""


class Models(Protocol):
    """What is watched. A server that does not answer is an `InferenceServerException`, one whose
    process has ended `ServerGone`."""

    def processes(self) -> Mapping[str, int]:
        """How many live processes each model has, of those that have processes of their own."""
        ...

    def answered(self) -> Mapping[str, int]:
        """How many requests each model has answered so far, and not by an error."""
        ...

    def ask(self, model: str) -> bool:
        """Whether a model answers at all."""
        ...

    def reload(self, model: str) -> None:
        """Unload and load a model."""
        ...


@dataclass
class Watch:
    """What is known of one model."""

    processes: int = 0  # the most that were seen
    answered: int = 0
    quiet_since_s: float = 0.0
    asked_s: float = field(default=-ASK_EVERY_S)
    unanswered: int = 0  # canaries in a row


@dataclass
class Counts:
    """What a watchdog has done, by model. `restarts`: of the server itself, by whoever keeps it.
    `looked_s`: the time of its last look, since 1970."""

    reloads: Counter[str] = field(default_factory=Counter)
    canaries: Counter[str] = field(default_factory=Counter)
    failed_canaries: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    looked_s: float = 0.0


class Watchdog:
    """Looks at models again and again, and counts what it does."""

    def __init__(self, models: Models, *, clock: Callable[[], float] = time.monotonic):
        self.models = models
        self.clock = clock
        self.counts = Counts()
        self.watches: dict[str, Watch] = {}

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set. A server that does not answer is not this one's business."""
        answers = True
        while not stop.wait(LOOK_EVERY_S):
            try:
                self.look()
                answers = True
            except (InferenceServerException, ServerGone) as error:
                if answers:  # once an outage
                    LOG.warning("watchdog: %s", error)
                answers = False
                if isinstance(error, ServerGone):
                    self.watches.clear()  # the next one begins with other processes

    def learn(self) -> None:
        """Take what lives now for what should."""
        self._dead()
        self.counts.looked_s = time.time()

    def look(self) -> None:
        """Look once, and mend what is broken."""
        for model in self._dead() or self._hanging():
            LOG.error("watchdog: %s does not live or does not answer; loading it anew", model)
            self.models.reload(model)
            watch = self.watches[model]
            watch.processes, watch.quiet_since_s, watch.unanswered = 0, self.clock(), 0
            self.counts.reloads[model] += 1
        self.counts.looked_s = time.time()

    def _dead(self) -> list[str]:
        found = self.models.processes()
        for model, count in found.items():
            watch = self.watches.setdefault(model, Watch())
            watch.processes = max(watch.processes, count)
        return [m for m, watch in self.watches.items() if found.get(m, 0) < watch.processes]

    def _hanging(self) -> list[str]:
        now_s, found = self.clock(), self.models.answered()
        for model, answered in found.items():
            watch = self.watches.setdefault(model, Watch(quiet_since_s=now_s))
            if answered != watch.answered:
                watch.answered, watch.quiet_since_s, watch.unanswered = answered, now_s, 0
            quiet_s, unasked_s = now_s - watch.quiet_since_s, now_s - watch.asked_s
            if quiet_s >= QUIET_S and (unasked_s >= ASK_EVERY_S or watch.unanswered):
                watch.asked_s = now_s
                # One a look, lest they be felt.
                return [model] if self._hangs(model, watch, found) else []
        return []

    def _hangs(self, model: str, watch: Watch, before: Mapping[str, int]) -> bool:
        """Whether a model is given up. Args: before, what each has answered before it is asked."""
        answers = self.models.ask(model)
        self.counts.canaries[model] += 1
        self.counts.failed_canaries[model] += not answers
        watch.unanswered = 0 if answers else watch.unanswered + 1
        if answers:
            return False
        crowded = self.models.answered() != before
        return watch.unanswered >= PATIENCE or not crowded


class ServedModels:
    """The models of a server.

    Args:
        url: host:port of gRPC.
        config: the size that is served.
        find: gives the process of `tritonserver`, None when there is none now; it is asked again
            once that has ended. Without it the server is elsewhere, and its processes are not seen.
        headers: that admit to the model repository's protocol, where it is restricted.
        channel: further arguments of `tritonclient.grpc.InferenceServerClient`, such as those of
            TLS.
    """

    def __init__(
        self,
        url: str,
        config: EchoConfig,
        find: Callable[[], psutil.Process | None] | None = None,
        headers: dict[str, str] | None = None,
        channel: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.connect = partial(triton.InferenceServerClient, url, **channel)
        self.client = self.connect()
        self.contracts = {m.name: m for m in contracts(config).values() if m.kind != "ensemble"}
        self.find = find
        self.process: psutil.Process | None = None
        self.headers = headers

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def processes(self) -> Mapping[str, int]:
        """How many live stubs each model has; a backend in C++ has none."""
        return Counter(model for model, _ in self.stubs())

    def stubs(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every live stub, and the model that it is of."""
        for process in [] if self.find is None else _children(self._server(self.find)):
            if model := self._model_of(process):
                yield model, process

    def _server(self, find: Callable[[], psutil.Process | None]) -> psutil.Process:
        if self.process is None or not lives(self.process):
            self.process = find()
        if self.process is None:
            raise ServerGone("the server's process has ended; waiting for another")
        return self.process

    def _model_of(self, process: psutil.Process) -> str | None:
        """Whose stub a process is: its arguments begin with its name and the model's file."""
        try:
            command = process.cmdline()
        except psutil.Error:  # a zombie has no arguments, and others may end at any time
            return None
        if len(command) < 2 or not command[0].endswith(STUB):
            return None
        model = Path(command[1]).parents[1].name
        return model if model in self.contracts else None

    def answered(self) -> Mapping[str, int]:
        """Successes of each model: what is not healthy fails all day."""
        message: Any = self.client.get_inference_statistics(client_timeout=ANSWER_WITHIN_S)
        return {
            model.name: model.inference_stats.success.count
            for model in message.model_stats
            if model.name in self.contracts
        }

    def ask(self, model: str) -> bool:
        """Ask for an inference on zeros. A refusal is an answer: it comes from the process."""
        contract = self.contracts[model]
        try:
            if contract.kind == "session":
                return self._refuses(model)
            self.client.infer(model, canary(contract), client_timeout=ANSWER_WITHIN_S)
        except InferenceServerException as error:
            return "INVALID_ARG" in str(error)
        return True

    def _refuses(self, model: str) -> bool:
        """Whether sessions answer: one that cannot begin is refused by their process."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        options = triton.InferInput("options", [1], "BYTES")
        options.set_data_from_numpy(np.array([b'{"canary": true}'], np.object_))
        with self.connect() as client:
            client.start_stream(lambda result, error: answers.put(error))
            client.async_stream_infer(
                model,
                [options],
                sequence_id=f"{CANARY}{uuid.uuid4()}",  # type: ignore[arg-type]  # strings are, too
                sequence_start=True,
                sequence_end=True,
                parameters=UNTRACED,
            )
            try:
                return "INVALID_ARG" in str(answers.get(timeout=ANSWER_WITHIN_S))
            except queue.Empty:
                return False
            finally:
                client.stop_stream(cancel_requests=True)

    def reload(self, model: str) -> None:
        """End what is left of it, unload and load; loading alone does nothing for what Triton holds
        to be loaded."""
        for name, process in self.stubs():
            if name == model:
                with suppress(psutil.Error):  # it ended meanwhile
                    process.kill()
        how = {"headers": self.headers, "client_timeout": RELOADED_WITHIN_S}
        self.client.unload_model(model, **how)
        self.client.load_model(model, **how)


def lives(process: psutil.Process) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def living(pid: int) -> psutil.Process | None:
    """The process, if it lives."""
    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return None
    return process if lives(process) else None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error as error:
        raise ServerGone(f"the server's process has ended ({error})") from error


def canary(contract: ModelContract) -> list[triton.InferInput]:
    """The smallest request of a model, all zeros."""
    inputs = []
    for spec in contract.inputs:
        array = np.zeros((1, *(1 if n == -1 else n for n in spec.dims)), spec.numpy_dtype)
        tensor = triton.InferInput(spec.name, list(array.shape), spec.dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs
