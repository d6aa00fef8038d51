"""The LCU learns what is due from what users do, whoever they are."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.cache import save_unseen_track, write_cache
from tests.sizes import tiny
from training import listen, recall
from training.data import tracks
from training.expression import Labels
from training.loop import LoopConfig
from visavis import checkpoint
from visavis.nn.echo import Echo, arrays, load_echo

CONFIG = tiny()
FRAMES = 200
LOOP = LoopConfig(steps=160, learning_rate=1e-2, warmup_steps=5, save_every=40, ema_decay=0.9)
SETTINGS = listen.Listening(conversations=4, answers=8, report_every=1000, loop=LOOP)


def write_track(folder, generator):
    """Somebody with a face of their own, in which a channel tells what is due to who sees it."""
    both = np.random.default_rng(int(folder.parent.name[-4:]))
    smiles = np.array([0, *both.permutation([0, 1, 1])]).repeat(FRAMES // 4)
    latents = np.tile(2 * generator.standard_normal(CONFIG.latent_shape), (FRAMES, 1, 1, 1))
    latents[:, 0] += 6.0 * smiles[:, None, None]
    emotion = np.where(smiles, "happy", "sad")
    save_unseen_track(folder, generator, CONFIG, latents, emotion=emotion)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), write_track, train=12, test=3)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A network that knows nothing."""
    monkeypatch.setattr(listen, "cache_latents", lambda *_: None)
    torch.manual_seed(0)
    return checkpoint.save(tmp_path / "start", "echo", CONFIG, arrays(Echo(CONFIG)))


def test_strangers_are_understood_and_nothing_but_the_lcu_has_changed(cache, start, tmp_path):
    labels, strangers = Labels.among(tracks(cache, "train")), tracks(cache, "test")
    before = listen.report(load_echo(start), labels, strangers)
    folder = listen.train(cache, tmp_path, start, tmp_path / "run", SETTINGS)
    after = listen.report(load_echo(folder), labels, strangers)
    assert before["due_r"] < 0.5 and after["due_r"] > 0.7 and after["due_emotion"] > 0.8
    known, learned = load_echo(start).state_dict(), load_echo(folder).state_dict()
    changed = {name for name in known if not torch.equal(known[name], learned[name])}
    assert changed and all(name.startswith("lcu_encoder.") for name in changed)


def test_a_window_is_all_that_is_heard(cache, start, tmp_path):
    short = dataclasses.replace(SETTINGS, window_blocks=4, loop=LoopConfig(steps=2, save_every=2))
    folder = listen.train(cache, tmp_path, start, tmp_path / "run", short)
    labels, strangers = Labels.among(tracks(cache, "train")), tracks(cache, "test")
    report = listen.report(load_echo(folder), labels, strangers, window_blocks=4)
    assert set(report) == {"due_r", "due_emotion"}


def test_what_is_read_is_told_label_by_label_and_window_by_window(cache, start, tmp_path):
    hearings = [recall.Hearing(cache, start, window_s) for window_s in (None, 0.4)]
    found = {one.name: recall.measure(one) for one in hearings}
    labels, strangers = Labels.among(tracks(cache, "train")), tracks(cache, "test")
    for (name, figures), window_blocks in zip(found.items(), (None, 2), strict=True):
        whole = listen.report(load_echo(start), labels, strangers, window_blocks)
        assert list(figures) == ["emotion:happy", "emotion:sad"], name
        assert np.mean(list(figures.values())) == pytest.approx(whole["due_r"], abs=1e-5)
    assert found["all"] != found["0.4 s"]
    recall.plot(found, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 5000


def test_a_corpus_that_does_not_say_what_is_due_is_told_so(cache, start, tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "some_of", lambda pool: [bored(track) for track in pool])
    with pytest.raises(ValueError, match=r"what is due: got labels \['emotion:neutral'\]"):
        listen.train(cache, tmp_path, start, tmp_path / "run", SETTINGS)


def bored(track):
    """To whom nothing else is ever due."""
    vars(track)["truth"] = track.truth | {"emotion": np.full(FRAMES, "neutral")}
    return track
