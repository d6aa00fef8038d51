"""This is where it is looked up what a server takes of its machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from visavis.serving.server import SHARED_MEMORY

MB = 1e6


@dataclass(frozen=True)
class Footprint:
    """Memory of all of a server's processes together, in MB.

    rss_mb: resident memory; what processes share counts once for each. pss_mb: what they share
    counts once. region_mb, regions: the server's own files in `/dev/shm`.
    """

    rss_mb: float
    pss_mb: float
    region_mb: float
    regions: int

    def __add__(self, other: Footprint) -> Footprint:
        """Of both, which share nothing of account."""
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return Footprint(**sums)


def footprint(pid: int) -> Footprint:
    """Of the server whose main process is `pid`."""
    leader = psutil.Process(pid)
    rss = pss = 0
    for process in (leader, *leader.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            memory = process.memory_full_info()
            rss, pss = rss + memory.rss, pss + memory.pss
    sizes = [region.stat().st_size for region in regions(pid) if region.exists()]
    return Footprint(rss / MB, pss / MB, sum(sizes) / MB, len(sizes))


def regions(pid: int) -> set[Path]:
    """The files in shared memory that a process has mapped: Triton's main process maps those of all
    its models."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if f" {SHARED_MEMORY}/" in line}
    return {Path(path) for path in paths}
