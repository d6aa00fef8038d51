"""This is where all results become one page: `python -m benchmarks.report`.

It reads every `benchmarks/results/*.json` that has the five keys of `visavis.record`, and writes
`README.md` beside them, with a plot of the latencies. A folder below them, for results of another
machine, gets a page of its own. Nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer

from benchmarks import RESULTS, tables
from benchmarks.fault import row
from benchmarks.soak_run import changes

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

COMMANDS = {
    "latency": "python -m benchmarks.latency",
    "capacity": "python -m benchmarks.capacity",
    "batching": "python -m benchmarks.batching",
    "variants": "python -m benchmarks.variants",
    "fidelity": "python -m training.evaluate",
    "soak": "python -m benchmarks.soak",
    "faults": "python -m benchmarks.faults",
    "drift": "python -m training.drift",
    "steps": "python -m training.steps",
    "ablation": "python -m training.ablate",
}
FIDELITY = (
    "mouth_r",
    "mouth_amplitude",
    "closure_pbm",
    "mouth_at_rest",
    "lip_in_sync",
    "own_portrait_nearest",
    "fd_exp",
    "sid_pooled_exp",
    "rpcc_exp",
    "emotion_agreement",
    "reaction_r",
)

Result = Mapping[str, Any]


def latency(result: Result, path: Path) -> Iterator[str]:
    """One session's figures, and how its block latencies are distributed."""
    yield tables.in_markdown([{"measure": n, "value": v} for n, v in result["summary"].items()])
    blocks_ms = 1e3 * np.sort(result["raw"]["live_block_latency_s"])
    figure, axis = plt.subplots(figsize=(7, 3))
    axis.plot(blocks_ms, np.linspace(0, 100, len(blocks_ms)))
    axis.axvline(result["summary"]["block_length_ms"], color="grey", linestyle="--")
    axis.set(xlabel="live block latency, ms (dashed: a block's length)", ylabel="% of blocks")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=100)
    plt.close(figure)
    yield f"![latencies]({path.with_suffix('.png').name})"


def capacity(result: Result, path: Path) -> Iterator[str]:
    """What each number of sessions got."""
    yield f"{result['summary']['capacity']} live sessions."
    yield tables.in_markdown(result["summary"]["levels"])
    yield f"![sessions]({path.with_suffix('.png').name})"


def batching(result: Result, path: Path) -> Iterator[str]:
    """Each way of sharing batches."""
    yield tables.in_markdown(result["summary"])


def variants(result: Result, path: Path) -> Iterator[str]:
    """What each way to run the networks takes, and how near its frames are to the default's."""
    summary = result["summary"]
    yield tables.in_markdown(summary["variants"])
    yield tables.in_markdown(summary["bare"])
    for name, providers in summary["providers"].items():
        by: dict[str, list[str]] = {}
        for model, provider in sorted(providers.items()):
            by.setdefault(provider, []).append(model)
        yield f"{name}: " + "; ".join(f"{', '.join(all_)}: {one}" for one, all_ in by.items())
    for name, lack in summary["left_out"].items():
        yield f"{name} was left out: {lack}"
    yield f"![variants]({path.with_suffix('.png').name})"
    rows = ", ".join(row["variant"] for row in summary["variants"])
    yield f"![frames]({path.with_suffix('.jpg').name})\n\nFrom above: {rows}."


def soak(result: Result, path: Path) -> Iterator[str]:
    """The first minute against the last."""
    summary = result["summary"]
    yield (
        f"{summary['blocks']} blocks, {100 * summary['missed']:.2g} % of them late, "
        f"{summary['starts']} more sessions that came and went, {summary['errors']} errors. The "
        "first minute after the warm-up against the last, medians:"
    )
    yield tables.in_markdown(changes(summary))
    yield f"![over time]({path.with_suffix('.png').name})"


def faults(result: Result, path: Path) -> Iterator[str]:
    """What was done to the server, and what was seen."""
    yield tables.in_markdown([row(event) for event in result["summary"]["events"]])


def fidelity(result: Result, path: Path) -> Iterator[str]:
    """The most telling figures of every system."""
    rows = result["summary"].items()
    yield tables.in_markdown(
        [{"system": n, **{f: row.get(f) for f in FIDELITY}} for n, row in rows]
    )


def drift(result: Result, path: Path) -> Iterator[str]:
    """The last minute against the first."""
    changes = result["summary"]["changes"].items()
    yield tables.in_markdown(
        [
            {"person": person, **{f"{n}, %": change["percent"] for n, change in own.items()}}
            for person, own in changes
        ]
    )


SECTIONS: Mapping[str, Callable[[Result, Path], Iterator[str]]] = {
    "latency": latency,
    "capacity": capacity,
    "batching": batching,
    "variants": variants,
    "soak": soak,
    "faults": faults,
    "fidelity": fidelity,
    "drift": drift,
}


def section(path: Path) -> str | None:
    """A result's part of the page; None for another file."""
    result = json.loads(path.read_text())
    if not isinstance(result, dict) or result.get("benchmark") not in SECTIONS:
        return None
    name, where = result["benchmark"], result["environment"]
    measured = (
        f"`{COMMANDS[name]}` on {where['processor']}, {where['cores']} cores, at {where['date']}, "
        f"revision {where['revision']}; settings: "
        + ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    )
    return "\n\n".join([f"## {path.stem}", measured, *SECTIONS[name](result, path)])


def page(folder: Path) -> str:
    """All of them."""
    head = (
        "# Results\n\nWritten by `python -m benchmarks.report`; every raw sample is in the JSON "
        "file of a section's name."
    )
    sections = filter(None, map(section, sorted(folder.glob("*.json"))))
    others = [f"[{other.name}]({other.name}/README.md)" for other in machines(folder)]
    also = [f"On other machines: {', '.join(others)}."] if others else []
    return "\n\n".join([head, *also, *sections]) + "\n"


def machines(folder: Path) -> list[Path]:
    """The folders of results of other machines."""
    return sorted({path.parent for path in folder.glob("*/*.json")})


def main(folder: Annotated[Path, typer.Argument()] = RESULTS) -> None:
    """Write the page, and those of other machines."""
    for one in (folder, *machines(folder)):
        (one / "README.md").write_text(page(one))
        print(one / "README.md")


if __name__ == "__main__":
    typer.run(main)
