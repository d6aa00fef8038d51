"""This is where it is said what a fault is: something that was done to a server, and what came of
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.tables import said

Figure = float | int | str | bool | None


@dataclass(frozen=True)
class Fault:
    """One event.

    promised: what the README says of it. kept: whether that was seen; None where nothing is
    promised. raw: the samples that `seen` comes from.
    """

    event: str
    promised: str
    seen: Mapping[str, Figure]
    kept: bool | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def summary(self) -> dict[str, Any]:
        """All of it but the samples."""
        return {name: value for name, value in asdict(self).items() if name != "raw"}


def row(event: Mapping[str, Any]) -> dict[str, object]:
    """A fault's summary as a line of a table."""
    seen = ", ".join(f"{name} {said(value)}" for name, value in event["seen"].items())
    kept = {True: "yes", False: "**no**", None: "–"}[event["kept"]]
    return {
        "what happens": event["event"],
        "promised": event["promised"] or "–",
        "kept": kept,
        "seen": seen.replace("|", "\\|"),
    }
