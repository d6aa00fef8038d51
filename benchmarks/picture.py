"""This is where the README's picture is made: `python -m benchmarks.picture out/demo.mp4`.

Evenly spaced frames of a film, side by side; nothing is chosen by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from visavis_client.media import read_video


def sheet(frames: list[np.ndarray], columns: int, rows: int, width: int) -> np.ndarray:
    """`columns` × `rows` evenly spaced frames, the whole `width` pixels wide."""
    moments = np.linspace(0, len(frames) - 1, columns * rows).astype(int)
    lines = [
        np.hstack([frames[n] for n in moments[row * columns : (row + 1) * columns]])
        for row in range(rows)
    ]
    whole = np.vstack(lines)
    height = round(whole.shape[0] * width / whole.shape[1])
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def main(
    film: Annotated[Path, typer.Argument()],
    out: Annotated[Path, typer.Option()] = Path("docs/demo.jpg"),
    columns: int = 3,
    rows: int = 2,
    width: int = 1200,
) -> None:
    """Write the picture."""
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = sheet(list(read_video(film)), columns, rows, width)
    cv2.imwrite(str(out), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    typer.run(main)
