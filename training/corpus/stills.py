"""This is where faces for the VAE are rendered: `python -m training.corpus.stills --out DIR`.

A conversation has two people; a VAE needs to have seen hundreds, or the mouths of strangers stay
half shut. Writes `DIR/train/stills/person_000007.mp4`, whose frames have nothing to do with each
other: one person in one setting, with expressions, mouth shapes, gaze and poses drawn at random.

Nobody here resembles anybody of the test split (by the measure of people.py). A person depends on
nothing but (seed, number): a stopped run continues where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from training.corpus.behaviour import POSE_LIMITS, REACTION_FACE, SPEAKER_MOOD, add_gaze
from training.corpus.curves import CurveSet, FloatArray
from training.corpus.head import Identity, curve_names
from training.corpus.lips import VISEME_CURVES
from training.corpus.people import GENDERS, LEAST_DISTANCE, accepted, person, portrait_embedding
from training.film import Film
from training.whole import whole
from training.workers import done, limit_threads

FIRST_SEED = 1_000_000  # far behind the people of conversations
FACES = (*SPEAKER_MOOD.values(), *REACTION_FACE.values())
BLINK_SHARE = 0.2


@dataclass(frozen=True)
class Stills:
    """One person's pictures to render."""

    out: Path
    number: int
    pictures: int
    seed: int
    size: int = 256

    @property
    def path(self) -> Path:
        """Where the finished pictures lie."""
        return self.out / "train" / "stills" / f"person_{self.number:06d}.mp4"


def random_curves(count: int, curve_set: CurveSet, rng: np.random.Generator) -> FloatArray:
    """ARKit weights (count, 52): a mixed expression, a mix of two mouth shapes, eyes."""
    faces = np.stack([curve_set.vector(values) for values in FACES])
    mouths = np.stack([curve_set.vector(values) for values in VISEME_CURVES.values()])
    curves = faces[rng.integers(len(faces), size=count)] * rng.uniform(0, 1.1, (count, 1))
    for strength in (1.2, 0.5):
        curves += mouths[rng.integers(len(mouths), size=count)] * rng.uniform(
            0, strength, (count, 1)
        )
    add_gaze(curves, rng.normal(0, 0.25, (count, 2)).astype(np.float32), curve_set)
    blinking = rng.random(count) < BLINK_SHARE
    curves[:, curve_set.columns("eyeBlink")] = (blinking * rng.random(count))[:, None]
    return np.clip(curves, 0, 1).astype(np.float32)


def random_poses(count: int, rng: np.random.Generator) -> FloatArray:
    """Yaw, pitch and roll (count, 3) in rad, a little beyond what conversations have."""
    return (1.3 * POSE_LIMITS * np.tanh(rng.normal(0, 0.8, (count, 3)))).astype(np.float32)


@cache
def test_faces() -> NDArray[np.float64]:
    """Face embeddings (N, 128) of all people of the test split."""
    return np.stack([portrait_embedding(one.identity) for one in accepted("test")])


def resembles_a_test_person(identity: Identity) -> bool:
    """Whether a face could be confused with one that measures are taken on."""
    distances = np.linalg.norm(test_faces() - portrait_embedding(identity), axis=1)
    return bool(distances.min() < LEAST_DISTANCE)


def render_stills(job: Stills) -> bool:
    """Render one person unless they are there already; False if they are left out."""
    from training.corpus.renderer import HeadRenderer

    if job.path.exists():
        return True
    gender = GENDERS[job.number % 2]
    identity = person("train", gender, FIRST_SEED + job.seed * FIRST_SEED + job.number).identity
    if resembles_a_test_person(identity):
        return False
    rng = np.random.default_rng([job.seed, job.number])
    renderer = HeadRenderer(identity, size=job.size)
    curves = random_curves(job.pictures, CurveSet(curve_names()), rng)
    with whole(job.path) as partial, Film.open(partial, job.size) as film:
        for values, pose in zip(curves, random_poses(job.pictures, rng), strict=True):
            film.add(renderer.render(values, pose)[0])
    renderer.release()
    return True


def main(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    people: Annotated[int, typer.Option(help="Faces to draw.")] = 800,
    pictures: Annotated[int, typer.Option(help="Pictures of each.")] = 16,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same faces.")] = 0,
) -> None:
    """Render pictures of many people; continues a stopped run."""
    limit_threads()
    jobs = [Stills(out, number, pictures, seed) for number in range(people)]
    kept = 0
    rendered = done(render_stills, jobs, workers)
    for _, is_kept in (progress := tqdm(rendered, total=people, unit="person")):
        kept += is_kept
        progress.set_postfix_str(f"{kept} kept")
    typer.echo(f"{kept} of {people} people; the others resemble somebody of the test split")


if __name__ == "__main__":
    typer.run(main)
