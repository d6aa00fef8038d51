"""This is where the samples of `benchmarks.soak` become figures and a plot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

MINUTE_S = 60.0


@dataclass
class Blocks:
    """What came of one session, block by block. `time_s` counts from the run's beginning."""

    time_s: list[float] = field(default_factory=list)
    block_ms: list[float] = field(default_factory=list)
    drift_frames: list[int] = field(default_factory=list)


@dataclass
class Run:
    """All raw samples. Several threads append, each to lists of its own or whole items."""

    deadline_ms: float
    sessions: list[Blocks] = field(default_factory=list)  # that last
    starts: list[tuple[float, float]] = field(default_factory=list)  # time_s, first_frame_ms
    visits: Blocks = field(default_factory=Blocks)  # of those who come and go
    memory: list[dict[str, float]] = field(default_factory=list)
    processors: list[dict[str, float]] = field(default_factory=list)  # of the whole machine
    errors: list[tuple[float, str]] = field(default_factory=list)  # time_s, what

    def summary(self, seconds: float, warm_up_s: float) -> dict[str, Any]:
        """The first minute after the warm-up against the last, and the whole."""
        first, last = compared(seconds, warm_up_s)
        found: dict[str, Any] = {
            "seconds": seconds,
            "compared_s": [first, last],
            "blocks": sum(len(own.block_ms) for own in self.sessions),
            "starts": len(self.starts),
            "errors": len(self.errors),
            "missed": _missed(self._blocks("block_ms", (0, seconds)), self.deadline_ms),
        }
        for name in ("block_ms", "drift_frames"):
            found[name] = change(*(self._blocks(name, span) for span in (first, last)))
        found["missed_in"] = [
            _missed(self._blocks("block_ms", span), self.deadline_ms) for span in (first, last)
        ]
        halves = (warm_up_s, (warm_up_s + seconds) / 2), ((warm_up_s + seconds) / 2, seconds)
        found["first_frame_ms"] = change(
            *([ms for t, ms in self.starts if start <= t < end] for start, end in halves)
        )
        for samples in (self.memory, self.processors):
            for name in samples[0] if samples else ():
                if name != "time_s":
                    found[name] = change(*(_inside(samples, name, span) for span in (first, last)))
        return found

    def _blocks(self, name: str, span: tuple[float, float]) -> list[float]:
        return [
            value
            for own in self.sessions
            for time_s, value in zip(own.time_s, getattr(own, name), strict=True)
            if span[0] <= time_s < span[1]
        ]


def _inside(
    samples: Sequence[Mapping[str, float]], name: str, span: tuple[float, float]
) -> list[float]:
    return [one[name] for one in samples if span[0] <= one["time_s"] < span[1]]


def compared(seconds: float, warm_up_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first minute after the warm-up and the last one, or halves of a run that is too short."""
    length_s = min(MINUTE_S, (seconds - warm_up_s) / 2)
    return (warm_up_s, warm_up_s + length_s), (seconds - length_s, seconds)


def change(first: Sequence[float], last: Sequence[float]) -> dict[str, float | None]:
    """Medians, and the last in % of the first's."""
    if not first or not last:
        return {"first": None, "last": None, "percent": None}
    before, after = float(np.median(first)), float(np.median(last))
    percent = 100 * (after / before - 1) if before else None
    return {"first": before, "last": after, "percent": percent}


def _missed(block_ms: Sequence[float], deadline_ms: float) -> float:
    return float(np.mean(np.array(block_ms) > deadline_ms)) if len(block_ms) else 1.0


def plot(run: Run, seconds: float, title: str, path: Path) -> None:
    """Latency, processors, memory, shared memory and drift over time."""
    figure, axes = plt.subplots(5, 1, figsize=(9, 12), sharex=True)
    latency, processors, memory, shared, drift = axes
    for blocks in run.sessions:
        times, values = np.array(blocks.time_s) / MINUTE_S, np.array(blocks.block_ms)
        latency.plot(times, values, ".", markersize=1, alpha=0.4)
        drift.plot(times, blocks.drift_frames, linewidth=0.8)
    middles, p50, p99 = _percentiles(run, seconds)
    latency.plot(middles, p50, color="black", label="p50")
    latency.plot(middles, p99, color="black", linestyle=":", label="p99")
    if run.starts:
        starts = np.array(run.starts)
        latency.plot(starts[:, 0] / MINUTE_S, starts[:, 1], "+", label="first frame")
    latency.axhline(run.deadline_ms, color="grey", linestyle="--", label="deadline")
    latency.set(yscale="log", ylabel="block latency, ms", title=title)
    times = [one["time_s"] / MINUTE_S for one in run.processors]
    for name, label in {"busy_percent": "in use", "stolen_percent": "given to others"}.items():
        processors.plot(times, [one[name] for one in run.processors], label=label, linewidth=0.8)
    processors.set(ylabel="processors, %", ylim=(0, 100))
    times = [one["time_s"] / MINUTE_S for one in run.memory]
    names = {"rss_mb": "RSS", "pss_mb": "PSS", "client_rss_mb": "RSS of the clients"}
    for name, label in names.items():
        if run.memory and name in run.memory[0]:
            memory.plot(times, [one[name] for one in run.memory], label=label)
    memory.set(ylabel="memory, MB", ylim=(0, None))
    if run.memory and "region_mb" in run.memory[0]:
        shared.plot(times, [one["region_mb"] for one in run.memory], label="MB")
        shared.plot(times, [one["regions"] for one in run.memory], label="files")
    shared.set(ylabel="shared memory", ylim=(0, None))
    drift.set(ylabel="drift, frames", xlabel="minutes")
    for axis in axes[:4]:
        axis.legend(fontsize=8, loc="upper right")
    for time_s, _ in run.errors:
        for axis in axes:
            axis.axvline(time_s / MINUTE_S, color="red", linewidth=0.5)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _percentiles(run: Run, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """The middles of a hundred spans, in minutes, with p50 and p99 of the latencies in each."""
    times = np.concatenate([own.time_s for own in run.sessions] or [[]])
    values = np.concatenate([own.block_ms for own in run.sessions] or [[]])
    edges = np.linspace(0, seconds, 101)
    middles, p50, p99 = [], [], []
    for start, end in itertools.pairwise(edges):
        inside = values[(times >= start) & (times < end)]
        if len(inside):
            middles.append((start + end) / 2 / MINUTE_S)
            p50.append(float(np.percentile(inside, 50)))
            p99.append(float(np.percentile(inside, 99)))
    return middles, p50, p99


def changes(summary: Mapping[str, Any]) -> list[dict[str, object]]:
    """The rows of a summary that have a first and a last value."""
    compared_rows = {n: v for n, v in summary.items() if isinstance(v, dict)}
    return [{"measure": name, **values} for name, values in compared_rows.items()]
