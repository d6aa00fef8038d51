"""This is where values become Triton's messages, and messages values.

`Request` and `Response` are one message each way, free of protobuf: they are what a transport
carries. The sync and the async transport share everything here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from visavis.contract import TRITON_TO_NUMPY, TensorSpec
from visavis_client._errors import (
    AudioError,
    InputError,
    RequestRefused,
    ServerError,
    ServerUnavailable,
    SessionNotFound,
)
from visavis_client._types import ModelStatistics, ServerInfo

SESSION_MODEL = "echo_session"
STEP_MODEL = "echo"

LOUDEST = 4.0  # beyond it, a sound is not in [-1, 1] but in another scale (16-bit integers, say)

_NUMPY_TO_TRITON = {np.dtype(numpy): triton for triton, numpy in TRITON_TO_NUMPY.items()}

# A gRPC stream carries an error's text and not its code, so our models begin theirs with "[CODE] ".
_CODES: dict[str, type[ServerError]] = {
    "INVALID_ARG": RequestRefused,
    "NOT_FOUND": SessionNotFound,
    "UNAVAILABLE": ServerUnavailable,
}
# What Triton itself says before a request reaches our models.
_TRITON_TEXTS: tuple[tuple[str, type[ServerError]], ...] = (
    (r"must specify the START flag", SessionNotFound),
    (r"not ready|unknown model|not healthy|Exceeds maximum|[Tt]imeout expired", ServerUnavailable),
    (r"^(unexpected|expected|input .* expected|got .* input)", RequestRefused),
)

Message = Any  # protobuf makes its classes at import, so nothing is known of them statically
pb: Any = service_pb2


@dataclass(frozen=True, eq=False)
class Request:
    """One message to `echo_session`. `timeout_s` bounds the wait for a free place, at the start.
    `trace` holds the headers of the trace that it belongs to (W3C: traceparent, tracestate)."""

    id: str
    sequence_id: str
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    start: bool = False
    end: bool = False
    timeout_s: float | None = None
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Response:
    """One message from `echo_session`. `final`: it is the last one for its request."""

    request_id: str
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    final: bool = False
    error: ServerError | None = None


def encode(request: Request) -> Message:
    """A request as Triton's message."""
    message = pb.ModelInferRequest(model_name=SESSION_MODEL, id=request.id)
    parameters = message.parameters
    parameters["sequence_id"].string_param = request.sequence_id
    parameters["sequence_start"].bool_param = request.start
    parameters["sequence_end"].bool_param = request.end
    # Without this, a request that completes no block would be answered by silence.
    parameters["triton_enable_empty_final_response"].bool_param = True
    if request.timeout_s is not None:
        parameters["timeout"].int64_param = int(request.timeout_s * 1e6)
    for name, header in request.trace.items():
        parameters[name].string_param = header
    for name, array in request.tensors.items():
        message.inputs.add(name=name, datatype=_NUMPY_TO_TRITON[array.dtype], shape=array.shape)
        message.raw_input_contents.append(_to_bytes(array))
    return message


def decode(message: Message) -> Response:
    """Triton's message as a response."""
    answer = message.infer_response
    if message.error_message:
        return Response(answer.id, final=True, error=refusal(message.error_message))
    tensors = {
        output.name: _from_bytes(output.datatype, tuple(output.shape), content)
        for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    return Response(answer.id, tensors, answer.parameters["triton_final_response"].bool_param)


def refusal(message: str) -> ServerError:
    """The exception for the text of an error that came inside a stream."""
    text = re.sub(r"^\[request id: [^\]]*\] ", "", message)
    if full := re.match(r"\[UNAVAILABLE\] retry_after_s=([\d.]+) ", text):
        return ServerUnavailable(text[full.end() :], retry_after_s=float(full[1]))
    if coded := re.match(r"\[([A-Z_]+)\] ", text):
        return _CODES.get(coded[1], ServerError)(text[coded.end() :])
    for pattern, error in _TRITON_TEXTS:
        if re.search(pattern, text):
            return error(text)
    return ServerError(text)


def server_info(session: Message, step: Message) -> ServerInfo:
    """What the client needs, from the metadata of `echo_session` and `echo`."""
    inputs = {
        tensor.name: TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape))
        for tensor in session.inputs
    }
    frames = next((tensor.shape for tensor in step.outputs if tensor.name == "frames"), None)
    if "portrait" not in inputs or frames is None:
        raise ServerUnavailable(
            f"model repository: got {SESSION_MODEL} with inputs {sorted(inputs)} and {STEP_MODEL} "
            f"with outputs {[t.name for t in step.outputs]}, expected portrait and frames among "
            "them; serve visavis's own model_repository"
        )
    return ServerInfo(
        image_size=inputs["portrait"].dims[-2], block_frames=frames[-4], inputs=inputs
    )


def model_statistics(message: Message) -> dict[str, ModelStatistics]:
    """Statistics by model name."""
    return {
        model.name: ModelStatistics(
            model.name,
            executions=model.execution_count,
            rows=model.inference_count,
            compute_s=model.inference_stats.compute_infer.ns / 1e9,
            queue_s=model.inference_stats.queue.ns / 1e9,
        )
        for model in message.model_stats
    }


def checked(tensors: Mapping[str, np.ndarray], info: ServerInfo) -> dict[str, np.ndarray]:
    """`tensors` as they are, once each fits the server's contract; InputError otherwise."""
    for name, array in tensors.items():
        if mismatch := info.inputs[name].mismatch(array):
            raise InputError(mismatch)
    return dict(tensors)


def waveform(name: str, samples: np.ndarray) -> np.ndarray:
    """`samples` as (n,) float32, once it is a sound: one channel, finite, within [-1, 1]."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{name}: got {samples.shape} {samples.dtype}, expected (n,) float32 at 16 kHz in "
            "[-1, 1]; average the channels, and divide 16-bit integers by 32768"
        )
    finite = np.isfinite(samples)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise AudioError(
            f"{name}: got {samples[bad]} at sample {bad}, expected finite samples in [-1, 1]; "
            "mend or cut that part"
        )
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > LOUDEST:
        raise AudioError(
            f"{name}: got samples up to {peak:.4g}, expected [-1, 1]; divide them (16-bit "
            "integers by 32768)"
        )
    return np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)


def _to_bytes(array: np.ndarray) -> bytes:
    if array.dtype == np.object_:
        return serialize_byte_tensor(array).item()
    return np.ascontiguousarray(array).tobytes()


def _from_bytes(datatype: str, shape: tuple[int, ...], content: bytes) -> np.ndarray:
    if datatype == "BYTES":
        return deserialize_bytes_tensor(content).reshape(shape)
    return np.frombuffer(content, TRITON_TO_NUMPY[datatype]).reshape(shape)
