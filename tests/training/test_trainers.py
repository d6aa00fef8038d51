"""The trainers learn, resume as if never interrupted, and leave checkpoints that load."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.cache import save_track, write_cache
from tests.sizes import tiny
from training import decoder, stage1, stage2, vae
from training.data import Track, due_emotions, pictures, tracks, truth_of
from training.latents import cache_latents
from training.loop import LoopConfig, averaged_weights
from visavis import checkpoint, config
from visavis.nn.echo import load_echo, load_vae

CONFIG = tiny()
FRAMES = 50
LOOP = LoopConfig(steps=6, learning_rate=1e-3, warmup_steps=1, save_every=3, report_every=1)


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch):
    monkeypatch.setitem(config.SIZES, "tiny", tiny)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of two conversations a split: a square mouth that opens with the voice."""
    return write_cache(tmp_path_factory.mktemp("cache"), write_track)


def write_track(folder, generator):
    size, blocks = CONFIG.image_size, FRAMES // CONFIG.block_frames
    aperture = np.abs(np.sin(np.arange(FRAMES) * generator.uniform(0.3, 0.6)))
    frames = np.broadcast_to(
        generator.integers(60, 200, 3, np.uint8), (FRAMES, size, size, 3)
    ).copy()
    for n, opening in enumerate(aperture):
        half = int(1 + 4 * opening)
        frames[n, 22 - half : 22 + half, 12:20] = 20
    width = (CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    save_track(
        folder,
        frames,
        generator.standard_normal((blocks, *width)),
        aperture=aperture,
        speaking=aperture > 0.1,
        emotion=np.full(FRAMES, "happy"),
    )


def vae_settings(**changes):
    return vae.VAETraining(size="tiny", batch=4, loop=dataclasses.replace(LOOP, **changes))


@pytest.fixture(scope="module")
def vae_folder(cache, tmp_path_factory):
    config.SIZES["tiny"] = tiny
    return vae.train(cache, tmp_path_factory.mktemp("vae"), vae_settings())


def test_a_resumed_run_equals_an_uninterrupted_one(cache, tmp_path, monkeypatch):
    vae.train(cache, tmp_path / "whole", vae_settings())

    class Killed(Exception):
        pass

    real, calls = vae.draw, []

    def killed_at_step_4(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(vae, "draw", killed_at_step_4)
    with pytest.raises(Killed):
        vae.train(cache, tmp_path / "killed", vae_settings())
    monkeypatch.setattr(vae, "draw", real)
    vae.train(cache, tmp_path / "killed", vae_settings())
    whole, step = averaged_weights(tmp_path / "whole")
    resumed, resumed_step = averaged_weights(tmp_path / "killed")
    assert step == resumed_step == LOOP.steps
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0)


def test_the_vae_learns(cache, tmp_path):
    folder = vae.train(cache, tmp_path, vae_settings(steps=60, save_every=60))
    trained = load_vae(folder)
    drawn = vae.draw(pictures(cache, "test"), 16, 0.0)
    psnr, _ = vae.validate(trained, drawn)
    untrained, _ = vae.validate(vae.VAE(CONFIG), drawn)
    assert psnr > untrained + 3
    latents = trained.encode(vae.draw(pictures(cache, "train"), 64, 0.0))
    assert abs(float(latents.mean())) < 0.3 and 0.5 < float(latents.std()) < 2


def test_both_stages_run_and_stage_2_keeps_what_it_should(cache, vae_folder, tmp_path):
    settings = stage1.Stage1Training(size="tiny", batch=4, report_every=3, loop=LOOP)
    first = stage1.train(cache, vae_folder, tmp_path / "stage1", settings)
    manifest = checkpoint.load(first, "echo").manifest
    assert manifest["step"] == LOOP.steps and "mouth_r" in manifest["metrics"]

    settings2 = stage2.Stage2Training(
        conversations=2, stretch_blocks=3, loss_blocks=1, report_every=3, loop=LOOP
    )
    second = stage2.train(cache, vae_folder, first, tmp_path / "stage2", settings2)
    before, after = load_echo(first).state_dict(), load_echo(second).state_dict()
    moved = {name for name in before if (before[name] != after[name]).any()}
    for part in ("lcu_encoder.perception", "affect_encoder", "user_attention", "sdcm.gate"):
        assert any(part in name for name in moved), part


def test_stage_1_teaches_nothing_about_the_user(cache, vae_folder, tmp_path):
    settings = stage1.Stage1Training(size="tiny", batch=4, loop=LOOP)
    folder = stage1.train(cache, vae_folder, tmp_path, settings)
    weights = load_echo(folder).state_dict()
    outs = [w for name, w in weights.items() if "user_attention.out" in name]
    assert outs and not any(w.any() for w in outs)


def test_the_decoder_learns_predictions_and_nothing_else_changes(
    cache, vae_folder, tmp_path, monkeypatch
):
    first = stage1.train(
        cache,
        vae_folder,
        tmp_path / "stage1",
        stage1.Stage1Training(size="tiny", batch=4, loop=LOOP),
    )
    loop = dataclasses.replace(LOOP, steps=60, save_every=60)
    settings = decoder.DecoderTraining(batch=8, track_blocks=4, loop=loop)
    folder = decoder.train(cache, vae_folder, first, tmp_path / "decoder", settings)

    before, after = load_vae(vae_folder), load_vae(folder)
    moved = {
        name
        for name, tensor in before.state_dict().items()
        if (tensor != after.state_dict()[name]).any()
    }
    assert moved and all(name.startswith("decoder") for name in moved)
    pool = tracks(cache, "train")
    predicted = decoder.predictions(load_echo(first), pool, settings.track_blocks)
    latents, true = decoder.draw(pool, predicted, 32, predicted_share=1.0)
    with torch.inference_mode():
        errors = [float(((vae_.decode(latents) - true) ** 2).mean()) for vae_ in (before, after)]
    assert errors[1] < errors[0]

    monkeypatch.setattr(Track, "frames", property(lambda _: pytest.fail("encoded again")))
    cache_latents(cache, folder)  # the encoder is the same, so its latents are


def test_what_a_rendered_corpus_tells_by_index_gets_its_names():
    truth = {f"a_{name}": np.zeros(3) for name in ("aperture", "speaking", "pose")} | {
        "a_emotion": np.array([0, 1, 1]),
        "emotion_names": np.array(["neutral", "happy"]),
        "a_phoneme": np.array([-1, 0, 1], np.int16),
        "phoneme_names": np.array(["b", "ɹ"]),
        "a_cause": np.array([0, 1, 0], np.int8),
        "cause_names": np.array(["none", "bad_news"]),
    }
    known = truth_of(truth, "a")
    assert list(known["emotion"]) == ["neutral", "happy", "happy"]
    assert list(known["phoneme"]) == ["", "b", "ɹ"]
    assert list(known["cause"]) == ["", "bad_news", ""]


def test_stills_are_pictures_of_the_vae_but_no_tracks(cache, tmp_path):
    folder = tmp_path / "train" / "stills"
    folder.mkdir(parents=True)
    np.save(folder / "person_000003.npy", np.full((4, 8, 8, 3), 7, np.uint8))
    assert [array.shape for array in pictures(tmp_path, "train")] == [(4, 8, 8, 3)]
    assert tracks(tmp_path, "train") == []
    assert len(pictures(cache, "train")) == len(tracks(cache, "train"))


def test_due_emotions_follow_the_turns():
    turns = [
        {"speaker": "a", "emotion": "sad", "start_frame": 2, "end_frame": 4},
        {"speaker": "b", "emotion": "happy", "start_frame": 6, "end_frame": 8},
    ]
    assert list(due_emotions(turns, "b", 8)) == ["neutral"] * 2 + ["concerned"] * 4 + ["happy"] * 2
    assert list(due_emotions(turns, "a", 8)) == ["neutral"] * 2 + ["sad"] * 4 + ["happy"] * 2
