"""This is where NVIDIA's `perf_analyzer` gets what it sends: `python -m benchmarks.perf_analyzer`.

It writes input data into a folder and prints the commands. What `echo_session` gets is what the SDK
sends for the conversation of `examples/`: a START with options, portrait and where the mouth is,
then a block's signals each. `perf_analyzer` itself marks the first and the last of a sequence.

At a concurrency, a sequence sends its next block once the last one is answered; at a request rate
of frame rate over block frames for each sequence, all are at live pace. A request's latency counts
until its first response, which is its block; a START, which has none, until it is done.

Times do not depend on values, so networks get zeros. The sampling loop's and the ensembles' inputs
must make sense, and have files.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from visavis_client import Client, FakeTransport, ServerInfo

from benchmarks import REPOSITORY
from benchmarks.live import Talk, example
from visavis import config as configs
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.contract import ModelContract, contracts
from visavis.session import block_noise

SESSIONS = "echo_session"

Tensors = Mapping[str, np.ndarray]


def sessions(talk: Talk, server: ServerInfo, seconds: float) -> list[Tensors]:
    """The messages of one conversation; its END is the last one that has something in it."""
    sent = FakeTransport(image_size=server.image_size, block_frames=server.block_frames)
    blocks = round(seconds * FRAME_RATE_HZ / server.block_frames)
    with (
        # As values: `perf_analyzer` reads texts, and JPEGs are none.
        Client(transport=sent, resume_timeout_s=0, compress_user_video=False) as client,
        client.session(portrait=talk.portrait, user_audio=True, user_video=True) as session,
    ):
        for chunk in itertools.islice(talk.chunks(server.block_frames), blocks):
            session.send(
                avatar_audio=chunk.avatar_audio,
                user_audio=chunk.user_audio,
                user_video=chunk.user_video,
                turns=chunk.turns,
            )
        session.finish()
    return [request.tensors for request in sent.requests if request.tensors]


def block(model: ModelContract, config: EchoConfig, talk: Talk) -> Tensors:
    """One request of a stateless model, without batch axis: the example's signals, else zeros."""
    samples, frames = config.audio.window_samples, config.block_frames
    known = {
        "portrait": talk.portrait.image,
        "region_centers": talk.portrait.region_centers,
        "avatar_waveform": talk.avatar_audio[:samples],
        "user_waveform": talk.user_audio[:samples],
        "user_video": talk.user_video[:frames],
        "user_valid": np.ones(2),
        "num_steps": np.array([config.sampling.num_steps]),
        "guidance_scale": np.ones(2),
        **block_noise(config, seed=0, block_index=0),
    }
    return {
        spec.name: np.broadcast_to(known.get(spec.name, 0), spec.dims).astype(spec.numpy_dtype)
        for spec in model.inputs
    }


def data(sequences: list[list[Tensors]]) -> dict[str, Any]:
    """`perf_analyzer`'s input data: a list of steps for each sequence."""
    return {"data": [[_step(tensors) for tensors in steps] for steps in sequences]}


def _step(tensors: Tensors) -> dict[str, Any]:
    return {name: _tensor(array) for name, array in tensors.items()}


def _tensor(array: np.ndarray) -> dict[str, Any]:
    if array.dtype == np.object_:
        return {"content": [text.decode() for text in array.flat], "shape": list(array.shape)}
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"b64": content, "shape": list(array.shape)}


def commands(config: EchoConfig, folder: Path, url: str, binary: str) -> Iterator[tuple[str, str]]:
    """What is measured, and how."""
    pace_hz = FRAME_RATE_HZ / config.block_frames
    common = f"{binary} -i grpc -u {url}"
    streamed = f"{common} -m {SESSIONS} --async --streaming --input-data {folder / SESSIONS}.json"
    yield "one conversation, as fast as it goes", f"{streamed} --concurrency-range 1"
    yield (
        "four conversations at live pace",
        f"{streamed} --request-rate-range {4 * pace_hz:g} --num-of-sequences 4",
    )
    for model in contracts(config).values():
        if model.kind in ("ensemble", "python"):
            yield model.name, f"{common} -m {model.name} --input-data {folder / model.name}.json"
        elif model.kind == "onnx":
            free = [
                f" --shape {spec.name}:{config.block_frames},{','.join(map(str, spec.dims[1:]))}"
                for spec in model.inputs
                if spec.dims[0] == -1
            ]
            yield model.name, f"{common} -m {model.name} --input-data zero{''.join(free)}"


def write(folder: Path, config: EchoConfig, talk: Talk, seconds: float) -> None:
    """A file of input data for each model that needs one."""
    folder.mkdir(parents=True, exist_ok=True)
    models = contracts(config)
    inputs = {spec.name: spec for spec in models[SESSIONS].inputs}
    server = ServerInfo(config.image_size, config.block_frames, inputs)
    files = {SESSIONS: data([list(sessions(talk, server, seconds))])} | {
        model.name: data([[block(model, config, talk)]])
        for model in models.values()
        if model.kind in ("ensemble", "python")
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def main(
    repository: Annotated[Path, typer.Option(help="Whose size the data is for.")] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="The folder of the data.")] = Path("out/perf_analyzer"),
    seconds: Annotated[float, typer.Option(min=1.0, help="Of conversation.")] = 4.0,
    server: Annotated[str, typer.Option(help="host:port of its gRPC.")] = "localhost:8001",
    binary: Annotated[str, typer.Option(help="What to call.")] = "perf_analyzer",
) -> None:
    """Write input data for perf_analyzer, and print the commands."""
    config = configs.load(EchoConfig, repository / "config.json")
    talk = example(ServerInfo(config.image_size, config.block_frames, {}))
    write(out, config, talk, seconds)
    for what, command in commands(config, out, server, binary):
        typer.echo(f"# {what}\n{command}")


if __name__ == "__main__":
    typer.run(main)
