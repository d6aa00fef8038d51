"""This is where one model calls another by name (business logic scripting)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import triton_python_backend_utils as pb_utils

from visavis.serving import tracing
from visavis.serving.errors import StageFailed


def call(
    model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """The `outputs` of `model` for `inputs`, with batch axis.

    Blocks without holding Python's lock, so it may be used from several threads. It is part of the
    current trace, if there is one.

    Raises:
        StageFailed: the model answered with an error; the message names it.
    """
    with tracing.call(model) as parameters:
        request = pb_utils.InferenceRequest(
            model_name=model,
            requested_output_names=list(outputs),
            inputs=[pb_utils.Tensor(name, np.ascontiguousarray(a)) for name, a in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
            parameters=parameters,
        )
        response = request.exec()
        if response.has_error():
            raise StageFailed(
                f"{model}: got the error {response.error().message()!r}, expected "
                f"{', '.join(outputs)}; see the server's log"
            )
        # Copies, so that the shared memory of the answer is free again.
        return {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}
