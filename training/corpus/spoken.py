"""This is where conversations are spoken that nobody sees.

    python -m training.corpus.spoken --out DIR

What voices tell, and how long it stays on people's minds, can be learned without a face, and to
speak takes a tenth of the time of rendering. Writes `DIR/{train,test}/spoken/conversation_0007/`
with `a.wav`, `b.wav` and `truth.npz`: what render.py writes for the same number and seed, less all
that has pictures in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from training.corpus import truth
from training.corpus.behaviour import motions
from training.corpus.curves import CurveSet
from training.corpus.dialogues import SPLITS
from training.corpus.head import curve_names
from training.corpus.render import Job, job_generator, made, person_truth, spoken, write_voice
from training.corpus.voice import prepare_kokoro
from training.workers import done, limit_threads


@dataclass(frozen=True)
class Unseen(Job):
    """One conversation to speak."""

    @property
    def folder(self) -> Path:
        """Where the finished conversation lies."""
        return self.out / self.split / "spoken" / f"conversation_{self.number:04d}"


def speak(job: Unseen) -> Path:
    """Speak one conversation unless it is there already; returns its folder."""
    return made(job, fill)


def fill(folder: Path, job: Job) -> None:
    """Speak one conversation into a folder."""
    rng = job_generator(job)
    people, conversation = spoken(job, rng)
    arrays = truth.shared_arrays(conversation)
    for key, motion in motions(conversation, CurveSet(curve_names()), rng).items():
        write_voice(folder / f"{key}.wav", conversation.voices[key])
        arrays |= person_truth(conversation, key, people[key], motion)
    np.savez_compressed(folder / "truth.npz", **arrays)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    train: Annotated[int, typer.Option(help="Training conversations.")] = 200,
    test: Annotated[int, typer.Option(help="Test conversations.")] = 36,
    seconds: Annotated[float, typer.Option(help="Length of each conversation.")] = 64.0,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same conversations.")] = 0,
) -> None:
    """Speak conversations without rendering them; continues a stopped run."""
    limit_threads()
    prepare_kokoro()
    counts = dict(zip(SPLITS, (train, test), strict=True))
    jobs = [Unseen(out, split, n, seconds, seed) for split in SPLITS for n in range(counts[split])]
    for _ in tqdm(done(speak, jobs, workers), total=len(jobs), unit="conversation"):
        pass


if __name__ == "__main__":
    typer.run(main)
