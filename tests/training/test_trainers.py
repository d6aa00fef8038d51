"""The trainers learn, resume as if never interrupted, and leave checkpoints that load."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.cache import save_track, write_cache
from tests.sizes import restless, tiny
from training import distill, stage1, stage2, vae
from training.data import Track, due_emotions, pictures, tracks, truth_of
from training.latents import cache_latents
from training.loop import LoopConfig, averaged_weights
from training.pictures import detail_corners, details, draw
from training.shrink import shrunk
from training.talks import talks_of
from visavis import checkpoint, config
from visavis.nn.echo import Echo, arrays, load_echo, load_vae

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
    loop = dataclasses.replace(LOOP, **changes)
    return vae.VAETraining(size="tiny", batch=4, details=4, perceptual_details=2, loop=loop)


def drawn(cache, split, count):
    return vae.pairs_of(draw(pictures(cache, split), vae_settings().shares, count, 0.0))


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
    settings = vae_settings(steps=200, save_every=200, learning_rate=3e-3)
    folder = vae.train(cache, tmp_path, settings)
    trained = load_vae(folder)
    pairs = drawn(cache, "test", 16)
    figures, _ = vae.validate(trained, pairs)
    untrained, _ = vae.validate(vae.VAE(CONFIG), pairs)
    assert figures["held_out_psnr_db"] > untrained["held_out_psnr_db"] + 3
    latents = trained.encode(drawn(cache, "train", 64)[:, 1])
    assert abs(float(latents.mean())) < 0.3 and 0.5 < float(latents.std()) < 2


def test_both_stages_run_and_stage_2_keeps_what_it_should(cache, vae_folder, tmp_path):
    settings = stage1.Stage1Training(size="tiny", batch=4, report_every=3, loop=LOOP)
    first = stage1.train(cache, vae_folder, tmp_path / "stage1", settings)
    manifest = checkpoint.load(first, "echo").manifest
    assert manifest["step"] == LOOP.steps and "mouth_r" in manifest["metrics"]

    settings2 = stage2.Stage2Training(
        conversations=2, loss_blocks=2, learned_blocks=3, report_every=3, loop=LOOP
    )
    second = stage2.train(cache, vae_folder, first, tmp_path / "stage2", settings2)
    before, after = load_echo(first).state_dict(), load_echo(second).state_dict()
    moved = {name for name in before if (before[name] != after[name]).any()}
    parts = "lcu_encoder.perception", "lcu_encoder.understanding", "affect_encoder", "sdcm.gate"
    for part in (*parts, "user_attention"):
        assert any(part in name for name in moved), part
    assert list((tmp_path / "stage2" / "samples").glob("held_out_*.mp4"))


def test_a_student_makes_in_one_step_what_its_teacher_makes_in_many(cache, vae_folder, tmp_path):
    torch.manual_seed(0)
    teacher = restless(Echo(CONFIG))
    folder = checkpoint.save(tmp_path / "teacher", "echo", CONFIG, arrays(teacher))
    settings = distill.Distillation(
        teacher_steps=3,
        audio_guidance_scale=2.0,
        user_guidance_scale=3.0,
        conversations=8,
        report_every=150,
        loop=dataclasses.replace(LOOP, steps=150, learning_rate=3e-3, save_every=150),
    )
    student = distill.train(cache, vae_folder, folder, tmp_path / "student", settings)

    def loss(echo):
        torch.manual_seed(1)
        places = stage2.draw_moment(
            tracks(cache, "train"), 32, settings.loss_blocks, told_share=0.5
        )
        with torch.no_grad():
            return float(distill.lesson_loss(teacher, echo, places, settings))

    assert loss(load_echo(student)) < 0.5 * loss(teacher)
    learned, known = load_echo(student).state_dict(), teacher.state_dict()
    changed = {name for name in known if not torch.equal(known[name], learned[name])}
    assert changed and all(name.startswith("sdcm_denoiser.") for name in changed)


def test_a_teacher_of_one_unguided_step_has_nothing_to_teach(cache):
    torch.manual_seed(0)
    echo = restless(Echo(CONFIG)).eval()
    settings = distill.Distillation(
        1, audio_guidance_scale=1.0, user_guidance_scale=1.0, true_lips=False
    )
    places = stage2.draw_moment(tracks(cache, "train"), 4, settings.loss_blocks, told_share=0.5)
    assert float(distill.lesson_loss(echo, echo, places, settings)) < 1e-10  # of rounding


def test_a_teacher_knows_the_lips_of_who_speaks():
    guess, true = torch.zeros(1, 2, *CONFIG.latent_shape), torch.ones(1, 2, *CONFIG.latent_shape)
    spoken, silent = distill.with_true_lips(guess, true, torch.tensor([[1.0, 0.0]]))[0]
    assert not silent.any()
    assert spoken[:, 2].amax() > 0.3 > 100 * spoken[:, 0].amax()


def test_another_student_than_the_teacher_learns_to_read_the_portrait_too(
    cache, vae_folder, tmp_path
):
    torch.manual_seed(0)
    teacher = restless(Echo(CONFIG))
    small = dataclasses.replace(CONFIG.denoiser, depth=1)
    begun = shrunk(teacher, dataclasses.replace(CONFIG, denoiser=small))
    folders = [
        checkpoint.save(tmp_path / name, "echo", echo.config, arrays(echo))
        for name, echo in (("teacher", teacher), ("begun", begun))
    ]
    settings = distill.Distillation(
        teacher_steps=1,
        audio_guidance_scale=1.0,
        user_guidance_scale=1.0,
        conversations=2,
        report_every=6,
        loop=LOOP,
    )
    run = tmp_path / "student"
    learned = load_echo(
        distill.train(cache, vae_folder, folders[0], run, settings, start=folders[1])
    )
    assert learned.config.denoiser.depth == 1
    known, found = begun.state_dict(), learned.state_dict()
    changed = {name.split(".")[0] for name in known if not torch.equal(known[name], found[name])}
    assert changed == {"sdcm_denoiser", "reference_encoder"}


def test_stage_1_teaches_nothing_about_the_user(cache, vae_folder, tmp_path):
    settings = stage1.Stage1Training(size="tiny", batch=4, loop=LOOP)
    folder = stage1.train(cache, vae_folder, tmp_path, settings)
    weights = load_echo(folder).state_dict()
    outs = [w for name, w in weights.items() if "user_attention.out" in name]
    assert outs and not any(w.any() for w in outs)


def test_a_decoder_trained_alone_leaves_latents_as_they_are(
    cache, vae_folder, tmp_path, monkeypatch
):
    settings = dataclasses.replace(vae_settings(), decoder_only=True)
    folder = vae.train(cache, tmp_path, settings, vae_folder)
    before, after = load_vae(vae_folder).state_dict(), load_vae(folder).state_dict()
    moved = {name for name, tensor in before.items() if (tensor != after[name]).any()}
    assert moved and all(name.startswith("decoder") for name in moved)

    cache_latents(cache, vae_folder)
    monkeypatch.setattr(Track, "frames", property(lambda _: pytest.fail("encoded again")))
    cache_latents(cache, folder)  # the encoder is the same, so its latents are


def test_the_decoder_learns_to_paint_what_a_network_predicts(cache, vae_folder, tmp_path):
    torch.manual_seed(0)
    echo = checkpoint.save(tmp_path / "echo", "echo", CONFIG, arrays(restless(Echo(CONFIG))))
    settings = dataclasses.replace(
        vae_settings(steps=150, save_every=150, learning_rate=3e-3), decoder_only=True
    )
    folder = vae.train(cache, tmp_path / "run", settings, vae_folder, echo)
    kept = sorted((tmp_path / "run" / "predictions").glob("*.npy"))
    assert len(kept) == len(tracks(cache, "train"))
    talks = talks_of(load_echo(echo), tracks(cache, "train"), tmp_path / "run" / "predictions")

    def loss(network):
        torch.manual_seed(3)
        weights = vae.Weights.of(settings, torch.device("cpu"))
        with torch.no_grad():
            return float(vae.predicted_losses(network, talks, weights, settings)["predicted"])

    assert loss(load_vae(folder)) < 0.8 * loss(load_vae(vae_folder))


def test_predictions_are_painted_over_latents_that_stay(cache, vae_folder, tmp_path):
    with pytest.raises(ValueError, match="decoder_only"):
        vae.train(cache, tmp_path, vae_settings(), vae_folder, echo=tmp_path / "echo")


def test_what_a_rendered_corpus_tells_by_index_gets_its_names():
    truth = {f"a_{name}": np.zeros(3) for name in ("aperture", "speaking", "pose")} | {
        "a_emotion": np.array([0, 1, 1]),
        "emotion_names": np.array(["neutral", "happy"]),
        "a_phoneme": np.array([-1, 0, 1], np.int16),
        "phoneme_names": np.array(["b", "ɹ"]),
        "a_cause": np.array([0, 1, 0], np.int8),
        "cause_names": np.array(["none", "bad_news"]),
        "a_sobered": np.array([0, 1, 0.5], np.float16),
        "a_lifted": np.zeros(3, np.float16),
    }
    known = truth_of(truth, "a")
    assert list(known["emotion"]) == ["neutral", "happy", "happy"]
    assert list(known["phoneme"]) == ["", "b", "ɹ"]
    assert list(known["cause"]) == ["", "bad_news", ""]
    assert list(known["sobered"]) == [0, 1, 0.5] and not known["lifted"].any()


def test_stills_are_pictures_of_the_vae_but_no_tracks(cache, tmp_path):
    for kind, name, value in (("stills", "000003", 7), ("recorded", "ada", 200)):
        folder = tmp_path / "train" / kind
        folder.mkdir(parents=True)
        np.save(folder / f"person_{name}.npy", np.full((4, 8, 8, 3), value, np.uint8))
    pool = pictures(tmp_path, "train")
    assert {kind: len(people) for kind, people in pool.items()} == {
        "tracks": 0,
        "stills": 1,
        "recorded": 1,
    }
    assert tracks(tmp_path, "train") == []
    assert len(pictures(cache, "train")["tracks"]) == len(tracks(cache, "train"))
    shares = {"tracks": 0.5, "stills": 0.25, "recorded": 0.25}  # there are no tracks to draw
    values = draw(pool, shares, 400, 0.0)[:, 0, 0, 0, 0]
    assert set(values.tolist()) == {7, 200} and 0.4 < (values == 7).mean() < 0.6


def test_details_are_where_mouths_and_eyes_are_and_keep_to_the_latents_grid():
    torch.manual_seed(0)
    pairs = np.zeros((64, 2, 64, 64, 3), np.uint8)
    pairs[:, :, 44] = 1  # the row of the mouth
    pairs[:, :, 26] = 2  # of the eyes
    pairs[:, :, :, :, 2] = np.arange(64)  # columns tell where a detail was cut
    corners = [detail_corners(64, 64, 32, 4, share) for share in (1.0, 0.0)]
    mouths, eyes = (details(pairs, places, 32) for places in corners)
    assert mouths.shape == (64, 2, 32, 32, 3)
    assert (mouths[..., 0] == 1).any((2, 3)).all() and (eyes[..., 0] == 2).any((2, 3)).all()
    assert (mouths[:, 0] == mouths[:, 1]).all()  # a pair is cut at one place
    assert (mouths[:, 0, 0, 0, 2] == corners[0][:, 0]).all() and not (corners[0] % 4).any()
    assert len(set(mouths[:, 0, 0, 0, 2])) > 1


def test_a_pair_is_of_one_person_and_changed_alike():
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    people = [np.full((3, 32, 32, 3), value, np.uint8) for value in (40, 200)]
    pairs = draw({"stills": people}, {"stills": 1.0}, 32, 1.0)
    assert pairs.shape == (32, 2, 32, 32, 3)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    textured = [generator.integers(0, 256, (1, 32, 32, 3), np.uint8)]
    pairs = draw({"stills": textured}, {"stills": 1.0}, 8, 1.0)
    assert (pairs[:, 0] == pairs[:, 1]).all() and (pairs[0] != pairs[1]).any()


def test_due_emotions_follow_the_turns():
    turns = [
        {"speaker": "a", "emotion": "sad", "start_frame": 2, "end_frame": 4},
        {"speaker": "b", "emotion": "happy", "start_frame": 6, "end_frame": 8},
    ]
    assert list(due_emotions(turns, "b", 8)) == ["neutral"] * 2 + ["concerned"] * 4 + ["happy"] * 2
    assert list(due_emotions(turns, "a", 8)) == ["neutral"] * 2 + ["sad"] * 4 + ["happy"] * 2
