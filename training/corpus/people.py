"""This is where the people are chosen: `python -m training.corpus.people`.

A person is a seed; looks and voice follow from it. This command draws people and keeps those whose
face no accepted one resembles, by the distance of face embeddings (training/identity.py) of their
portraits. The list is checked in (`people.json`), so rendering needs no embedding network. People
of the test split are in no training conversation.

A person keeps face, hair and voice; clothes, light and background change with the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
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
    if not ACCEPTED.exists():
        raise FileNotFoundError(
            f"people: got no {ACCEPTED.name}, expected the list of accepted people beside "
            "people.py; make it with python -m training.corpus.people"
        )
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


def choose(counts: dict[str, int], least_distance: float) -> Iterator[tuple[str, str, int]]:
    """(split, gender, seed) of people, all at least `least_distance` apart from each other.

    The splits fill up evenly, and women and men take turns in each.
    """
    filled = dict.fromkeys(counts, 0)
    known: list[np.ndarray] = []
    for seed in count():
        split = min(counts, key=lambda s: filled[s] / counts[s])
        if filled[split] == counts[split]:
            return
        gender = GENDERS[filled[split] % 2]
        face = portrait_embedding(person(split, gender, seed).identity)
        if all(np.linalg.norm(face - other) >= least_distance for other in known):
            known.append(face)
            filled[split] += 1
            yield split, gender, seed


def write_list(path: Path, chosen: dict[str, list[dict[str, object]]]) -> None:
    """One person a line."""
    splits = []
    for split, people in chosen.items():
        rows = ",\n".join(f"    {json.dumps(row)}" for row in people)
        splits.append(f'  "{split}": [\n{rows}\n  ]')
    path.write_text("{\n" + ",\n".join(splits) + "\n}\n", "utf-8")


def main(
    train: Annotated[int, typer.Option(help="People to train on.")] = 72,
    test: Annotated[int, typer.Option(help="People never trained on.")] = 24,
    least_distance: Annotated[float, typer.Option(help="Of face embeddings.")] = LEAST_DISTANCE,
    out: Annotated[Path, typer.Option(help="The list.")] = ACCEPTED,
) -> None:
    """Draw people until enough of them cannot be confused; the list grows with each of them."""
    chosen: dict[str, list[dict[str, object]]] = {split: [] for split in SPLITS}
    with tqdm(total=train + test, unit="person") as progress:
        for split, gender, seed in choose({"train": train, "test": test}, least_distance):
            chosen[split].append({"gender": gender, "seed": seed})
            write_list(out, chosen)
            progress.set_postfix_str(f"{seed + 1} drawn")
            progress.update()


if __name__ == "__main__":
    typer.run(main)
