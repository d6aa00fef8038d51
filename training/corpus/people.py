"""This is where the people are chosen: `python -m training.corpus.people`.

A person is a seed; looks and voice follow from it. This command draws people and keeps those whose
face no accepted one resembles, by the distance of face embeddings (training/identity.py) of their
portraits. The list is checked in (`people.json`), so rendering needs no embedding network. People
of the test split are in no training conversation.

A person keeps face, hair and voice; clothes, light and background change with the conversation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from training.corpus.dialogues import SPLITS
from training.corpus.head import Identity, dressed, random_identity
from training.corpus.voice import Voice, random_voice

ACCEPTED = Path(__file__).with_name("people.json")
# Same person, other expression, light and pose: at most 0.41 (see identity.py for the measure).
LEAST_DISTANCE = 0.45
GENDERS = ("female", "male")


@dataclass(frozen=True)
class Person:
    """Looks and voice of one participant."""

    identity: Identity
    voice: Voice


def person(split: str, gender: str, seed: int) -> Person:
    """The person of a seed, dressed and lit for a portrait."""
    rng = np.random.default_rng([seed, GENDERS.index(gender)])
    identity = random_identity(f"{split}-{gender}-{seed:04d}", gender, rng)
    return Person(identity, random_voice(split, gender, rng))


@cache
def accepted(split: str) -> tuple[Person, ...]:
    """All people of a split, women and men in turns."""
    rows = json.loads(ACCEPTED.read_text("utf-8"))[split]
    return tuple(person(split, row["gender"], row["seed"]) for row in rows)


def cast(split: str, number: int, seed: int) -> tuple[Person, Person]:
    """The two people of a conversation; everybody has had one before anybody has two."""
    people = accepted(split)
    pairs = len(people) // 2
    round_, place = divmod(number, pairs)
    order = np.random.default_rng([seed, SPLITS.index(split), round_]).permutation(len(people))
    rng = np.random.default_rng([seed, SPLITS.index(split), number, 1])
    first, second = (people[order[2 * place + i]] for i in range(2))
    return (
        Person(dressed(first.identity, rng), first.voice),
        Person(dressed(second.identity, rng), second.voice),
    )


def portrait_embedding(identity: Identity) -> np.ndarray:
    """(128,) face embedding of a neutral portrait."""
    from training.corpus.renderer import HeadRenderer
    from training.identity import embedding

    renderer = HeadRenderer(identity)
    picture, _ = renderer.render(np.zeros(52, np.float32), np.zeros(3, np.float32))
    renderer.release()
    return embedding(picture)


def choose(counts: dict[str, int], least_distance: float) -> dict[str, list[dict[str, object]]]:
    """Seeds of `counts` people a split, all at least `least_distance` apart from each other."""
    chosen: dict[str, list[dict[str, object]]] = {split: [] for split in counts}
    known: list[np.ndarray] = []
    seed = 0
    with tqdm(total=sum(counts.values()), unit="person") as progress:
        for split, count in counts.items():
            while len(chosen[split]) < count:
                gender = GENDERS[len(chosen[split]) % 2]
                face = portrait_embedding(person(split, gender, seed).identity)
                nearest = min((float(np.linalg.norm(face - k)) for k in known), default=np.inf)
                if nearest >= least_distance:
                    known.append(face)
                    chosen[split].append({"gender": gender, "seed": seed})
                    progress.update()
                seed += 1
                progress.set_postfix_str(f"{seed} drawn")
    return chosen


def main(
    train: Annotated[int, typer.Option(help="People to train on.")] = 80,
    test: Annotated[int, typer.Option(help="People never trained on.")] = 24,
    least_distance: Annotated[float, typer.Option(help="Of face embeddings.")] = LEAST_DISTANCE,
    out: Annotated[Path, typer.Option(help="The list.")] = ACCEPTED,
) -> None:
    """Draw people until enough of them cannot be confused; writes the list."""
    chosen = choose({"train": train, "test": test}, least_distance)
    rows = {
        split: "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in people) + "\n  ]"
        for split, people in chosen.items()
    }
    out.write_text("{\n" + ",\n".join(f'  "{s}": {r}' for s, r in rows.items()) + "\n}\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
