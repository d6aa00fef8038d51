"""What nobody sees is told and cached as what is seen, but for the pictures."""

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra is not installed")
pytest.importorskip("typer", reason="the corpus extra is not installed")
pytest.importorskip("tqdm", reason="the corpus extra is not installed")
pytest.importorskip("torch", reason="the train extra is not installed")

from training import data
from training.corpus import render, spoken
from visavis.config import SIZES

SECONDS = 2.0
CONFIG = SIZES["nano"]()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, head_assets, speech_model):
    """Both splits have a conversation of two seconds."""
    out = tmp_path_factory.mktemp("corpus")
    for split in ("train", "test"):
        spoken.speak(spoken.Unseen(out, split, 0, SECONDS, seed=1))
    return out


@pytest.fixture
def short_ears(monkeypatch):
    """Features that cost nothing: how loud each window is."""

    def features(encoder, windows: Iterator[np.ndarray]) -> np.ndarray:
        shape = (CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
        return np.stack([np.full(shape, np.abs(w).max(), np.float16) for w in windows])

    monkeypatch.setattr(data, "load_encoder", lambda config: None)
    monkeypatch.setattr(data, "block_features", features)


def test_it_is_the_rendered_conversation_without_pictures(corpus, off_screen_graphics, tmp_path):
    unseen = corpus / "train" / "spoken" / "conversation_0000"
    assert {path.name for path in unseen.iterdir()} == {"a.wav", "b.wav", "truth.npz"}
    seen = render.render_conversation(render.Job(tmp_path, "train", 0, SECONDS, 1, size=64))
    assert (unseen / "a.wav").read_bytes() == (seen / "a.wav").read_bytes()
    ours, theirs = (np.load(folder / "truth.npz") for folder in (unseen, seen))
    assert set(theirs) - set(ours) == {"a_parts", "b_parts", "part_names"}
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_cache_keeps_it_apart(corpus, short_ears, tmp_path):
    data.main(corpus, tmp_path, threads=1)
    assert not data.tracks(tmp_path, "train")
    for split in ("train", "test"):
        first, second = data.tracks(tmp_path, split, spoken=True)
        assert (first.name, first.user.folder) == ("conversation_0000/a", second.folder)
        assert not first.seen and not (first.folder / "frames.npy").exists()
        assert first.blocks == 10 and first.user_features.shape == first.avatar_features.shape
        assert max(track.avatar_features.max() for track in (first, second)) > 0.05
        assert {"emotion", "cause", "sobered", "lifted"} <= set(first.truth)
