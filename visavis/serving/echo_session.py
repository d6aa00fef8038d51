"""This is where Triton's `echo_session` begins: conversations by correlation id, which
`visavis.serving.session_host` holds.

Decoupled and asynchronous, so that sessions overlap: a synchronous `execute` would run one sequence
at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from visavis import affect
from visavis.serving import bls, logs, tensors, tracing
from visavis.serving.admission import limit_of
from visavis.serving.metrics import SessionMetrics
from visavis.serving.model_args import parameters, size
from visavis.serving.session_host import Message, SessionHost
from visavis.serving.session_log import known_as


class TritonPythonModel:
    """Signals in, frames out, for as long as a conversation lasts."""

    def initialize(self, args: dict[str, str]) -> None:
        """The host, as the model's parameters and the environment say."""
        logs.start()
        tracing.start()
        values = parameters(json.loads(args["model_config"]))
        self.host = SessionHost(
            size(args),
            bls.call,
            affect.load(values["affect"], os.environ.get("OPENAI_API_KEY")),
            max_sessions=limit_of(os.environ.get("VISAVIS_MAX_SESSIONS") or values["max_sessions"]),
            idle_s=float(values["idle_s"]),
            yield_after_s=float(values["yield_after_s"]),
            watcher=SessionMetrics(args["model_instance_name"]),
        )

    async def execute(self, requests: Sequence[Any]) -> None:
        """Every request is answered by itself."""
        await asyncio.gather(*(self.answer(request) for request in requests))

    async def answer(self, request: Any) -> None:
        """One signal's frames, or its error."""
        reply = tensors.Reply(request)
        try:
            asked = message(request)
            with tracing.message(
                "echo_session", tensors.parameters(request), session=known_as(asked.session_id)
            ):
                await self.host.serve(asked, reply)
        except Exception as error:  # else its request would stay open for ever
            reply.fail(error)

    def finalize(self) -> None:
        """All sessions end."""
        self.host.close()
        tracing.stop()


def message(request: Any) -> Message:
    """The request as the host reads it."""
    flags = request.flags()
    return Message(
        session_id=str(request.correlation_id()),
        start=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
        end=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
        tensors=tensors.arrays(request),
    )
