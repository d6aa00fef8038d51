"""This is where a finished session's times become numbers that can be printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.table import Table

from visavis.config import EchoConfig
from visavis.contract import contracts
from visavis_client._types import BlockTiming, ModelStatistics

NETWORKS = tuple(m.name for m in contracts(EchoConfig()).values() if m.kind == "onnx")


@dataclass(frozen=True)
class Report:
    """How fast a server was with one session.

    block_s: (n,) seconds of each block after the first, from when the server could begin (the
    request was there and the block before was out) to its arrival. A client that is slow in
    between does not count; to keep up, a block must stay below its own length. frames_per_s: of
    these blocks. models: what each network did meanwhile, for any other session too.
    """

    first_frame_s: float
    block_s: np.ndarray
    frames_per_s: float
    wall_s: float
    models: tuple[ModelStatistics, ...]

    @classmethod
    def of(
        cls,
        timings: Sequence[BlockTiming],
        before: Mapping[str, ModelStatistics],
        after: Mapping[str, ModelStatistics],
    ) -> Report:
        """The report of a session's `timings`, between two looks at the server's statistics."""
        block_s = np.array(
            [
                min(timing.latency_s, timing.arrived_s - previous.arrived_s)
                for previous, timing in pairwise(timings)
            ]
        )
        frames = sum(timing.frames for timing in timings[1:])
        return cls(
            first_frame_s=timings[0].arrived_s,
            block_s=block_s,
            frames_per_s=frames / float(block_s.sum()) if frames else 0.0,
            wall_s=timings[-1].arrived_s,
            models=tuple(
                after[name].since(before.get(name, ModelStatistics(name)))
                for name in NETWORKS
                if name in after
            ),
        )


def speed_table(report: Report) -> Table:
    """First frame, blocks and frames a second."""
    table = Table("speed of the server", "")
    table.columns[1].justify = "right"
    table.add_row("first frame", f"{1e3 * report.first_frame_s:.0f} ms")
    if len(report.block_s):
        for percent in (50, 95, 99):
            value_ms = 1e3 * float(np.percentile(report.block_s, percent))
            table.add_row(f"a block, p{percent}", f"{value_ms:.0f} ms")
        table.add_row("frames a second", f"{report.frames_per_s:.1f}")
    return table


def models_table(report: Report) -> Table:
    """What each network took of all networks' time, and these of the whole session's."""
    table = Table("network", "calls", "compute", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    busy = [model for model in report.models if model.executions]
    total_s = sum(model.compute_s for model in busy)
    for model in sorted(busy, key=lambda model: -model.compute_s):
        compute, share = f"{1e3 * model.compute_s:.0f} ms", f"{model.compute_s / total_s:.0%}"
        table.add_row(model.name, str(model.executions), compute, share)
    table.add_section()
    share = f"{total_s / report.wall_s:.0%} of {report.wall_s:.1f} s"
    table.add_row("all", "", f"{1e3 * total_s:.0f} ms", share)
    return table
