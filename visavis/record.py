"""This is where a measurement is kept, with all that is needed to repeat and to doubt it.

Every result of this project is one JSON object with the same five keys:

    benchmark      what was measured
    environment    machine, revision, versions and date
    settings       how
    summary        the figures that are read
    raw            every sample that they come from
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-ep-openvino",
    "nvidia-pytriton",
    "torch",
    "tritonclient",
)


def write(
    path: Path,
    benchmark: str,
    *,
    settings: Mapping[str, object],
    summary: object,
    raw: object,
    measured_on: Mapping[str, object] | None = None,
) -> None:
    """A result as JSON. `measured_on` is an earlier `environment()`, of before the load."""
    found = {
        "benchmark": benchmark,
        "environment": measured_on or environment(),
        "settings": settings,
        "summary": summary,
        "raw": raw,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(found), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """A value with null for what JSON has no number for: readers in other languages know none."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def environment() -> dict[str, Any]:
    """Machine, revision, versions and date, for the head of a result file."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """The git revision, with "+" when the tree has changes."""
    command = ["git", "describe", "--always", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return found.stdout.strip() or "unknown"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
