"""This is where Triton's requests, tensors and responses turn into dicts of arrays and back.

Importable only inside the server (or beside a stand-in for its `triton_python_backend_utils`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from visavis.serving import tracing
from visavis.serving.errors import code_of, text_of

Arrays = Mapping[str, np.ndarray]


def arrays(request: Any) -> dict[str, np.ndarray]:
    """The inputs of `request` by name: views, valid as long as the request is held."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def parameters(request: Any) -> dict[str, Any]:
    """The parameters that came with `request`."""
    return json.loads(request.parameters())


def response(outcome: Arrays | Exception) -> Any:
    """A response of tensors, or of the error."""
    if isinstance(outcome, Exception):
        return pb_utils.InferenceResponse(error=triton_error(outcome))
    outputs = [pb_utils.Tensor(name, np.ascontiguousarray(a)) for name, a in outcome.items()]
    return pb_utils.InferenceResponse(outputs)


def triton_error(error: Exception) -> Any:
    """`error` with its code, as Triton sends it."""
    return pb_utils.TritonError(text_of(error), getattr(pb_utils.TritonError, code_of(error)))


def respond(
    model: str,
    requests: Sequence[Any],
    run: Callable[[list[Arrays]], Sequence[Arrays | Exception]],
) -> list[Any]:
    """One response per request; `run` answers each with arrays or with its own exception."""
    with tracing.batch(model, (parameters(request) for request in requests)):
        try:
            outcomes = run([arrays(request) for request in requests])
        except Exception as error:  # the request boundary: whatever happens, the client hears of it
            outcomes = [error] * len(requests)
    return [response(outcome) for outcome in outcomes]


class Reply:
    """The stream back to the client of one request of a decoupled model."""

    def __init__(self, request: Any):
        self.sender = request.get_response_sender()
        self.closed = False

    def send(self, tensors: Arrays) -> None:
        """One response."""
        self.sender.send(response(tensors))

    def fail(self, error: Exception) -> None:
        """The error, as the last response, unless there was one."""
        tracing.failed(error)
        if self.closed:
            return
        self.closed = True
        self.sender.send(response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def close(self) -> None:
        """The final flag, without which the request would stay open for ever."""
        if not self.closed:
            self.closed = True
            self.sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled the request or gone away."""
        return self.sender.is_cancelled()
