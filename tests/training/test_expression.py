"""What a face shows is read from latents, and an error in it counts more than another."""

import numpy as np
import pytest
import torch

from tests.cache import save_track, write_cache
from tests.sizes import tiny
from training import expression
from training.data import Track, tracks
from training.expression import Labels, expression_report, fit_expression, labels_of
from visavis.nn.echo import Echo

CONFIG = tiny()
FRAMES = 100
CPU = torch.device("cpu")


def write_track(folder, generator):
    """A face whose first latent channel says in one corner what is due."""
    emotion = np.where(np.arange(FRAMES) // 20 % 2, "sad", "happy")
    latents = generator.standard_normal((FRAMES, *CONFIG.latent_shape))
    latents[:, 0, 0, 0] = 3.0 * (emotion == "sad") + 0.1 * latents[:, 0, 0, 0]
    blocks = FRAMES // CONFIG.block_frames
    width = (CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    save_track(
        folder,
        np.zeros((FRAMES, 2, 2, 3), np.uint8),
        generator.standard_normal((blocks, *width)),
        emotion=emotion,
        speaking=np.zeros(FRAMES, bool),
        cause=np.where(np.arange(FRAMES) % 50 < 10, "joke", ""),
    )
    np.save(folder / "latents.npy", latents.astype(np.float16))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    cache = write_cache(tmp_path_factory.mktemp("cache"), write_track)
    return tracks(cache, "train")


def test_labels_are_what_is_due_and_what_is_reacted_to(pool):
    assert labels_of(pool) == ["cause:joke", "emotion:happy", "emotion:sad"]


def test_labels_have_mean_0_and_unit_variance_where_they_were_found(pool):
    labels = Labels.among(pool)
    values = np.concatenate([labels.of(track, range(0, FRAMES, 5)) for track in pool])
    assert labels.names == ("cause:joke", "emotion:happy", "emotion:sad")
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-6)
    first, later = labels.of(pool[0], [0, 30])  # happy and a joke; sad
    assert (first[:2] > 0).all() and first[2] < 0 < later[2]


def test_an_error_in_what_is_shown_counts_more_than_another(pool):
    probe = fit_expression(pool, CPU, ridge=30.0)
    true = torch.zeros(1, CONFIG.block_frames, *CONFIG.latent_shape)
    shown, hidden = true.clone(), true.clone()
    shown[:, :, 0, 0, 0] = 1.0
    hidden[:, :, 1, 2, 2] = 1.0
    assert probe.loss(shown, true) > 5 * probe.loss(hidden, true) > 0
    assert probe.loss(true, true) == 0
    whole = probe(torch.from_numpy(pool[0].latents.astype(np.float32)))
    joke, *emotions = whole.std(0).tolist()  # nothing in the face goes with the jokes
    assert joke < min(emotions) and min(emotions) > 0.7 and max(emotions) < 1.1


def test_where_one_thing_is_shown_nothing_is_read(pool, monkeypatch):
    bored = [Track(track.folder, track.partner) for track in pool]
    for track in bored:
        neutral = {"emotion": np.full(FRAMES, "neutral"), "pose": np.zeros((FRAMES, 3))}
        monkeypatch.setitem(vars(track), "truth", neutral)
    probe = fit_expression(bored, CPU)
    assert probe.weight.shape[1] == 0
    latents = torch.randn(1, CONFIG.block_frames, *CONFIG.latent_shape)
    assert float(probe.loss(latents, 0 * latents)) == 0


def test_the_report_is_1_for_a_network_that_shows_what_is_due(pool, monkeypatch):
    torch.manual_seed(0)
    echo, probe = Echo(CONFIG).eval(), fit_expression(pool, CPU)
    silent = expression_report(echo, probe, pool)["expression_r"]
    assert abs(silent) < 0.6
    monkeypatch.setattr(expression, "denoise_at_once", lambda echo, noise, batch, *_: batch.x_0)
    assert expression_report(echo, probe, pool)["expression_r"] == pytest.approx(1.0)
