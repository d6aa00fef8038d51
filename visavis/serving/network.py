"""This is where an ONNX file runs: requests of equal shape share one batch.

Used by the Python-based backend `onnxruntime` (`backend_onnxruntime/model.py`), which takes the
place of Triton's own where that is absent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from visavis.contract import TRITON_TO_NUMPY

ONNX_TO_TRITON = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float)": "FP32",
}
Arrays = Mapping[str, np.ndarray]


class Network:
    """One ONNX Runtime session.

    Args:
        path: the file; by path, because its weights may lie beside it.
        threads: of one pass; all instances together should not pass the number of cores.
        rows_per_pass: how many rows of a batch go through the network at once. With 1, what a
            session gets does not depend on who shares its batch: rounding differs between batch
            sizes. On a processor it costs little (denoiser 15 %, others nothing).
    """

    def __init__(self, path: str | Path, threads: int, rows_per_pass: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread takes the core from the other models of the pipeline.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.path = Path(path)
        self.rows_per_pass = rows_per_pass
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run_all(self, requests: Sequence[Arrays]) -> list[Arrays | Exception]:
        """Each request's outputs, or the exception that is its own; arrays have a batch axis."""
        outcomes: list[Arrays | Exception] = [RuntimeError("not run")] * len(requests)
        for places in _alike(requests):
            for place, outcome in zip(
                places, self._run_alike([requests[place] for place in places]), strict=True
            ):
                outcomes[place] = outcome
        return outcomes

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name."""
        rows = len(next(iter(inputs.values())))
        passes: list[Any] = [
            self.session.run(
                self.outputs,
                {name: a[first : first + self.rows_per_pass] for name, a in inputs.items()},
            )
            for first in range(0, rows, self.rows_per_pass)
        ]
        return {
            name: np.concatenate(parts)
            for name, parts in zip(self.outputs, zip(*passes, strict=True), strict=True)
        }

    def _run_alike(self, requests: list[Arrays]) -> list[Arrays | Exception]:
        if len(requests) == 1:
            try:
                return [self.run(requests[0])]
            except Exception as error:  # becomes this request's answer
                return [error]
        names = requests[0].keys()
        stacked = {name: np.concatenate([request[name] for request in requests]) for name in names}
        try:
            outputs = self.run(stacked)
        except Exception:  # one by one, so that only the guilty request fails
            return [outcome for request in requests for outcome in self._run_alike([request])]
        sizes = [len(next(iter(request.values()))) for request in requests]
        ends = np.cumsum(sizes)
        return [
            {name: array[end - size : end] for name, array in outputs.items()}
            for size, end in zip(sizes, ends, strict=True)
        ]

    def problems(self, model_config: Mapping[str, Any]) -> list[str]:
        """How Triton's config of this model differs from the file: names, types, dims."""
        return [
            problem
            for key, ports in (
                ("input", self.session.get_inputs()),
                ("output", self.session.get_outputs()),
            )
            for problem in _port_problems(key, model_config[key], ports, self.path)
        ]

    def warm_up(self, model_config: Mapping[str, Any]) -> None:
        """One pass over zeros, so that no client waits for first-time allocations."""
        self.run(
            {
                port["name"]: np.zeros(
                    (1, *(max(int(n), 1) for n in port["dims"])),
                    TRITON_TO_NUMPY[port["data_type"].removeprefix("TYPE_")],
                )
                for port in model_config["input"]
            }
        )


def _alike(requests: Sequence[Arrays]) -> list[list[int]]:
    """Places of requests whose inputs differ in batch size alone."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        groups[tuple((name, a.dtype, a.shape[1:]) for name, a in sorted(request.items()))].append(
            place
        )
    return list(groups.values())


def _port_problems(
    key: str, declared: Sequence[Any], ports: Sequence[Any], path: Path
) -> list[str]:
    configured = {
        port["name"]: (port["data_type"].removeprefix("TYPE_"), [int(n) for n in port["dims"]])
        for port in declared
    }
    in_file = {
        port.name: (
            ONNX_TO_TRITON.get(port.type, port.type),
            [n if isinstance(n, int) else -1 for n in port.shape[1:]],
        )
        for port in ports
    }
    return [
        f"{key} {name}: got {configured.get(name, 'none')} in config.pbtxt, expected "
        f"{in_file.get(name, 'none')} as in {path}; write the repository again"
        for name in sorted({*configured, *in_file})
        if configured.get(name) != in_file.get(name)
    ]
