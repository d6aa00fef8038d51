"""This is where tests speak to `echo_session` as plainly as possible: raw tritonclient, no SDK."""

from __future__ import annotations

import json
import queue
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import np_to_triton_dtype

WAIT_S = 30.0  # far beyond any answer of the stand-in networks


@dataclass
class Answer:
    """Everything that came for one request."""

    frames: dict[int, bytes] = field(default_factory=dict)  # by frame number
    blocks: list[int] = field(default_factory=list)  # first frame of each response
    snapshot: bytes | None = None
    error: str | None = None


class Stream:
    """One gRPC stream."""

    def __init__(self, url: str):
        self.client = grpc.InferenceServerClient(url)
        self.arrived: queue.Queue = queue.Queue()
        self.client.start_stream(lambda result, error: self.arrived.put((result, error)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()

    def cancel(self) -> None:
        """Leave without waiting for answers."""
        self.client.stop_stream(cancel_requests=True)

    def send(
        self,
        session_id: str,
        *,
        start: bool = False,
        end: bool = False,
        parameters: dict[str, str] | None = None,
        **tensors: Any,
    ) -> None:
        """One request; `tensors` by name."""
        inputs = []
        for name, array in tensors.items():
            tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        self.client.async_stream_infer(
            "echo_session",
            inputs,
            request_id=uuid.uuid4().hex,
            sequence_id=session_id,  # type: ignore[arg-type]  # strings are served too
            sequence_start=start,
            sequence_end=end,
            enable_empty_final_response=True,
            parameters=parameters,
        )

    def receive(self) -> Answer:
        """The answer to the oldest open request."""
        answer = Answer()
        while True:
            result, error = self.arrived.get(timeout=WAIT_S)
            if error is not None:
                answer.error = error.message()
                return answer
            first_frame, images = result.as_numpy("first_frame"), result.as_numpy("images")
            if images is not None:
                answer.blocks.append(int(first_frame[0]))
                answer.frames.update(enumerate(images, int(first_frame[0])))
            if result.as_numpy("snapshot") is not None:
                answer.snapshot = result.as_numpy("snapshot").tobytes()
            if result.get_response().parameters["triton_final_response"].bool_param:
                return answer

    def ask(self, session_id: str, **request: Any) -> Answer:
        """Send, then receive."""
        self.send(session_id, **request)
        return self.receive()


def new_id() -> str:
    """A session's id."""
    return str(uuid.uuid4())


def text(value: object) -> np.ndarray:
    """A value as the JSON of a BYTES tensor."""
    return np.array([json.dumps(value).encode()], np.object_)
