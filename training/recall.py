"""This is where it is seen how much of what was said before a network still uses.

    python -m training.recall CACHE ECHO OUT [--workers 2]

What is due to held-out people as they listen is read from f_pu, as in `training.listen`, while the
LCU hears the user's last one, two, five or ten seconds, or all of the conversation. What a window
takes from a label is what the network knew from before it. It has learned with all of its memory;
what one could do that never had more than a window is `training.ablate`'s question.

The network's labels are those of the cache it has learned from, in their order: give that cache.

Written are `OUT/recall.json` and `OUT/recall.png`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer
from tqdm import tqdm

from training.data import tracks
from training.expression import Labels
from training.listen import asked, correlations
from training.rollout import window_of
from training.workers import done, limit_threads
from visavis import record
from visavis.nn.echo import load_echo

WINDOWS_S = (None, 10.0, 5.0, 2.0, 1.0)
Figures = dict[str, float]


@dataclass(frozen=True)
class Hearing:
    """A network that hears so much of the past."""

    cache: Path
    echo: Path
    window_s: float | None

    @property
    def name(self) -> str:
        """Such as `2 s`."""
        return "all" if self.window_s is None else f"{self.window_s:g} s"


def measure(hearing: Hearing) -> Figures:
    """Correlation of the readings with every label, where people listen."""
    echo = load_echo(hearing.echo).eval()
    labels = Labels.among(tracks(hearing.cache, "train"))
    window_blocks = window_of(echo.config, hearing.window_s)
    r = correlations(*asked(echo, labels, tracks(hearing.cache, "test"), window_blocks))
    return dict(zip(labels.names, r.tolist(), strict=True))


def plot(found: Mapping[str, Figures], path: Path) -> None:
    """A line a label, by how much is heard; the most is left."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    whole = next(iter(found.values()))
    for label in sorted((n for n in whole if np.isfinite(whole[n])), key=lambda n: -whole[n]):
        axes.plot(list(found), [r[label] for r in found.values()], "o-", label=label)
    axes.set(xlabel="of the user's past that is heard", ylabel="what is due as it is read, r")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(
    cache: Annotated[Path, typer.Argument(help="That the network has learned from.")],
    echo: Annotated[Path, typer.Argument(help="Its checkpoint.")],
    out: Path,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
) -> None:
    """Read what is due with ever less of the past; writes figures and a plot to OUT."""
    limit_threads()
    jobs = [Hearing(cache, echo, window_s) for window_s in WINDOWS_S]
    results = dict(tqdm(done(measure, jobs, workers), total=len(jobs), unit="window"))
    found = {job.name: results[job] for job in jobs}
    facts = {"tracks": len(tracks(cache, "test")), "labels_of": len(tracks(cache, "train"))}
    record.write(out / "recall.json", "recall", settings=facts, summary=found, raw={})
    plot(found, out / "recall.png")
    typer.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
