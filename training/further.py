"""This is where a student goes further the way that distillation has sent it.

    python -m training.further TEACHER STUDENT OUT --ratio 1.5

A student that began as its teacher has learned what guidance adds to it: a livelier face, a mouth
that opens wider. How much of that is good is seen only in its videos, and to distil anew for every
guidance scale takes long. But what was learned lies along a line: the checkpoint OUT has the
teacher's weights and `ratio` times the student's difference from them, less or more than all of it
(task arithmetic: Ilharco et al., 2023, arXiv 2212.04089). Too much makes skin and teeth rough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from visavis import checkpoint

Weights = Mapping[str, np.ndarray]


def along(teacher: Weights, student: Weights, ratio: float) -> dict[str, np.ndarray]:
    """The weights on the line through both: the teacher's at 0, the student's at 1.

    Raises ValueError when one has a weight that the other lacks, or of another shape.
    """
    ours, theirs = ({n: w.shape for n, w in some.items()} for some in (teacher, student))
    if unlike := sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n)):
        name = unlike[0]
        raise ValueError(
            f"{name}: got {theirs.get(name)} in the student, expected {ours.get(name)} as in the "
            f"teacher ({len(unlike)} weights differ so); give the teacher that it began as"
        )
    return {n: weight + ratio * (student[n] - weight) for n, weight in teacher.items()}


def go_further(teacher: Path, student: Path, out: Path, ratio: float) -> Path:
    """Write a checkpoint folder `out`, see `along`."""
    first, last = (checkpoint.load(folder, "echo") for folder in (teacher, student))
    weights = along(first.weights, last.weights, ratio)
    facts = {
        "teacher": first.manifest["sha256"],
        "student": last.manifest["sha256"],
        "ratio": ratio,
    }
    return checkpoint.save(out, "echo", last.config, weights, **facts)


def main(
    teacher: Path,
    student: Path,
    out: Path,
    ratio: Annotated[float, typer.Option(min=0.0, help="1 is the student")],
) -> None:
    """Write the checkpoint OUT, RATIO times as far from TEACHER as STUDENT is."""
    print(go_further(teacher, student, out, ratio))


if __name__ == "__main__":
    typer.run(main)
