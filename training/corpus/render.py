"""Render the corpus: `python -m training.corpus.render --out DIR`.

Writes `DIR/{train,test}/conversation_0007/` with, for the two people a and b,

- `a.mp4`, `b.mp4`: 256x256 at 25 frames/s, H.264 with key frames only and full colour resolution
- `a.wav`, `b.wav`: 16 kHz mono, that person's voice alone, exactly 640 samples a frame
- `truth.npz`: curves, pose, viseme, aperture, speaking, emotion (each with the prefix `a_` or
  `b_`), their name lists, and as JSON strings `transcript`, `a_identity`, `b_identity`
- `preview.jpg`: a contact sheet

Every person takes part in one conversation only, so people in train and test differ; the voices
(see voice.py) and sentences (see dialogues.py) of the two splits differ as well.  A conversation
depends on nothing but (seed, split, number): a stopped run continues where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import wave
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from training.corpus.behaviour import (
    FRAME_RATE,
    PAUSES,
    VISEMES,
    CurveSet,
    Motion,
    Phoneme,
    Turn,
    person_motion,
)
from training.corpus.dialogues import EMOTIONS, EXCHANGES, Exchange
from training.corpus.head import Identity, curve_names, random_identity
from training.corpus.voice import (
    SAMPLE_RATE,
    Speech,
    SpeechSynthesizer,
    Voice,
    prepare_model,
    random_voice,
)

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
PEOPLE = ("a", "b")
SPLITS = ("train", "test")


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


@dataclass(frozen=True)
class Person:
    """Looks and voice of one participant."""

    identity: Identity
    voice: Voice


@dataclass(frozen=True)
class Soundtrack:
    """Turns in time, and each person's voice (T * 640,) float32."""

    turns: list[Turn]
    voices: dict[str, NDArray[np.float32]]


def job_generator(job: Job) -> np.random.Generator:
    """Random numbers that depend on the conversation only, not on the order of rendering."""
    return np.random.default_rng([job.seed, SPLITS.index(job.split), job.number])


def draw_people(job: Job, rng: np.random.Generator) -> dict[str, Person]:
    """The two people of a conversation."""
    people = {}
    for position, key in enumerate(PEOPLE):
        # Four consecutive conversations hold all combinations, so both genders are equally common.
        gender = ("female", "male")[(job.number >> position) & 1]
        name = f"{job.split}-{job.number:04d}-{key}"
        identity = random_identity(name, gender, rng)
        people[key] = Person(identity, random_voice(job.split, gender, rng))
    return people


def choose_exchanges(job: Job) -> list[Exchange]:
    """Exchanges in the order in which this conversation uses them.

    Consecutive conversations walk through one shuffled list, so all sentences get used.
    """
    available = EXCHANGES[job.split]
    order = np.random.default_rng([job.seed, 99]).permutation(len(available))
    first = job.number * 5
    return [available[order[(first + i) % len(available)]] for i in range(len(available))]


def silent_ends(spoken: Speech) -> tuple[float, float]:
    """Seconds of silence before and after synthetic speech, less a margin.

    The synthesizer starts and ends with sentence marks and punctuation, which are silent.
    """
    margin = 0.06
    trailing = [p for p in spoken.phonemes[-3:] if p.symbol in PAUSES]
    voice_ends = trailing[0].start + margin
    return max(spoken.phonemes[0].end - margin, 0.0), max(spoken.seconds - voice_ends, 0.0)


def perform(
    job: Job, people: dict[str, Person], speech: SpeechSynthesizer, rng: np.random.Generator
) -> Soundtrack:
    """Speak exchanges, in turns with short gaps, until the time is used up."""
    total = int(job.seconds * FRAME_RATE) * SAMPLES_PER_FRAME
    voices = {key: np.zeros(total, np.float32) for key in PEOPLE}
    turns: list[Turn] = []
    clock = float(rng.uniform(0.6, 1.0))
    for exchange in choose_exchanges(job):
        order = PEOPLE if rng.random() < 0.5 else PEOPLE[::-1]
        for key, line in zip(order, exchange, strict=True):
            spoken = speech.speak(line.text, people[key].voice)
            lead, tail = silent_ends(spoken)
            start = round((clock - lead) * SAMPLE_RATE)
            if turns and clock >= job.seconds - 1:  # no time to say anything
                return Soundtrack(turns, voices)
            samples = spoken.samples[: total - start]  # the last turn may be cut by the end
            voices[key][start : start + len(samples)] += samples
            shift = start / SAMPLE_RATE
            phonemes = [Phoneme(p.symbol, p.start + shift, p.end + shift) for p in spoken.phonemes]
            end = shift + spoken.seconds - tail
            turns.append(Turn(key, line.text, line.emotion, shift + lead, end, phonemes))
            clock = end + float(rng.uniform(0.15, 0.7))
        clock += float(rng.uniform(0.2, 0.7))
    return Soundtrack(turns, voices)


def write_voice(path: Path, samples: NDArray[np.float32]) -> None:
    """16-bit mono WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def render_video(path: Path, person: Person, motion: Motion, size: int) -> list[NDArray[np.uint8]]:
    """Write one person's video; returns 8 evenly spaced pictures for the contact sheet."""
    import av

    from training.corpus.renderer import HeadRenderer

    renderer = HeadRenderer(person.identity, size=size)
    samples = set(np.linspace(0, len(motion.pose) - 1, 10).astype(int)[1:-1].tolist())
    pictures = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv444p"
        # Key frames only: any frame decodes without its neighbours.
        stream.options = {"crf": "10", "preset": "veryfast", "g": "1", "bf": "0", "threads": "1"}
        for index, (curves, pose) in enumerate(zip(motion.curves, motion.pose, strict=True)):
            picture = renderer.render(curves, pose)
            if index in samples:
                pictures.append(picture)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    renderer.release()
    return pictures


def aperture(person: Person, motion: Motion) -> NDArray[np.float32]:
    """Inner-lip opening (T,) of the mesh in its own units (decimetres), without head rotation."""
    from training.corpus.head import HeadGeometry

    return HeadGeometry(person.identity).aperture(motion.curves)


def truth_arrays(person: Person, motion: Motion) -> dict[str, NDArray]:
    """What `truth.npz` holds for one person, without prefix."""
    identity = person.identity.to_dict() | {"voice": person.voice.to_dict()}
    return {
        "curves": motion.curves.astype(np.float32),
        "pose": motion.pose,
        "viseme": motion.viseme,
        "aperture": aperture(person, motion),
        "speaking": motion.speaking,
        "emotion": motion.emotion,
        "identity": np.array(json.dumps(identity)),
    }


def transcript(turns: list[Turn], frames: int) -> str:
    """The turns as JSON; frames count from 0, the end is exclusive."""
    rows = [
        {
            "speaker": turn.speaker,
            "text": turn.text,
            "emotion": turn.emotion,
            "start_frame": int(turn.start * FRAME_RATE),
            "end_frame": min(int(np.ceil(turn.end * FRAME_RATE)), frames),
        }
        for turn in turns
    ]
    return json.dumps(rows)


def write_preview(path: Path, rows: list[list[NDArray[np.uint8]]]) -> None:
    """Contact sheet: one row of pictures per person."""
    import cv2

    sheet = np.vstack([np.hstack([picture[::2, ::2] for picture in row]) for row in rows])
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


@lru_cache(maxsize=1)
def _synthesizer() -> SpeechSynthesizer:
    return SpeechSynthesizer(threads=1)


def render_conversation(job: Job) -> Path:
    """Render one conversation unless it is there already; returns its folder."""
    if job.folder.exists():
        return job.folder
    temporary = job.folder.with_name(f".{job.folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    rng = job_generator(job)
    people = draw_people(job, rng)
    soundtrack = perform(job, people, _synthesizer(), rng)
    frames = int(job.seconds * FRAME_RATE)
    curve_set = CurveSet(curve_names())
    truth: dict[str, NDArray] = {
        "curve_names": np.array(curve_set.names),
        "viseme_names": np.array(VISEMES),
        "emotion_names": np.array(EMOTIONS),
        "transcript": np.array(transcript(soundtrack.turns, frames)),
    }
    rows = []
    for key, person in people.items():
        motion = person_motion(key, soundtrack.turns, frames, curve_set, rng)
        rows.append(render_video(temporary / f"{key}.mp4", person, motion, job.size))
        write_voice(temporary / f"{key}.wav", soundtrack.voices[key])
        for name, values in truth_arrays(person, motion).items():
            truth[f"{key}_{name}"] = values
    np.savez_compressed(temporary / "truth.npz", **truth)
    write_preview(temporary / "preview.jpg", rows)
    temporary.rename(job.folder)
    return job.folder


def plan_jobs(out: Path, train: int, test: int, seconds: float, seed: int) -> list[Job]:
    """All conversations in rendering order: two of the test ones first, then train, then test."""
    numbered = [("test", number) for number in range(min(test, 2))]
    numbered += [("train", number) for number in range(train)]
    numbered += [("test", number) for number in range(2, test)]
    return [Job(out, split, number, seconds, seed) for split, number in numbered]


def _limit_threads() -> None:
    """One thread per process: the processes already fill the cores.

    Environment variables set here are inherited by the spawned workers before they import.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["LP_NUM_THREADS"] = "0"  # Mesa's software rasteriser: draw in the calling thread


def main(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    train: Annotated[int, typer.Option(help="Training conversations.")] = 40,
    test: Annotated[int, typer.Option(help="Test conversations.")] = 6,
    seconds: Annotated[float, typer.Option(help="Length of each conversation.")] = 40.0,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same corpus.")] = 0,
) -> None:
    """Render the synthetic corpus; continues a stopped run."""
    _limit_threads()
    prepare_model()
    jobs = plan_jobs(out, train, test, seconds, seed)
    waiting = [job for job in jobs if not job.folder.exists()]
    typer.echo(f"{len(jobs)} conversations, {len(jobs) - len(waiting)} already there")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(render_conversation, job) for job in waiting]
        for future in tqdm(as_completed(futures), total=len(futures), unit="conversation"):
            future.result()


if __name__ == "__main__":
    typer.run(main)
