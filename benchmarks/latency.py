"""This is where one session's speed is measured: `python -m benchmarks.latency`.

Boundary: from the client's call to a decoded picture in the client's hands, over gRPC on one
machine, the client's own work (JPEG decoding, building requests) included; portrait alignment and
reading files are not. The user's video is aligned before the clock starts.

- *first frame*: from opening the session (portrait sent) to the first picture.
- *throughput*: the conversation is streamed as fast as the server takes it.
- *live block latency*: chunks are due at the pace of the conversation, one each 200 ms; from when a
  block's last input is due to the arrival of its pictures, not decoded yet (`benchmarks.live`).
- *bare*: the networks of one block in ONNX Runtime, in this process, same threads, one after the
  other as a block needs them (a network that runs again and again finds its weights in the cache,
  where no block ever finds them); their sum is what serving can at best reach. `efficiency` is that
  sum over the time a block takes through Triton when streamed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from visavis_client import Client

from benchmarks import REPOSITORY, RESULTS, tables
from benchmarks.live import Talk, example, latencies
from visavis import config as configs
from visavis import record
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.contract import ModelContract, TensorSpec, contracts
from visavis.serving.model_config import config_path, read
from visavis.serving.network import Network
from visavis.serving.server import Ports, Server

PERCENTILES = (50, 95, 99)
WARM_UP_RUNS = 2
NETWORKS = (
    *("audio_encoder", "vae_encoder", "lcu_encoder", "motion_prior", "vae_decoder"),
    "sdcm_denoiser",
)


@dataclass
class Result:
    """Raw samples, in seconds, of all runs."""

    size: str
    block_frames: int
    num_steps: int
    first_frame_s: list[float] = field(default_factory=list)
    frames_per_second: list[float] = field(default_factory=list)
    live_block_latency_s: list[float] = field(default_factory=list)
    bare_s: dict[str, list[float]] = field(default_factory=dict)
    share_s_a_block: dict[str, float] = field(default_factory=dict)

    @property
    def bare_block_s(self) -> float:
        """The sum of the networks' median times over the passes that one block takes."""
        return sum(
            passes(name, self.num_steps) * float(np.median(self.bare_s[name])) for name in NETWORKS
        )

    def summary(self) -> dict[str, float]:
        """The figures of the README."""
        speed = float(np.median(self.frames_per_second))
        latency = {
            f"live_block_p{p}_ms": 1e3 * float(np.percentile(self.live_block_latency_s, p))
            for p in PERCENTILES
        }
        return {
            "first_frame_ms": 1e3 * float(np.median(self.first_frame_s)),
            "frames_per_second": speed,
            **latency,
            "block_length_ms": 1e3 * self.block_frames / FRAME_RATE_HZ,
            "bare_block_ms": 1e3 * self.bare_block_s,
            "bare_frames_per_second": self.block_frames / self.bare_block_s,
            "efficiency": self.bare_block_s * speed / self.block_frames,
        }


def stream(client: Client, talk: Talk, result: Result | None) -> None:
    """One run as fast as it goes; None for a run that only warms up."""
    blocks = talk.frames // client.server.block_frames
    chunks = itertools.islice(talk.chunks(client.server.block_frames), blocks)
    started = time.perf_counter()
    with client.session(portrait=talk.portrait, user_audio=True, user_video=True) as session:
        decoded = ((frame.image, time.perf_counter()) for frame in session.stream(chunks))
        arrived = [moment for _, moment in decoded]
    if result is not None:
        result.first_frame_s.append(arrived[0] - started)
        steady = arrived[-1] - arrived[0]
        result.frames_per_second.append((len(arrived) - result.block_frames) / steady)


def live(client: Client, talk: Talk, result: Result) -> None:
    """One run at the pace of the conversation."""
    blocks = talk.frames // result.block_frames
    chunks = itertools.islice(talk.chunks(result.block_frames), blocks)
    with client.session(portrait=talk.portrait, user_audio=True, user_video=True) as session:
        found = list(latencies(session, chunks, result.block_frames / FRAME_RATE_HZ))
    result.live_block_latency_s += found[1:]  # the first block carries the enrolment


def passes(network: str, num_steps: int) -> int:
    """How often a network runs for one block, when sampling without extra guidance."""
    return num_steps if network == "sdcm_denoiser" else 1


def networks(repository: Path, config_name: str | None = None) -> dict[str, Network]:
    """Those of one block, in this process, run as a server of `config_name` runs them."""
    return {
        name: Network.of(repository / name / "1", read(config_path(repository / name, config_name)))
        for name in NETWORKS
    }


def bare(networks: Mapping[str, Network], config: EchoConfig, result: Result, runs: int) -> None:
    """The networks of one block in turn, in this process."""
    inputs = {name: _inputs(contracts(config)[name], config.block_frames) for name in networks}
    for run in range(WARM_UP_RUNS + runs):
        for name, network in networks.items():
            started = time.perf_counter()
            network.run(inputs[name])
            if run >= WARM_UP_RUNS:
                result.bare_s.setdefault(name, []).append(time.perf_counter() - started)


def _inputs(contract: ModelContract, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)

    def values(spec: TensorSpec) -> np.ndarray:
        shape = (1, *(length if n == -1 else n for n in spec.dims))
        return (generator.random(shape) * (255 if spec.dtype == "UINT8" else 1)).astype(
            spec.numpy_dtype
        )

    return {spec.name: values(spec) for spec in contract.inputs}


def shares(client: Client, talk: Talk, result: Result) -> None:
    """Each model's compute time a block, from the server's own statistics over one run."""
    before = client.statistics()
    stream(client, talk, None)
    blocks = -(-talk.frames // result.block_frames)
    for name, after in client.statistics().items():
        spent = after.since(before[name]).compute_s if name in before else after.compute_s
        result.share_s_a_block[name] = spent / blocks


def rows(result: Result) -> list[tables.Row]:
    """The summary, and how much of a block each model has, as lines of a table."""
    shares = sorted(result.share_s_a_block.items(), key=lambda item: -item[1])
    figures = [
        *result.summary().items(),
        *((f"{name}, ms a block", 1e3 * seconds) for name, seconds in shares),
    ]
    return [{"measure": name, "value": value} for name, value in figures]


def main(
    repository: Annotated[Path, typer.Option()] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    runs: int = 5,
) -> None:
    """Start a server, warm it up, measure, write `latency_SIZE.json` and print a table."""
    config = configs.load(EchoConfig, repository / "config.json")
    result = Result(config.name, config.block_frames, config.sampling.num_steps)
    head = record.environment()
    with Server(repository, ports=Ports(0, 0, 0)) as server, Client(server.grpc_url) as client:
        opened = networks(repository)
        talk = example(client.server)
        stream(client, talk, None)
        for _ in range(runs):
            stream(client, talk, result)
            bare(opened, config, result, runs=10)
            live(client, talk, result)
        shares(client, talk, result)
    record.write(
        out / f"latency_{config.name}.json",
        "latency",
        settings={"runs": runs},
        summary=result.summary(),
        raw=asdict(result),
        measured_on=head,
    )
    title = f"{result.size}, one session, {result.num_steps} steps"
    Console().print(tables.in_terminal(rows(result), title))


if __name__ == "__main__":
    typer.run(main)
