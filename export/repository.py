"""This is where a model repository is written from the contract, and checked against it.

    python -m export.repository model_repository --size nano     (write)
    python -m export.repository model_repository --check

Every `config.pbtxt` has portable keys only, so the same folder loads in this project's server and
in NVIDIA's container: no `runtime`, no GPU kinds, and no queue policies, which stall a single
instance. The ONNX files themselves come from `export.onnx`.

Some networks can run in other ways, too (`VARIANTS`). Each has its `configs/<name>.pbtxt` beside
`config.pbtxt`, and `visavis serve --config-name <name>` takes it where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import onnx
import typer
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig  # type: ignore[attr-defined]

from visavis import config as configs
from visavis.config import SIZES, EchoConfig
from visavis.contract import ModelContract, TensorSpec, contracts
from visavis.serving.admission import MEASURED
from visavis.serving.model_config import CONFIGS
from visavis.serving.network import INT8_FILE, ONNX_TO_TRITON

SOURCE = Path(__file__).parents[1] / "model_repository"
CONFIG_FILE = "config.json"
MODEL_FILE = "model.onnx"

# A model in Python is a module of `visavis.serving`; Triton wants a file in the repository.
PORTHOLE = '''"""Triton's door to `visavis.serving.{name}`, where the work is."""

from visavis.serving.{name} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

# What a config must have as it is written; the rest is for whoever serves it to tune.
CHECKED = (
    *("name", "backend", "platform", "input", "output", "ensemble_scheduling"),
    "default_model_filename",
)

MAX_BATCH_SIZE = 8
DENOISER_MAX_BATCH_SIZE = 24  # a full batch under the three conditions of guidance
SESSION_IDLE_S = 300
SESSION_YIELDS_AFTER_S = 10
# Triton forgets a sequence without telling the model, and counts from the last request even while
# it runs; a sequence over its number would wait instead of being refused. Both are left to
# `echo_session` itself, so Triton's own limits are wide. Not for ever, though: a sequence that was
# never ended, of a client that vanished or was refused at its start, counts until it is forgotten.
SEQUENCE_IDLE_US = 2 * SESSION_IDLE_S * 1_000_000
MAX_SEQUENCES = 65536


@dataclass(frozen=True)
class Step:
    """One model of an ensemble; the maps name what is called differently in the ensemble."""

    model: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """Another way to run some networks: from another file, or by an accelerator of processors."""

    name: str
    models: tuple[str, ...]
    file: str = MODEL_FILE
    accelerator: str = ""


# Where each is worth it; what it costs in fidelity, `benchmarks.variants` measures.
VARIANTS = (
    # Weights of eight bits, by `export.int8`. Convolutions are several times slower in them.
    Variant("int8", ("audio_encoder", "sdcm_denoiser"), file=INT8_FILE),
    # OpenVINO in half precision, by processors that compute in it. The others are too small, and
    # the motion prior draws lots, which rounding may decide.
    Variant(
        "openvino",
        ("audio_encoder", "vae_encoder", "vae_decoder", "sdcm_denoiser"),
        accelerator='{ name: "openvino" parameters { key: "precision" value: "bf16" } }',
    ),
)

ENSEMBLES = {
    "enroll": (Step("vae_encoder", {"images": "portrait"}), Step("reference_encoder")),
    "echo": (
        Step("audio_encoder"),
        Step("vae_encoder", {"images": "user_video"}, {"image_latents": "user_latents"}),
        Step("lcu_encoder"),
        Step("motion_prior"),
        Step("sdcm_sampler"),
        Step("vae_decoder"),
    ),
}


# Writing


@dataclass(frozen=True)
class Cores:
    """How the networks use a processor: `threads` of one pass, and how many `instances` of each
    network there are. Together they should not pass the number of cores.

    Two threads give one session its frames soonest. As many instances of one thread each serve more
    sessions, as threads wait for each other in every layer of a small network: then each block goes
    to the next free instance, and nothing is gathered into batches, which one thread would only
    take row by row.
    """

    threads: int = 2
    instances: int = 1


def write(directory: str | Path, config: EchoConfig, cores: Cores | None = None) -> Path:
    """A repository for `config` in `directory`, complete but for the ONNX files; `cores` as suits
    the size where it is not given."""
    directory = Path(directory)
    for model in contracts(config).values():
        version = directory / model.name / "1"
        version.mkdir(parents=True, exist_ok=True)
        for variant in (None, *variants(model)):
            path = _config_path(directory / model.name, variant)
            path.parent.mkdir(exist_ok=True)
            path.write_text(render(model, config, cores, variant))
        if model.kind in ("python", "session"):
            (version / "model.py").write_text(PORTHOLE.format(name=model.name))
        if model.kind == "ensemble":
            (version / ".gitkeep").touch()  # Triton wants a version folder, though it is empty
    (directory / CONFIG_FILE).write_text(configs.to_json(config))
    return directory


def variants(model: ModelContract) -> list[Variant]:
    """The other ways to run a model."""
    return [variant for variant in VARIANTS if model.name in variant.models]


def cores_of(config: EchoConfig) -> Cores:
    """How a size uses two cores."""
    return Cores(threads=1, instances=2) if config.name == "pico" else Cores()


def render(
    model: ModelContract,
    config: EchoConfig,
    cores: Cores | None = None,
    variant: Variant | None = None,
) -> str:
    """The `config.pbtxt` of one model, or that of one of its variants."""
    batch = {"session": 0, "onnx": MAX_BATCH_SIZE, "python": MAX_BATCH_SIZE}
    max_batch_size = batch.get(model.kind, MAX_BATCH_SIZE)
    if model.name == "sdcm_denoiser":
        max_batch_size = DENOISER_MAX_BATCH_SIZE
    file = variant.file if variant else MODEL_FILE
    parts = [
        "# Written by `python -m export.repository` from visavis/contract.py.",
        f'name: "{model.name}"',
        {"onnx": f'backend: "onnxruntime"\ndefault_model_filename: "{file}"'}.get(
            model.kind, 'platform: "ensemble"' if model.kind == "ensemble" else 'backend: "python"'
        ),
        f"max_batch_size: {max_batch_size}",
        _ports("input", model.inputs),
        _ports("output", model.outputs),
        *_scheduling(model, config, cores or cores_of(config)),
    ]
    if variant and variant.accelerator:
        parts.append(
            "optimization { execution_accelerators {\n"
            f"  cpu_execution_accelerator: [ {variant.accelerator} ]\n"
            "} }"
        )
    return "\n".join(parts) + "\n"


def _scheduling(model: ModelContract, config: EchoConfig, cores: Cores) -> Iterator[str]:
    if model.kind == "ensemble":
        yield _steps(model.name, config)
        return
    kind = "KIND_AUTO" if model.kind == "onnx" else "KIND_CPU"
    instances = 1 if model.kind == "session" else cores.instances
    yield f"instance_group [ {{ count: {instances} kind: {kind} }} ]"
    if model.kind == "session":
        yield "model_transaction_policy { decoupled: true }"
        yield (
            "sequence_batching {\n"
            f"  oldest {{ max_candidate_sequences: {MAX_SEQUENCES} }}\n"
            f"  max_sequence_idle_microseconds: {SEQUENCE_IDLE_US}\n"
            "}"
        )
        yield f"# A number, or {MEASURED}: what the machine bears, see visavis/serving/admission.py"
        yield _parameter("max_sessions", MEASURED)
        yield _parameter("idle_s", SESSION_IDLE_S)
        yield _parameter("yield_after_s", SESSION_YIELDS_AFTER_S)
        yield "# Psi: reader, lexicon, transformers:PATH or openai:MODEL@BASE_URL"
        yield _parameter("affect", "reader")
        return
    if instances == 1:
        yield "dynamic_batching { }"
    if model.kind == "onnx":
        yield _parameter("intra_op_thread_count", cores.threads)
        yield "# Read only by this project's own backend; see visavis/serving/network.py"
        yield _parameter("rows_per_pass", 1)
    else:
        yield _parameter("denoiser_max_batch_size", DENOISER_MAX_BATCH_SIZE)


def _ports(key: str, specs: tuple[TensorSpec, ...]) -> str:
    lines = (
        f'  {{ name: "{spec.name}" data_type: {_triton_type(spec)} '
        f"dims: [ {', '.join(map(str, spec.dims))} ]{' optional: true' if spec.optional else ''} }}"
        for spec in specs
    )
    return f"{key} [\n" + ",\n".join(lines) + "\n]"


def _triton_type(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"


def _parameter(key: str, value: object) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'


def _steps(ensemble: str, config: EchoConfig) -> str:
    models = contracts(config)
    blocks = []
    for step in ENSEMBLES[ensemble]:
        model = models[step.model]
        maps = [
            f'      {key} {{ key: "{spec.name}" value: "{names.get(spec.name, spec.name)}" }}'
            for key, specs, names in (
                ("input_map", model.inputs, step.inputs),
                ("output_map", model.outputs, step.outputs),
            )
            for spec in specs
        ]
        head = [f'      model_name: "{step.model}"', "      model_version: -1"]
        blocks.append("    {\n" + "\n".join([*head, *maps]) + "\n    }")
    return "ensemble_scheduling {\n  step [\n" + ",\n".join(blocks) + "\n  ]\n}"


# Checking


def check(directory: str | Path, config: EchoConfig | None = None) -> list[str]:
    """Everything about a repository that would not load or not do what the contract says.

    `config` is the size it should have; by default what its own `config.json` says.
    """
    directory = Path(directory)
    if not (directory / CONFIG_FILE).is_file():
        return [f"{directory}: got no {CONFIG_FILE}, expected the size; write the repository"]
    stored = configs.load(EchoConfig, directory / CONFIG_FILE)
    problems = []
    if config is not None and stored != config:
        problems.append(
            f"{directory / CONFIG_FILE}: got the size {stored.name}, expected {config.name}; "
            "write the repository again"
        )
    for model in contracts(stored).values():
        problems += _model_problems(directory / model.name, model, stored)
    return problems


def _model_problems(folder: Path, model: ModelContract, config: EchoConfig) -> Iterator[str]:
    for variant in (None, *variants(model)):
        path = _config_path(folder, variant)
        if not path.is_file():
            yield f"{path}: got no file, expected a config of {model.name}; write the repository"
            return
        yield from _config_problems(path, render(model, config, variant=variant))
    if not (folder / "1").is_dir():
        yield f"{folder / '1'}: got no folder, expected version 1; write the repository"
    file = {"onnx": MODEL_FILE, "python": "model.py", "session": "model.py"}.get(model.kind)
    if file is not None and not (folder / "1" / file).is_file():
        yield f"{folder / '1' / file}: got no file, expected one; export the networks"
    elif model.kind == "onnx":
        yield from _onnx_problems(folder / "1" / MODEL_FILE, model)


def _config_path(folder: Path, variant: Variant | None) -> Path:
    """Where a model's config stands, whether it is there yet or not."""
    return folder / CONFIGS / f"{variant.name}.pbtxt" if variant else folder / "config.pbtxt"


def _config_problems(path: Path, rendered: str) -> Iterator[str]:
    try:
        found = text_format.Parse(path.read_text(), ModelConfig())
    except text_format.ParseError as error:
        yield f"{path}: got {error}, expected a Triton model config; write the repository"
        return
    wanted = text_format.Parse(rendered, ModelConfig())
    for key in CHECKED:
        if getattr(found, key) != getattr(wanted, key):
            yield f"{path}: {key}: got other than the contract's; write the repository"
    if found.runtime or found.dynamic_batching.HasField("default_queue_policy"):
        yield f"{path}: got a runtime or a queue policy, expected none; remove it"


def _onnx_problems(path: Path, model: ModelContract) -> Iterator[str]:
    graph = onnx.load(str(path), load_external_data=False).graph
    for ports, specs in ((graph.input, model.inputs), (graph.output, model.outputs)):
        found = {port.name: _described(port) for port in ports}
        wanted = {spec.name: (spec.dtype, spec.dims) for spec in specs}
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                yield (
                    f"{path}: {name}: got {found.get(name, 'none')}, expected "
                    f"{wanted.get(name, 'none')} as in the contract; export it again"
                )


def _described(port: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...]]:
    """(dtype, dims without batch axis) of a graph's input or output."""
    tensor = port.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return ONNX_TO_TRITON.get(f"tensor({name})", name), dims[1:]


def main(
    repository: Annotated[Path, typer.Option(help="The model repository.")] = SOURCE,
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}; default: as it is.")] = "",
    threads: Annotated[int, typer.Option(help="Of one pass of one network; 0: the size's.")] = 0,
    instances: Annotated[int, typer.Option(help="Of each network, with --threads.")] = 1,
    only_check: Annotated[bool, typer.Option("--check", help="Change nothing.")] = False,
) -> None:
    """Write (or check) a model repository."""
    if not only_check:
        config = SIZES[size]() if size else configs.load(EchoConfig, repository / CONFIG_FILE)
        write(repository, config, Cores(threads, instances) if threads else None)
    problems = check(repository)
    print("\n".join(problems) or f"{repository}: every model is as the contract says")
    raise typer.Exit(bool(problems))


if __name__ == "__main__":
    typer.run(main)
