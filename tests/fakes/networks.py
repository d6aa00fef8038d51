"""This is where stand-ins for the networks come from: ONNX files of the contract's tensors, made of
a little arithmetic in which every output depends on every input. They need no torch and no time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from visavis.config import EchoConfig
from visavis.contract import ModelContract, TensorSpec, contracts

ONNX_TYPES = {
    "UINT8": TensorProto.UINT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP32": TensorProto.FLOAT,
}


def write_networks(repository: Path, config: EchoConfig) -> None:
    """`1/model.onnx` of every ONNX model into a written repository."""
    for model in contracts(config).values():
        if model.kind == "onnx":
            onnx.save(stand_in(model), str(repository / model.name / "1" / "model.onnx"))


def stand_in(model: ModelContract) -> onnx.ModelProto:
    """z = sum over inputs of <pattern, input>; each output is sin(z + pattern)."""
    nodes, constants, sums = [], [], []
    for place, spec in enumerate(model.inputs):
        kept, size = _flat(spec)
        pattern = _pattern(size, place) / np.sqrt(size)
        constants += [
            _constant(f"{spec.name}.pattern", pattern),
            _constant(f"{spec.name}.flat", np.array([0] * kept + [-1], np.int64)),
        ]
        nodes += [
            helper.make_node("Cast", [spec.name], [f"{spec.name}.float"], to=TensorProto.FLOAT),
            helper.make_node(
                "Reshape", [f"{spec.name}.float", f"{spec.name}.flat"], [f"{spec.name}.row"]
            ),
            helper.make_node(
                "Mul", [f"{spec.name}.row", f"{spec.name}.pattern"], [f"{spec.name}.product"]
            ),
            helper.make_node(
                "ReduceSum", [f"{spec.name}.product", "last"], [f"{spec.name}.sum"], keepdims=1
            ),
        ]
        sums.append(f"{spec.name}.sum")
    constants.append(_constant("last", np.array([-1], np.int64)))
    nodes.append(helper.make_node("Sum", sums, ["z"]))
    for place, spec in enumerate(model.outputs):
        kept, size = _flat(spec)
        shape = [0] * kept + list(spec.dims[kept - 1 :])
        constants += [
            _constant(f"{spec.name}.out_pattern", _pattern(size, 100 + place)),
            _constant(f"{spec.name}.shape", np.array(shape, np.int64)),
        ]
        nodes += [
            helper.make_node("Add", ["z", f"{spec.name}.out_pattern"], [f"{spec.name}.angle"]),
            helper.make_node("Sin", [f"{spec.name}.angle"], [f"{spec.name}.wave"]),
            *_scaled(spec, constants),
            helper.make_node("Reshape", [f"{spec.name}.typed", f"{spec.name}.shape"], [spec.name]),
        ]
    graph = helper.make_graph(
        nodes,
        model.name,
        [_port(spec) for spec in model.inputs],
        [_port(spec) for spec in model.outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _scaled(spec: TensorSpec, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """sin in [-1, 1] as it is, or as grey levels."""
    wave, typed = f"{spec.name}.wave", f"{spec.name}.typed"
    if spec.dtype != "UINT8":
        return [helper.make_node("Identity", [wave], [typed])]
    constants.append(_constant(f"{spec.name}.half", np.array(127.5, np.float32)))
    return [
        helper.make_node("Mul", [wave, f"{spec.name}.half"], [f"{spec.name}.scaled"]),
        helper.make_node(
            "Add", [f"{spec.name}.scaled", f"{spec.name}.half"], [f"{spec.name}.grey"]
        ),
        helper.make_node("Cast", [f"{spec.name}.grey"], [typed], to=TensorProto.UINT8),
    ]


def _flat(spec: TensorSpec) -> tuple[int, int]:
    """Axes that stay apart (the batch, and a free first axis) and the size of the rest."""
    free = spec.dims[0] == -1
    return 1 + free, int(np.prod(spec.dims[1:] if free else spec.dims))


def _pattern(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, size).astype(np.float32)


def _constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def _port(spec: TensorSpec) -> onnx.ValueInfoProto:
    dims = [f"{spec.name}_length" if n == -1 else n for n in spec.dims]
    return helper.make_tensor_value_info(spec.name, ONNX_TYPES[spec.dtype], ["batch", *dims])
