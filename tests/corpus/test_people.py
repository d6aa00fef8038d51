"""People and voices: many, distinct, split, cast evenly."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra is not installed")
pytest.importorskip("typer", reason="the corpus extra is not installed")
pytest.importorskip("tqdm", reason="the corpus extra is not installed")

from training.corpus import people
from training.corpus.people import accepted, cast, choose, person
from training.corpus.voice import VOICES, random_voice

HELD_OUT = {"jf_tebukuro"}


def test_there_are_enough_people_and_no_seed_is_in_both_splits() -> None:
    train, test = accepted("train"), accepted("test")
    assert len(train) + len(test) >= 40
    names = [member.identity.name for member in (*train, *test)]
    seeds = [name.split("-")[-1] for name in names]
    assert len(set(seeds)) == len(seeds)
    genders = [member.identity.gender for member in train]
    assert abs(genders.count("female") - genders.count("male")) <= 1


def test_test_voices_never_speak_in_training() -> None:
    rng = np.random.default_rng(0)
    train = [random_voice("train", gender, rng) for gender in ("female", "male") * 60]
    test = [random_voice("test", gender, rng) for gender in ("female", "male") * 20]
    assert not any(HELD_OUT & set(voice.styles) or voice.engine == "piper" for voice in train)
    assert all(HELD_OUT & set(voice.styles) or voice.engine == "piper" for voice in test)
    for voice in train + test:
        assert sum(voice.styles.values()) == pytest.approx(1 if voice.engine == "kokoro" else 0)


def test_there_are_six_different_voices() -> None:
    kinds = {
        (voice.engine, tuple(sorted(voice.styles.items())))
        for voices in VOICES.values()
        for choices in voices.values()
        for voice in choices
    }
    assert len(kinds) >= 6


def test_everybody_talks_once_before_anybody_talks_twice() -> None:
    count = len(accepted("train"))
    first_round = [cast("train", number, seed=0) for number in range(count // 2)]
    names = [member.identity.name for pair in first_round for member in pair]
    assert len(set(names)) == len(names) == count - count % 2


def test_people_keep_their_face_and_change_their_clothes() -> None:
    casts = [cast("test", number, seed=0) for number in range(len(accepted("test")))]
    known: dict[str, list] = {}
    for member in (member for pair in casts for member in pair):
        known.setdefault(member.identity.name, []).append(member)
    first, second, *_ = next(days for days in known.values() if len(days) > 1)
    assert first.identity.local == second.identity.local
    assert first.voice == second.voice
    assert first.identity.clothes != second.identity.clothes
    assert first.identity.room_seed != second.identity.room_seed


def test_a_person_is_their_seed() -> None:
    assert person("train", "male", 5) == person("train", "male", 5)
    assert person("train", "male", 5) != person("train", "male", 6)


def test_faces_too_close_to_an_accepted_one_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = iter([0.0, 0.3, 0.5, 0.9, 1.0])  # embeddings of one dimension
    monkeypatch.setattr(people, "portrait_embedding", lambda _: np.array([next(faces)]))
    chosen = list(choose({"train": 2, "test": 1}, least_distance=0.45))
    assert [(split, seed) for split, _, seed in chosen] == [
        ("train", 0),
        ("test", 2),
        ("train", 4),
    ]
