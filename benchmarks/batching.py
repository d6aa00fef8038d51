"""This is where ways of sharing batches are compared: `python -m benchmarks.batching`.

Each way is the same model repository with a few lines of two configs changed:

    lock-step         waiting blocks go through one sampling loop together (what is shipped)
    dynamic           a loop for each block, side by side; Triton gathers their denoiser steps
    side by side      a loop for each block, side by side; every denoiser step by itself
    one by one        a loop for each block, one after another

For every way, number of conversations and number of steps, all conversations of `examples/` are
streamed as fast as the server takes them. Boundary: from the first block of all to the last, over
gRPC on one machine, pictures not decoded. `batch` is how many rows a call of the denoiser had on
average. Ways take turns, round by round, so that a moment's disturbance meets all of them.

`rows_per_pass` says how many rows of a batch go through a network at once. Shipped is 1, with which
a block's bits do not depend on whom it shares its batch with; `--rows-per-pass 24` shows what that
costs on this machine.
"""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from visavis_client import Client

from benchmarks import REPOSITORY, RESULTS, tables
from benchmarks.live import Talk, example
from benchmarks.unwatched import served
from visavis import record

SIDE_BY_SIDE = "instance_group [ { count: 8 kind: KIND_CPU } ]"
SAMPLER, DENOISER = "sdcm_sampler", "sdcm_denoiser"

Edit = Callable[[str], str]


def without_batching(config: str) -> str:
    """A config whose requests come one by one."""
    return config.replace("dynamic_batching { }\n", "")


def in_parallel(config: str) -> str:
    """A config with several instances."""
    return re.sub(r"instance_group \[.*\]", SIDE_BY_SIDE, config)


WAYS: Mapping[str, Mapping[str, tuple[Edit, ...]]] = {
    "lock-step": {},
    "dynamic": {SAMPLER: (without_batching, in_parallel)},
    "side by side": {SAMPLER: (without_batching, in_parallel), DENOISER: (without_batching,)},
    "one by one": {SAMPLER: (without_batching,), DENOISER: (without_batching,)},
}


@dataclass(frozen=True)
class Sample:
    """One run of one way."""

    way: str
    sessions: int
    num_steps: int
    frames_per_second: float
    batch: float


def written(repository: Path, way: str, rows_per_pass: int, folder: Path) -> Path:
    """A copy of a repository that shares batches in one of the ways."""
    copy = Path(shutil.copytree(repository, folder / way.replace(" ", "_")))
    edits = {**WAYS[way], DENOISER: (*WAYS[way].get(DENOISER, ()), _with_rows(rows_per_pass))}
    for model, changes in edits.items():
        path = copy / model / "config.pbtxt"
        config = path.read_text()
        for change in changes:
            config = change(config)
        path.write_text(config)
    return copy


def _with_rows(rows: int) -> Edit:
    pattern = r'(key: "rows_per_pass" value: \{ string_value: ")\d+'
    return lambda config: re.sub(pattern, rf"\g<1>{rows}", config)


def converse(
    client: Client, talk: Talk, seconds: float, num_steps: int
) -> tuple[float, float, int]:
    """One conversation as fast as it goes: when its first and its last block came, and how many
    frames."""
    blocks = int(seconds * 25) // client.server.block_frames
    chunks = itertools.islice(talk.chunks(client.server.block_frames), blocks)
    arrived = []
    with client.session(
        portrait=talk.portrait, num_steps=num_steps, user_audio=True, user_video=True
    ) as session:
        for _ in session.stream(chunks):
            arrived.append(time.perf_counter())
    return arrived[0], arrived[-1], len(arrived)


def measured(
    client: Client, way: str, talk: Talk, sessions: int, num_steps: int, seconds: float
) -> Sample:
    """So many conversations at once."""
    before = client.statistics()[DENOISER]
    together = threading.Barrier(sessions)

    def one(_: int) -> tuple[float, float, int]:
        together.wait()
        return converse(client, talk, seconds, num_steps)

    with ThreadPoolExecutor(sessions) as pool:
        times = list(pool.map(one, range(sessions)))
    frames = sum(count for _, _, count in times)
    begun_s, ended_s = min(first for first, *_ in times), max(last for _, last, _ in times)
    did = client.statistics()[DENOISER].since(before)
    speed = frames / (ended_s - begun_s)
    return Sample(way, sessions, num_steps, speed, did.rows / did.executions)


def summary(samples: list[Sample]) -> list[dict[str, object]]:
    """The medians of each way, number of sessions and number of steps."""
    rows = []
    places = sorted({(s.num_steps, s.sessions) for s in samples})
    for (steps, sessions), way in itertools.product(places, dict.fromkeys(s.way for s in samples)):
        here = [s for s in samples if (s.way, s.sessions, s.num_steps) == (way, sessions, steps)]
        rows.append(
            {
                "way": way,
                "num_steps": steps,
                "sessions": sessions,
                "frames_per_second": float(np.median([s.frames_per_second for s in here])),
                "batch": float(np.median([s.batch for s in here])),
            }
        )
    return rows


def main(
    repository: Annotated[Path, typer.Option()] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    sessions: Annotated[str, typer.Option(help="Numbers of conversations.")] = "1,4",
    num_steps: Annotated[str, typer.Option(help="Numbers of sampling steps.")] = "1,4",
    rows_per_pass: Annotated[int, typer.Option(help="Rows through a network at once.")] = 1,
    seconds: Annotated[float, typer.Option(help="Of each conversation.")] = 2.0,
    rounds: int = 3,
) -> None:
    """Measure all ways on this machine, and write `batching.json`."""
    counts = [int(n) for n in sessions.split(",")]
    head, samples = record.environment(), []
    places = list(itertools.product(counts, (int(n) for n in num_steps.split(","))))
    with tempfile.TemporaryDirectory() as folder:
        ways = {way: written(repository, way, rows_per_pass, Path(folder)) for way in WAYS}
        for _, way in track(list(itertools.product(range(rounds), ways)), description="measuring"):
            with served(ways[way], max_sessions=max(counts)) as (_, client):
                talk = example(client.server)
                converse(client, talk, seconds, 1)
                samples += [measured(client, way, talk, *place, seconds) for place in places]
    rows = summary(samples)
    Console().print(tables.in_terminal(rows))
    record.write(
        out / "batching.json",
        "batching",
        settings={"rows_per_pass": rows_per_pass, "seconds": seconds, "rounds": rounds},
        summary=rows,
        raw=[asdict(sample) for sample in samples],
        measured_on=head,
    )


if __name__ == "__main__":
    typer.run(main)
