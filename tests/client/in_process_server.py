"""This is where a Triton server is pretended, over real gRPC, in this process.

It speaks Triton's own protocol from tritonclient's stubs, written apart from the client's encoding,
and answers like `echo_session`: by default with grey frames that count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    serialize_byte_tensor,
    triton_to_np_dtype,
)
from visavis_client import FakeTransport, Request, Response

from visavis.config import EchoConfig
from visavis.contract import contracts

pb: Any = service_pb2
SIZE = 32
BLOCK_FRAMES = 5

Behaviour = Callable[[Request], Iterator[Response | str] | list[Response | str]]


class InProcessServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """`behaviour` answers a request by responses, or by the text of an error. `lost`, when set, is
    the status with which the stream breaks at the next request; then the server is back."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = FakeTransport(
            image_size=SIZE, block_frames=BLOCK_FRAMES
        ).respond  # type: ignore[assignment]
        self.requests: list[Request] = []
        self.cancelled = threading.Event()
        self.lost: grpc.StatusCode | None = None
        self.models = contracts(EchoConfig(image_size=SIZE))
        self._grpc = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._grpc)
        self.url = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._grpc.start()

    def stop(self) -> None:
        self._grpc.stop(None).wait()

    def ModelMetadata(self, request, context):
        if request.name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {request.name!r}")
        model = self.models[request.name]
        batch = [] if model.kind == "session" else [-1]
        message = pb.ModelMetadataResponse(name=model.name)
        for ports, specs in ((message.inputs, model.inputs), (message.outputs, model.outputs)):
            for spec in specs:
                ports.add(name=spec.name, datatype=spec.dtype, shape=[*batch, *spec.dims])
        return message

    def ModelStatistics(self, request, context):
        message = pb.ModelStatisticsResponse()
        for count, name in enumerate(self.models, 1):
            model = message.model_stats.add(name=name, execution_count=count)
            model.inference_stats.compute_infer.ns = count * 10**9
        return message

    def ModelStreamInfer(self, request_iterator, context):
        context.add_callback(lambda: context.code() is None and self.cancelled.set())
        for message in request_iterator:
            request = _request(message)
            self.requests.append(request)
            if self.lost is not None:
                status, self.lost = self.lost, None
                context.abort(status, "the server went away")
            for answer in self.behaviour(request):
                yield _message(request, answer)


def _request(message: Any) -> Request:
    tensors = {}
    for tensor, content in zip(message.inputs, message.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            array = deserialize_bytes_tensor(content)
        else:
            array = np.frombuffer(content, triton_to_np_dtype(tensor.datatype))
        tensors[tensor.name] = array.reshape(tuple(tensor.shape))
    flags = message.parameters
    assert flags["triton_enable_empty_final_response"].bool_param
    timeout_us = flags["timeout"].int64_param if "timeout" in flags else None
    return Request(
        message.id,
        flags["sequence_id"].string_param,
        tensors,
        flags["sequence_start"].bool_param,
        flags["sequence_end"].bool_param,
        None if timeout_us is None else timeout_us / 1e6,
        {name: flags[name].string_param for name in ("traceparent",) if name in flags},
    )


def _message(request: Request, answer: Response | str) -> Any:
    if isinstance(answer, str):
        return pb.ModelStreamInferResponse(
            error_message=answer, infer_response=pb.ModelInferResponse(id=request.id)
        )
    message = pb.ModelInferResponse(model_name="echo_session", id=request.id)
    message.parameters["triton_final_response"].bool_param = answer.final
    for name, array in answer.tensors.items():
        text = array.dtype == np.object_
        datatype = {"O": "BYTES", "i": "INT64", "u": "UINT8"}[array.dtype.kind]
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        content = serialize_byte_tensor(array).item() if text else array.tobytes()
        message.raw_output_contents.append(content)
    return pb.ModelStreamInferResponse(infer_response=message)
