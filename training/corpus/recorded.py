"""This is where faces from real films join the VAE's pictures.

    python -m training.corpus.recorded franck.mp4 interview.mov --out corpus

Writes `DIR/{train,test}/recorded/person_NAME.mp4`, as training/corpus/stills.py does for rendered
faces: one face a film, aligned and cropped with one transform, a picture every few frames. Sound is
not used; films of two people who talk with each other are for training/corpus/prepare.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm
from visavis_client.face import FaceTrack

from training.film import Film, read_frames
from training.whole import whole


def faces(film: Path, size: int, every: int) -> Iterator[np.ndarray]:
    """Aligned (S, S, 3) uint8 faces of every `every`th frame; NoFaceError where there is none."""
    track = FaceTrack(size)
    track.fit(read_frames(film))
    for frame in islice(read_frames(film), 0, None, every):
        yield track.crop(frame)


def cut(film: Path, target: Path, size: int, every: int) -> None:
    """The faces of one film as a film of key frames, whole or not at all."""
    with whole(target) as partial, Film.open(partial, size) as cropped:
        for face in faces(film, size, every):
            cropped.add(face)


def main(
    films: Annotated[list[Path], typer.Argument(help="Films in which one face is seen.")],
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    split: Annotated[str, typer.Option(help="train or test")] = "train",
    every: Annotated[int, typer.Option(help="One frame of so many.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 256,
) -> None:
    """Cut faces out of films; those that are there are kept."""
    for film in tqdm(films, unit="film"):
        target = out / split / "recorded" / f"person_{film.stem}.mp4"
        if not target.exists():
            cut(film, target, size, every)


if __name__ == "__main__":
    typer.run(main)
