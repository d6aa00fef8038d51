"""This is where a served network becomes an ONNX file whose weights live in a checkpoint.

`model.onnx` holds the graph alone. Its weights are external data that point *into* the
`model.safetensors` beside it: one set of bytes, in half precision, from which the server runs the
graph and from which torch can go on training. A cast to float32 stands behind every weight;
runtimes fold it when they load, so computing stays in single precision.

Opset 20 is the one portable artefact: opset 23's attention does not build in every TensorRT.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

from visavis import checkpoint
from visavis.config import EchoConfig
from visavis.contract import ModelContract, TensorSpec, contracts

OPSET = 20
MODEL_FILE = "model.onnx"
# Below this many values a tensor stays in the graph, in single precision.
SMALLEST_EXTERNAL_VALUES = 256


def example(spec: TensorSpec, batch: int, seed: int = 0, length: int = 2) -> torch.Tensor:
    """A random tensor that fits `spec` with a batch axis; free axes get `length`."""
    generator = np.random.default_rng([seed, *spec.name.encode()])
    shape = (batch, *(length if n == -1 else n for n in spec.dims))
    if spec.dtype == "UINT8":
        return torch.from_numpy(generator.integers(0, 256, shape, np.uint8))
    if spec.dtype in ("INT64", "INT32"):
        return torch.from_numpy(generator.integers(0, 50, shape).astype(spec.numpy_dtype))
    if spec.name == "motion_noise":
        return torch.from_numpy(generator.standard_exponential(shape, np.float32))
    if spec.name in ("timestep", "condition_mask", "user_valid", "region_centers", "region_masks"):
        return torch.from_numpy(generator.uniform(0.2, 1.0, shape).astype(np.float32))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def export_network(
    name: str, network: nn.Module, config: EchoConfig, folder: Path, **facts
) -> Path:
    """Write `network` as the checkpoint and graph of the model `name` into `folder`.

    Returns the path of `model.onnx`; beside it stand `model.safetensors`, `config.json` and
    `manifest.json`.
    """
    contract = contracts(config)[name]
    weights = half_precision(network)
    round_weights(network, weights)
    checkpoint.save(folder, name, config, weights, **facts)
    model = to_graph(network, contract)
    point_into(model, folder / checkpoint.WEIGHTS_FILE)
    ir.save(model, folder / MODEL_FILE)
    return folder / MODEL_FILE


def half_precision(network: nn.Module) -> dict[str, np.ndarray]:
    """The weights as they are shipped: float16 for floating point, the rest as it is."""
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in state.items()
    }


def round_weights(network: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Give `network` the shipped weights, so that parity compares like with like."""
    network.load_state_dict(
        {
            name: torch.from_numpy(w.astype(np.float32) if w.dtype == np.float16 else w)
            for name, w in weights.items()
        }
    )


def to_graph(network: nn.Module, contract: ModelContract) -> ir.Model:
    """The network's ONNX graph, named as the contract says, with a free batch axis."""
    inputs = tuple(example(spec, batch=2) for spec in contract.inputs)
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple(
        {0: batch, **{n + 1: torch.export.Dim.DYNAMIC for n, d in enumerate(spec.dims) if d == -1}}
        for spec in contract.inputs
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=[spec.name for spec in contract.inputs],
            output_names=[spec.name for spec in contract.outputs],
            verbose=False,
            optimize=False,  # its constant folding would store every weight a second time
        )
    assert program is not None
    return tidy(program.model)


def tidy(model: ir.Model) -> ir.Model:
    """Fold what is small, leave the weights alone, and drop the exporter's stack traces."""
    optimizer.optimize_ir(model, should_fold=lambda node: False if _reads_weight(node) else None)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    return model


def _reads_weight(node: ir.Node) -> bool:
    return any(value is not None and value.is_initializer() for value in node.inputs)


def point_into(model: ir.Model, weights: Path) -> None:
    """Replace the graph's weights that stand in the safetensors file by pointers into it."""
    offsets = safetensors_layout(weights)
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        entry = offsets.get(name)
        tensor = value.const_value
        if entry is None or tensor is None or tensor.size < SMALLEST_EXTERNAL_VALUES:
            continue
        if entry["dtype"] != "F16" or list(tensor.shape) != entry["shape"]:
            continue
        _replace_by_half(graph, value, weights, entry)


def safetensors_layout(path: Path) -> dict[str, dict]:
    """Where each tensor's bytes stand in the file: name -> dtype, shape, offset, length."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    return {
        name: {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "offset": 8 + size + entry["data_offsets"][0],
            "length": entry["data_offsets"][1] - entry["data_offsets"][0],
        }
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _replace_by_half(graph: ir.Graph, value: ir.Value, weights: Path, entry: dict) -> None:
    name = value.name
    assert name is not None
    tensor = ir.ExternalTensor(
        weights.name,
        entry["offset"],
        entry["length"],
        ir.DataType.FLOAT16,
        shape=ir.Shape(entry["shape"]),
        name=f"{name}.half",
        base_dir=weights.parent,
    )
    half = ir.Value(
        name=f"{name}.half",
        shape=ir.Shape(entry["shape"]),
        type=ir.TensorType(ir.DataType.FLOAT16),
        const_value=tensor,
    )
    cast = ir.node("Cast", [half], attributes={"to": ir.DataType.FLOAT}, name=f"{name}.cast")
    cast.outputs[0].name = f"{name}.single"
    cast.outputs[0].shape = ir.Shape(entry["shape"])
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(value, cast.outputs[0])
    del graph.initializers[name]
    graph.initializers[f"{name}.half"] = half
    graph.insert_before(graph[0], cast)
