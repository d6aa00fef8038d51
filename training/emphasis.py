"""This is where it is set how widely a trained avatar opens its mouth.

    python -m training.emphasis ECHO_CHECKPOINT OUT --gain 1.6

What is read in a voice is the mean of what mouths do at it, and a decoder paints the mean of what a
prediction leaves open: both open a mouth less widely than true ones are. So the checkpoint OUT is
told what was read times `gain` (`DenoiserConfig.articulation_gain`); all weights stay as they are.
Too much makes teeth shine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from training.articulate import PART
from visavis import checkpoint


def emphasize(echo: Path, out: Path, gain: float) -> Path:
    """Write a checkpoint folder `out` whose face is told `gain` times what is read in the voice."""
    found = checkpoint.load(echo, "echo")
    if PART in found.config.without:
        raise ValueError(
            f"{echo}: got a network without {PART}, expected one that is told how far its mouth "
            "opens; give it one with training.articulate --from, and train on"
        )
    denoiser = replace(found.config.denoiser, articulation_gain=gain)
    config = replace(found.config, denoiser=denoiser)
    return checkpoint.save(out, "echo", config, found.weights, **found.facts)


def main(
    echo: Path, out: Path, gain: Annotated[float, typer.Option(min=0.0, help="1 as trained")]
) -> None:
    """Write the checkpoint ECHO as OUT, which is told that its mouth opens GAIN times as far."""
    print(emphasize(echo, out, gain))


if __name__ == "__main__":
    typer.run(main)
