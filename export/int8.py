"""This is where networks get weights of eight bits, on the machine that serves them.

    python -m export.int8 && visavis serve --config-name int8

Weights are quantised once, per output channel; what goes into a layer is quantised as it comes
(ONNX Runtime's dynamic quantisation), so nothing is calibrated. `model.int8.onnx` stands beside
`model.onnx`, holds its weights itself, and says which checkpoint they come from: a server refuses
one that is outdated. It is not part of the repository's history.

What it costs is measured on what the networks are given in the first seconds of `examples/`: the
root mean square of the difference, over the standard deviation of the outputs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import typer
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from rich.console import Console
from rich.table import Table

from export.rehearsal import Arrays, Models, example
from export.repository import MODEL_FILE, SOURCE, VARIANTS
from visavis.checkpoint import WEIGHTS_FILE
from visavis.serving.network import INT8_FILE, WEIGHTS_KEY, Network

NETWORKS = next(variant.models for variant in VARIANTS if variant.file == INT8_FILE)
TOLERANCE = 0.1  # of the outputs' spread
SECONDS = 6.0  # of the example: some hundred inputs


@dataclass(frozen=True)
class Quantised:
    """One file, and how far its outputs are from those of the network that it was made from."""

    model: str
    multiplications: int  # of matrices, that are now of integers
    megabytes: tuple[float, float]  # before, in half precision, and after
    relative_error: float

    @property
    def passed(self) -> bool:
        """Whether the file may be served."""
        return self.relative_error <= TOLERANCE


def quantise(version: Path) -> int:
    """Write `model.int8.onnx` into a version's folder; how many multiplications are of integers.

    ValueError when there would be none.
    """
    path = version / INT8_FILE
    with tempfile.TemporaryDirectory() as folder:
        folded = fold(version / MODEL_FILE, Path(folder) / MODEL_FILE)
        quantize_dynamic(
            folded,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],  # as integers, convolutions are slower
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Without VNNI, sums of two products overflow sixteen bits unless weights have seven.
            reduce_range=not has_vnni(),
        )
    model = onnx.load(str(path))
    count = Counter(node.op_type for node in model.graph.node)["MatMulInteger"]
    if not count:
        path.unlink()
        raise ValueError(
            f"{version / MODEL_FILE}: got no matrix multiplication by weights, expected some; "
            "quantise another network"
        )
    digest = hashlib.sha256((version / WEIGHTS_FILE).read_bytes()).hexdigest()
    onnx.helper.set_model_props(model, {WEIGHTS_KEY: digest})
    onnx.save(model, str(path))
    return count


def fold(source: Path, target: Path) -> Path:
    """A network with its weights as plain constants in the file.

    Each stands behind a cast to float32, some behind a transposition as well, where the quantiser
    finds nothing to quantise.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(target))
    del model.graph.value_info[:]  # some are of weights before they were transposed
    add_pre_process_metadata(model)  # or the quantiser asks for what was just done
    onnx.save(model, str(target))
    return target


def has_vnni() -> bool:
    """Whether this processor adds products of bytes in 32 bits."""
    return "vnni" in Path("/proc/cpuinfo").read_text()


def relative_error(network: Network, other: Network, given: list[Arrays]) -> float:
    """The root mean square of the outputs' difference over their standard deviation.

    Of several outputs, that of the worst.
    """
    pairs = [(network.run(inputs), other.run(inputs)) for inputs in given]

    def error(name: str) -> float:
        ours, theirs = (np.stack([pair[place][name] for pair in pairs]) for place in (0, 1))
        return float(np.sqrt(np.mean((ours - theirs) ** 2)) / ours.std())

    return max(error(name) for name in network.outputs)


def int8(repository: Path, seconds: float = SECONDS) -> list[Quantised]:
    """Quantise what is worth it in a repository, and compare; a file that fails is removed."""
    models = Models(repository, kept=NETWORKS)
    example(models, seconds)
    made = []
    for name in NETWORKS:
        version = repository / name / "1"
        count = quantise(version)
        network = Network(version / INT8_FILE, threads=2)
        sizes = [(version / file).stat().st_size / 1e6 for file in (WEIGHTS_FILE, INT8_FILE)]
        error = relative_error(models.networks[name], network, models.given[name])
        made.append(Quantised(name, count, (sizes[0], sizes[1]), error))
        if not made[-1].passed:
            (version / INT8_FILE).unlink()
    return made


def table(made: list[Quantised]) -> Table:
    """A line a network."""
    columns = Table(title=f"weights of eight bits; relative error up to {TOLERANCE:g} passes")
    for heading in ("model", "multiplications", "MB", "relative error", "passed"):
        columns.add_column(heading)
    for one in made:
        columns.add_row(
            one.model,
            str(one.multiplications),
            f"{one.megabytes[0]:.1f} → {one.megabytes[1]:.1f}",
            f"{one.relative_error:.4f}",
            "yes" if one.passed else "NO",
        )
    return columns


def main(
    repository: Annotated[Path, typer.Option(help="The model repository.")] = SOURCE,
    seconds: Annotated[float, typer.Option(help="Of the example, to compare on.")] = SECONDS,
) -> None:
    """Write model.int8.onnx of the networks that are faster so, and say what it costs."""
    made = int8(repository, seconds)
    Console().print(table(made))
    raise typer.Exit(not all(one.passed for one in made))


if __name__ == "__main__":
    typer.run(main)
