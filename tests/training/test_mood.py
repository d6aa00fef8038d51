"""What is on people's minds is heard by who remembers it, and not by who hears two seconds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.cache import save_unseen_track, write_cache
from tests.sizes import tiny
from training import mood
from training.hearing import Hindrance
from training.listen import Listening
from training.loop import LoopConfig

CONFIG = replace(tiny(), lcu=replace(tiny().lcu, memory_tokens=20))  # all of a conversation
FRAMES = 200
TOLD = 40  # frame
LOOP = LoopConfig(steps=90, learning_rate=1e-2, warmup_steps=5, save_every=60, ema_decay=0.9)
CLEAR = Hindrance(voice_dropout=0.0, face_dropout=0.0, voice_noise=0.0, face_noise=0.0)
LISTENING = Listening(conversations=6, answers=30, hindrance=CLEAR, loop=LOOP)
SETTINGS = mood.MoodTraining("tiny", 1, LISTENING)


def write_track(folder, generator):
    """News are told by a face that shows them for a moment, and weigh on both for good."""
    good = int(folder.parent.name[-4:]) % 2
    latents = np.tile(2 * generator.standard_normal(CONFIG.latent_shape), (FRAMES, 1, 1, 1))
    latents[TOLD : TOLD + 15, 0] += 16.0 * good - 8.0
    after = (np.arange(FRAMES) >= TOLD).astype(np.float32)
    cause = np.full(FRAMES, "", "<U10")
    cause[TOLD : TOLD + 10] = "good_news" if good else "bad_news"
    weights = {"sobered": after * (1 - good), "lifted": after * good}
    save_unseen_track(folder, generator, CONFIG, latents, cause=cause, **weights)
    silence = np.zeros_like(np.load(folder / "user_features.npy"))
    np.save(folder / "user_features.npy", silence)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), write_track, train=12, test=4)


@pytest.fixture
def ears(monkeypatch):
    """A memory, and none."""
    found = {"all": mood.Ear(), "2 blocks": mood.Ear(window_blocks=2)}
    monkeypatch.setattr(mood, "EARS", found)
    monkeypatch.setitem(mood.SIZES, "tiny", lambda: CONFIG)
    return found


def test_only_a_memory_knows_what_was_told_long_ago(cache, ears, tmp_path):
    found = {name: mood.learn(mood.Run(cache, tmp_path, SETTINGS, name, 0)) for name in ears}
    oldest = mood.ages_of(found["all"])[-1]
    assert found["all"][f"r_{oldest}"] > 0.7 > 0.4 > abs(found["2 blocks"][f"r_{oldest}"])
    kept = tmp_path / "seed_0" / "all" / "figures.json"
    assert json.loads(kept.read_text()) == found["all"]
    assert not mood.Run(cache, tmp_path, SETTINGS, "all", 0, spoken=True).tracks("train")
    mood.write(tmp_path, {name: [figures] for name, figures in found.items()}, {"size": "tiny"})
    assert (tmp_path / "mood.png").stat().st_size > 5000
    written = json.loads((tmp_path / "mood.json").read_text())["summary"]["all"][f"r_{oldest}"]
    assert written == {"mean": found["all"][f"r_{oldest}"], "deviation": 0.0}
