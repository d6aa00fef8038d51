"""This is where it is found how many live conversations a machine bears.

    python -m benchmarks.capacity

Boundary: the server and `benchmarks/locustfile.py` on this machine, sharing its cores; each user's
voice and face go in over gRPC, JPEGs come out and are not decoded. A block's latency is from when
its last input is due to its arrival; later than `--deadline-ms` it is missed.

Levels of 1, 2, 4, … sessions run for some time each until more than `--misses` of the blocks are
missed, then those between by halves. The samples of a level's first seconds, while sessions begin,
count for nothing. Written are `capacity_SIZE.json`, with every sample, and `capacity_SIZE.png`; of
another way to run the networks (`--config-name int8`), `capacity_SIZE_int8.…`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import typer
from rich.console import Console

from benchmarks import REPOSITORY, RESULTS, served_name, tables
from visavis import config as configs
from visavis import record
from visavis.config import EchoConfig
from visavis.serving.server import Ports, Server

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Level:
    """What was measured under one number of sessions."""

    sessions: int
    block_ms: list[float] = field(repr=False)
    first_frame_ms: list[float]
    stop_ms: list[float]
    errors: list[str]
    deadline_ms: float

    @property
    def missed(self) -> float:
        """The share of blocks that came too late; 1 when none came."""
        return float(np.mean(np.array(self.block_ms) > self.deadline_ms)) if self.block_ms else 1.0

    def holds(self, misses: float) -> bool:
        """Whether so many sessions can be served."""
        return self.missed < misses and not self.errors

    def summary(self) -> dict[str, float | None]:
        """Its line in the table; None where there are no samples."""
        return {
            "sessions": self.sessions,
            **{f"block_p{p}_ms": percentile(self.block_ms, p) for p in PERCENTILES},
            "missed": self.missed,
            "first_frame_ms": percentile(self.first_frame_ms, 50),
            "stop_ms": percentile(self.stop_ms, 50),
            "errors": len(self.errors),
        }


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """Of samples; None of none."""
    return float(np.percentile(samples, percent)) if samples else None


def level_of(samples: list[dict], sessions: int, warm_up_s: float, deadline_ms: float) -> Level:
    """A level from the samples of `benchmarks/locustfile.py`, those of its beginning left out."""
    begun_s = min((sample["time_s"] for sample in samples), default=0.0)
    warm = [sample for sample in samples if sample["time_s"] >= begun_s + warm_up_s]

    def times(name: str) -> list[float]:
        return [sample["ms"] for sample in warm if sample["name"] == name]

    return Level(
        sessions,
        times("latency"),
        [sample["ms"] for sample in samples if sample["name"] == "first frame"],
        times("barge-in"),
        [sample["error"] for sample in samples if sample["type"] == "error"],
        deadline_ms,
    )


def search(measure: Callable[[int], Level], misses: float, most: int) -> Iterator[Level]:
    """Measure levels until the greatest that holds is known: double, then halve what is between."""
    holds, fails, sessions = 0, most + 1, 1
    while fails - holds > 1:
        level = measure(sessions)
        yield level
        if level.holds(misses):
            holds = sessions
        else:
            fails = sessions
        sessions = min(2 * holds, most) if fails > most else (holds + fails) // 2


def load(url: str, sessions: int, seconds: float, warm_up_s: float, deadline_ms: float) -> Level:
    """So many conversations for so long, by locust in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.jsonl"
        file.touch()
        options = {
            "host": url,
            "users": sessions,
            "spawn-rate": max(1.0, sessions / warm_up_s * 2),
            "run-time": f"{int(warm_up_s + seconds)}s",
            "deadline-ms": deadline_ms,
            "samples": file,
        }
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
        run = subprocess.run(
            [*command, "--only-summary", *(f"--{name}={value}" for name, value in options.items())],
            capture_output=True,
            text=True,
            cwd=LOCUSTFILE.parents[1],
        )
        samples = [json.loads(line) for line in file.read_text().splitlines()]
    if not samples:
        raise RuntimeError(
            f"locust: got no samples of {sessions} sessions, expected some\n{run.stderr[-2000:]}"
        )
    return level_of(samples, sessions, warm_up_s, deadline_ms)


def plot(levels: list[Level], title: str, path: Path) -> None:
    """Latency and missed deadlines against sessions."""
    levels = sorted(levels, key=lambda level: level.sessions)
    sessions = [level.sessions for level in levels]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
    for percent in PERCENTILES:
        name = f"block_p{percent}_ms"
        above.plot(sessions, [one.summary()[name] for one in levels], "o-", label=f"p{percent}")
    above.axhline(levels[0].deadline_ms, color="grey", linestyle="--", label="deadline")
    above.set(yscale="log", ylabel="block latency, ms", title=title)
    above.legend()
    below.plot(sessions, [100 * level.missed for level in levels], "o-")
    below.set(ylabel="deadlines missed, %", xlabel="live sessions", xticks=sessions)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def rows(levels: list[Level]) -> list[dict[str, float | None]]:
    """A line a level, the least first."""
    return [level.summary() for level in sorted(levels, key=lambda level: level.sessions)]


def main(
    repository: Annotated[Path, typer.Option()] = REPOSITORY,
    config_name: Annotated[str | None, typer.Option(help="As `visavis serve` takes.")] = None,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    seconds: Annotated[float, typer.Option(help="That count, of each level.")] = 40.0,
    warm_up_s: Annotated[float, typer.Option(help="Before them.")] = 10.0,
    deadline_ms: Annotated[float, typer.Option(help="A block is missed after so long.")] = 200.0,
    misses: Annotated[float, typer.Option(help="The share that is too much.")] = 0.01,
    most: Annotated[int, typer.Option(help="Sessions to try at most.")] = 64,
) -> None:
    """Start a server, load it with more and more conversations, and write what it bears."""
    config = configs.load(EchoConfig, repository / "config.json")
    head, console, levels = record.environment(), Console(), []
    # With more places than the machine bears: what it bears is the question.
    ports, name = Ports(0, 0, 0), served_name(config.name, config_name)
    with Server(repository, ports=ports, config_name=config_name, max_sessions=most) as server:

        def measure(sessions: int) -> Level:
            console.print(f"{sessions} sessions …")
            return load(server.grpc_url, sessions, seconds, warm_up_s, deadline_ms)

        for level in search(measure, misses, most):
            levels.append(level)
            console.print(tables.in_terminal(rows(levels), name))
    capacity = max((one.sessions for one in levels if one.holds(misses)), default=0)
    record.write(
        out / f"capacity_{name}.json",
        "capacity",
        settings={
            "size": config.name,
            "config_name": config_name,
            "seconds": seconds,
            "warm_up_s": warm_up_s,
            "deadline_ms": deadline_ms,
            "misses": misses,
        },
        summary={"capacity": capacity, "levels": rows(levels)},
        raw=[asdict(level) for level in levels],
        measured_on=head,
    )
    title = f"{name}: {capacity} live sessions on {head['cores']} cores"
    plot(levels, title, out / f"capacity_{name}.png")
    console.print(title)


if __name__ == "__main__":
    typer.run(main)
