"""This is where an ONNX file runs: requests of equal shape share one batch.

Used by the Python-based backend `onnxruntime` (`backend_onnxruntime/model.py`), which takes the
place of Triton's own where that is absent.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from visavis.checkpoint import MANIFEST_FILE
from visavis.contract import TRITON_TO_NUMPY
from visavis.serving.model_args import parameters
from visavis.serving.providers import OpenVINO, open_session, wish

INT8_FILE = "model.int8.onnx"
ONNX_TO_TRITON = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float)": "FP32",
}
WEIGHTS_KEY = "weights_sha256"  # in a file that holds weights of its own: which they come from
Arrays = Mapping[str, np.ndarray]


class Network:
    """One ONNX Runtime session.

    Args:
        path: the file; by path, because its weights may lie beside it.
        threads: of one pass; all instances together should not pass the number of cores.
        rows_per_pass: how many rows of a batch go through the network at once. With 1, what a
            session gets does not depend on who shares its batch: rounding differs between batch
            sizes. On a processor it costs little (denoiser 15 %, others nothing).
        accelerator: what computes it instead of ONNX Runtime itself (`visavis.serving.providers`).
    """

    def __init__(
        self,
        path: str | Path,
        threads: int,
        rows_per_pass: int = 1,
        accelerator: OpenVINO | None = None,
    ):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread takes the core from the other models of the pipeline.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.path = Path(path)
        self.rows_per_pass = rows_per_pass
        self.accelerator = accelerator
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{path}: got no file, expected the network that the model's config names; write "
                f"it with `{writer(self.path)}`"
            )
        self.session = open_session(self.path, options, accelerator)
        self.outputs = [output.name for output in self.session.get_outputs()]

    @classmethod
    def of(cls, version: Path, model_config: Mapping[str, Any]) -> Network:
        """The network in a version's folder, run as Triton's config of the model says."""
        values = parameters(model_config)
        return cls(
            version / model_config["default_model_filename"],
            threads=int(values["intra_op_thread_count"]),
            rows_per_pass=int(values.get("rows_per_pass", 1)),
            accelerator=wish(model_config),
        )

    @property
    def provider(self) -> str:
        """What computes it, and from which file."""
        name = self.session.get_providers()[0]
        precision = f" in {self.accelerator.precision}" if self.accelerator else ""
        return f"{self.path.name} by {name}{precision}"

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
        """Where the file is not what Triton's config says (names, types, dims), or is outdated."""
        return [
            problem
            for key, ports in (
                ("input", self.session.get_inputs()),
                ("output", self.session.get_outputs()),
            )
            for problem in _port_problems(key, model_config[key], ports, self.path)
        ] + _weight_problems(self.path, self.session.get_modelmeta().custom_metadata_map)

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


def _weight_problems(path: Path, metadata: Mapping[str, str]) -> list[str]:
    """Whether a file with weights of its own has those of the checkpoint beside it."""
    manifest = path.parent / MANIFEST_FILE
    if WEIGHTS_KEY not in metadata or not manifest.is_file():
        return []
    made_from, now = metadata[WEIGHTS_KEY], json.loads(manifest.read_text())["sha256"]
    if made_from == now:
        return []
    return [
        f"{path}: got the weights of {made_from[:12]}…, expected those of {now[:12]}…, as in "
        f"{manifest}; write it again with `{writer(path)}`"
    ]


def writer(path: Path) -> str:
    """The command that writes a network's file, REPOSITORY/MODEL/VERSION/FILE."""
    module = "export.int8" if path.name == INT8_FILE else "export"
    repository = path.resolve().parent.parent.parent
    return f"python -m {module} --repository {repository}"
