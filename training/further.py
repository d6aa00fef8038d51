"""This is where weights are taken on the line through two networks of which one began as the other.

    python -m training.further BEFORE AFTER OUT --ratio 1.6

What training changes lies, near enough, along a line: the checkpoint OUT has the weights of BEFORE
and `ratio` times the difference of AFTER from them. More than all of it makes more of what was
learned (task arithmetic: Ilharco et al., 2023, arXiv 2212.04089): from a teacher past its student,
a face shows more and a mouth opens wider, for which to distil anew at every guidance scale would
take long, until skin and teeth grow rough. A part of it keeps what BEFORE could and AFTER has
forgotten (Wortsman et al., 2022, arXiv 2109.01903): half the way from a network that the decoder
knows well to one that has heard more conversations, eyes and teeth stay whole, and faces answer
better than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from visavis import checkpoint

Weights = Mapping[str, np.ndarray]


def along(before: Weights, after: Weights, ratio: float) -> dict[str, np.ndarray]:
    """The weights on the line through both: those before at 0, those after at 1.

    Raises ValueError when one has a weight that the other lacks, or of another shape.
    """
    ours, theirs = ({n: w.shape for n, w in some.items()} for some in (before, after))
    if unlike := sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n)):
        name = unlike[0]
        raise ValueError(
            f"{name}: got {theirs.get(name)} after training, expected {ours.get(name)} as before "
            f"({len(unlike)} weights differ so); give two networks of which one began as the other"
        )
    return {n: weight + ratio * (after[n] - weight) for n, weight in before.items()}


def go_further(before: Path, after: Path, out: Path, ratio: float) -> Path:
    """Write a checkpoint folder `out`, see `along`."""
    first, last = (checkpoint.load(folder, "echo") for folder in (before, after))
    weights = along(first.weights, last.weights, ratio)
    origins = {"before": first.manifest["sha256"], "after": last.manifest["sha256"]}
    return checkpoint.save(out, "echo", last.config, weights, **origins, ratio=ratio)


def main(
    before: Path,
    after: Path,
    out: Path,
    ratio: Annotated[float, typer.Option(min=0.0, help="0 is BEFORE, 1 is AFTER")],
) -> None:
    """Write the checkpoint OUT, RATIO times as far from BEFORE as AFTER is."""
    print(go_further(before, after, out, ratio))


if __name__ == "__main__":
    typer.run(main)
