# What the server's Python backend provides to a running model; nothing of it can be installed.
from typing import Any

TRITONSERVER_MEMORY_CPU: int
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START: int
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END: int
TRITONSERVER_RESPONSE_COMPLETE_FINAL: int

InferenceRequest: Any
InferenceResponse: Any
Logger: Any
MetricFamily: Any
PreferredMemory: Any
Tensor: Any
TritonError: Any

class TritonModelException(Exception): ...
