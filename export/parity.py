"""This is where an exported file is held against the network it came from.

Both get the same inputs, at two batch sizes; the figure is the greatest absolute difference over
all outputs. Outputs are of order one, pictures of order 255 (where one grey level is rounding).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from export.onnx import example
from visavis.contract import ModelContract

TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1.0
BATCHES = (1, 3)


@dataclass(frozen=True)
class Parity:
    """How far an ONNX file is from its network."""

    model: str
    max_abs_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the file may be served."""
        return self.max_abs_error <= self.tolerance


def compare(network: nn.Module, path: Path, contract: ModelContract) -> Parity:
    """The parity of the ONNX file `path` with `network`, over random inputs of the contract."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    errors = [_error(network, session, contract, batch) for batch in BATCHES]
    pixels = any(spec.dtype == "UINT8" for spec in contract.outputs)
    return Parity(contract.name, max(errors), PIXEL_TOLERANCE if pixels else TOLERANCE)


def _error(
    network: nn.Module,
    session: onnxruntime.InferenceSession,
    contract: ModelContract,
    batch: int,
) -> float:
    inputs = {spec.name: example(spec, batch, seed=batch) for spec in contract.inputs}
    with torch.inference_mode():
        outputs = network(*inputs.values())
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    names = [spec.name for spec in contract.outputs]
    got: Any = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return max(
        float(np.abs(ours.numpy().astype(np.float64) - theirs.astype(np.float64)).max())
        for ours, theirs in zip(expected, got, strict=True)
    )
