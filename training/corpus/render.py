"""This is where the corpus is rendered: `python -m training.corpus.render --out DIR`.

Writes `DIR/{train,test}/conversation_0007/` with, for the two people a and b,

- `a.mp4`, `b.mp4`: 256x256 at 25 frames/s, H.264 with key frames only and full colour resolution
- `a.wav`, `b.wav`: 16 kHz mono, that person's voice alone, exactly 640 samples a frame
- `truth.npz`: see truth.py
- `preview.jpg`: a contact sheet

and at the end of each split `DIR/{train,test}.jpg` and `.mp4` to look at and, if asked for, shards
(see preview.py and shards.py). People, voices and sentences of the two splits differ (people.py,
voice.py, dialogues.py). A conversation depends on nothing but (seed, split, number): a stopped run
continues where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from training.corpus import preview, shards, truth
from training.corpus.behaviour import Motion, motions
from training.corpus.conversation import PEOPLE, Conversation, perform, write_script
from training.corpus.curves import CurveSet
from training.corpus.dialogues import SPLITS
from training.corpus.head import HeadGeometry, curve_names
from training.corpus.people import Person, cast
from training.corpus.voice import SpeechSynthesizer, prepare_kokoro
from training.film import Film
from training.whole import whole
from training.workers import done, limit_threads
from visavis.config import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Job:
    """One conversation to render."""

    out: Path
    split: str
    number: int
    seconds: float
    seed: int
    size: int = 256

    @property
    def folder(self) -> Path:
        """Where the finished conversation lies."""
        return self.out / self.split / f"conversation_{self.number:04d}"


def job_generator(job: Job) -> np.random.Generator:
    """Random numbers that depend on the conversation only, not on the order of rendering."""
    return np.random.default_rng([job.seed, SPLITS.index(job.split), job.number])


def pictures(person: Person, motion: Motion, size: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Pictures (size, size, 3) and part maps (S, S), both uint8, of all frames."""
    from training.corpus.renderer import HeadRenderer

    renderer = HeadRenderer(person.identity, size=size)
    for curves, pose in zip(motion.curves, motion.pose, strict=True):
        yield renderer.render(curves, pose)
    renderer.release()


def write_video(
    path: Path, person: Person, motion: Motion, size: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
    """One person's video; returns 8 pictures for the contact sheet and the part maps (T, S, S)."""
    samples = set(np.linspace(0, len(motion.pose) - 1, 10).astype(int)[1:-1].tolist())
    kept, parts = [], []
    with Film.open(path, size) as film:
        for index, (picture, part_map) in enumerate(pictures(person, motion, size)):
            parts.append(part_map)
            if index in samples:
                kept.append(picture)
            film.add(picture)
    return kept, np.stack(parts)


def person_truth(
    conversation: Conversation, key: str, person: Person, motion: Motion
) -> truth.Arrays:
    """All that is known of one person without a picture, named as in truth.py."""
    looks_and_voice = person.identity.to_dict() | {"voice": person.voice.to_dict()}
    known = truth.person_arrays(conversation, key, motion) | {
        "aperture": HeadGeometry(person.identity).aperture(motion.curves),
        "identity": np.array(json.dumps(looks_and_voice)),
    }
    return {f"{key}_{name}": values for name, values in known.items()}


def render_conversation(job: Job) -> Path:
    """Render one conversation unless it is there already; returns its folder."""
    return made(job, fill)


def made(job: Job, fill: Callable[[Path, Job], None]) -> Path:
    """The folder of a conversation, filled unless it is there already: whole or not at all."""
    if not job.folder.exists():
        with whole(job.folder) as partial:
            partial.mkdir()
            fill(partial, job)
    return job.folder


def spoken(job: Job, rng: np.random.Generator) -> tuple[dict[str, Person], Conversation]:
    """Both people, and what they say."""
    people = dict(zip(PEOPLE, cast(job.split, job.number, job.seed), strict=True))
    script = write_script(job.split, job.number, job.seed)
    voices = {key: person.voice for key, person in people.items()}
    return people, perform(script, job.seconds, voices, SpeechSynthesizer(), rng)


def write_voice(path: Path, voice: NDArray[np.float32]) -> None:
    """A waveform of 16 kHz."""
    soundfile.write(path, voice, SAMPLE_RATE_HZ, subtype="PCM_16")


def fill(folder: Path, job: Job) -> None:
    """Render one conversation into a folder."""
    from training.corpus.renderer import PARTS

    rng = job_generator(job)
    people, conversation = spoken(job, rng)
    arrays = truth.shared_arrays(conversation) | {"part_names": np.array(PARTS)}
    rows = []
    for key, motion in motions(conversation, CurveSet(curve_names()), rng).items():
        person = people[key]
        row, parts = write_video(folder / f"{key}.mp4", person, motion, job.size)
        rows.append(row)
        write_voice(folder / f"{key}.wav", conversation.voices[key])
        arrays |= person_truth(conversation, key, person, motion) | {f"{key}_parts": parts}
    np.savez_compressed(folder / "truth.npz", **arrays)
    preview.write_sheet(folder / "preview.jpg", rows)


def plan_jobs(out: Path, train: int, test: int, seconds: float, seed: int) -> list[Job]:
    """All conversations in rendering order: two of the test ones first, then train, then test."""
    numbered = [("test", number) for number in range(min(test, 2))]
    numbered += [("train", number) for number in range(train)]
    numbered += [("test", number) for number in range(2, test)]
    return [Job(out, split, number, seconds, seed) for split, number in numbered]


def render_all(jobs: list[Job], workers: int) -> float:
    """Render with a progress bar; returns minutes of conversation per hour of rendering."""
    speed = 0.0
    began, minutes = time.perf_counter(), 0.0
    rendered = done(render_conversation, jobs, workers)
    for job, _ in (progress := tqdm(rendered, total=len(jobs), unit="conversation")):
        minutes += job.seconds / 60
        speed = minutes / ((time.perf_counter() - began) / 3600)
        progress.set_postfix_str(f"{speed:.0f} min of conversation per hour")
    return speed


def main(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    train: Annotated[int, typer.Option(help="Training conversations.")] = 40,
    test: Annotated[int, typer.Option(help="Test conversations.")] = 6,
    seconds: Annotated[float, typer.Option(help="Length of each conversation.")] = 90.0,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same corpus.")] = 0,
    shards_to: Annotated[str, typer.Option(help="Folder or object store for shards.")] = "",
) -> None:
    """Render the synthetic corpus; continues a stopped run."""
    limit_threads()
    prepare_kokoro()
    jobs = plan_jobs(out, train, test, seconds, seed)
    waiting = [job for job in jobs if not job.folder.exists()]
    typer.echo(f"{len(jobs)} conversations, {len(jobs) - len(waiting)} already there")
    speed = render_all(waiting, workers)
    if waiting:
        report = {"minutes_per_hour": round(speed, 1), "workers": workers, "rendered": len(waiting)}
        (out / "speed.json").write_text(json.dumps(report, indent=2) + "\n")
        typer.echo(f"rendered {speed:.0f} minutes of conversation per hour, {workers} workers")
    for split in SPLITS:
        preview.write_split(out, split)
        if shards_to:
            shards.pack(out / split, shards_to, split)


if __name__ == "__main__":
    typer.run(main)
