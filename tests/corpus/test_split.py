"""Nothing of the test set appears in the training set: sentences, voices, people."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra is not installed")
pytest.importorskip("typer", reason="the corpus extra is not installed")
pytest.importorskip("tqdm", reason="the corpus extra is not installed")

from training.corpus import render
from training.corpus.dialogues import EMOTIONS, EXCHANGES
from training.corpus.voice import random_voice


def sentences(split: str) -> list[str]:
    return [line.text for exchange in EXCHANGES[split] for line in exchange]


def test_sentences_are_all_different() -> None:
    everything = sentences("train") + sentences("test")
    assert len(set(everything)) == len(everything)
    assert len(EXCHANGES["train"]) >= 60


def test_emotions_are_known() -> None:
    for exchanges in EXCHANGES.values():
        for exchange in exchanges:
            assert all(line.emotion in EMOTIONS for line in exchange)


def test_test_style_never_speaks_in_training() -> None:
    rng = np.random.default_rng(0)
    train = [random_voice("train", gender, rng) for gender in ("female", "male") * 100]
    test = [random_voice("test", gender, rng) for gender in ("female", "male") * 20]
    assert not any("jf_tebukuro" in voice.styles for voice in train)
    assert all("jf_tebukuro" in voice.styles for voice in test)
    for voice in train + test:
        assert sum(voice.styles.values()) == pytest.approx(1)


def test_every_person_is_different() -> None:
    jobs = render.plan_jobs(Path("corpus"), train=20, test=6, seconds=1, seed=0)
    people = [
        person
        for job in jobs
        for person in render.draw_people(job, render.job_generator(job)).values()
    ]
    looks = [repr(person.identity.local) for person in people]
    assert len({person.identity.name for person in people}) == len(people) == 52
    assert len(set(looks)) == len(looks)
    genders = [person.identity.gender for person in people]
    assert 20 <= genders.count("female") <= 32


def test_people_do_not_depend_on_the_order_of_rendering() -> None:
    job = render.Job(Path("corpus"), "train", 3, 1, 0)
    first, second = (render.draw_people(job, render.job_generator(job)) for _ in range(2))
    assert first == second


def test_two_test_conversations_come_first() -> None:
    jobs = render.plan_jobs(Path("corpus"), train=3, test=4, seconds=1, seed=0)
    assert [job.split for job in jobs] == ["test"] * 2 + ["train"] * 3 + ["test"] * 2
