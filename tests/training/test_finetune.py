"""A person's film becomes tracks, and what is served becomes theirs."""

import dataclasses
import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from training import finetune, vae
from training.data import tracks
from training.film import read_frames, write_video
from training.loop import LoopConfig
from training.person import cache_person
from visavis import checkpoint
from visavis.config import pico
from visavis.nn.echo import Echo, arrays, load_echo, load_vae
from visavis.nn.vae import VAE

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 400
LOOP = LoopConfig(steps=2, warmup_steps=1, save_every=2, report_every=1)
SETTINGS = finetune.Finetuning(
    held_out_share=0.2,
    vae=vae.VAETraining(
        decoder_only=True,
        batch=2,
        details=2,
        perceptual_details=1,
        predicted=1,
        predicted_details=2,
        loop=LOOP,
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of everything on the example's user, from random weights of `pico`."""
    root = tmp_path_factory.mktemp("finetune")
    torch.manual_seed(0)
    checkpoint.save(root / "vae", "vae", pico(), arrays(VAE(pico())))
    checkpoint.save(root / "echo", "echo", pico(), arrays(Echo(pico())))
    voice, _ = soundfile.read(EXAMPLES / "user.wav", dtype="float32")
    film = root / "user.mp4"
    write_video(film, islice(read_frames(EXAMPLES / "user.mp4"), FRAMES), voice[: FRAMES * 640])
    (root / "settings.json").write_text(finetune.configs.to_json(SETTINGS))
    finetune.main(
        [film],
        root / "run",
        vae_folder=root / "vae",
        echo_folder=root / "echo",
        config=root / "settings.json",
        threads=1,
    )
    return root


def test_the_end_of_a_film_is_held_out_with_its_voice(run):
    (train,), (test,) = (tracks(run / "run" / "cache", split) for split in ("train", "test"))
    assert (len(train.frames), len(test.frames)) == (0.8 * FRAMES, 0.2 * FRAMES)
    for track in (train, test):
        assert track.frames.shape[1:] == (128, 128, 3)
        assert track.avatar_features.shape[0] == len(track.frames) // 5
        assert {"aperture", "speaking", "pose", "eyes", "emotion"} <= set(track.truth)
    assert train.truth["speaking"].any() and np.std(train.truth["aperture"]) > 0.001


def test_the_decoder_alone_is_trained_also_on_what_is_predicted(run):
    before, after = (load_vae(p) for p in (run / "vae", run / "run" / "vae" / "checkpoint"))
    moved = {n for n, w in before.state_dict().items() if (w != after.state_dict()[n]).any()}
    assert moved and all(name.startswith("decoder") for name in moved)
    manifest = checkpoint.load(run / "run" / "vae" / "checkpoint", "vae").manifest
    assert manifest["encoder_of"] == checkpoint.load(run / "vae", "vae").manifest["sha256"]
    (predicted,) = (run / "run" / "vae" / "predictions").glob("*.npy")
    (train,) = tracks(run / "run" / "cache", "train")
    assert np.load(predicted).shape == train.latents.shape


@pytest.mark.parametrize(("speaks", "share"), [(True, 0.25), (False, 0.0)])
def test_of_a_silent_film_no_predicted_mouth_is_painted(run, monkeypatch, speaks, share):
    (train,) = tracks(run / "run" / "cache", "train")
    train.truth["speaking"][:] = speaks
    monkeypatch.setattr(finetune, "tracks", lambda cache, split: [train])
    asked = []
    monkeypatch.setattr(vae, "train", lambda cache, out, settings, *start: asked.append(settings))
    finetune.finetune(run, (run / "vae", run / "echo"), run, finetune.Finetuning())
    assert [(one.predicted_mouth_share, one.size) for one in asked] == [(share, "pico")]


def test_the_report_shows_before_and_after(run):
    report = run / "run" / "report"
    found = json.loads((report / "figures.json").read_text())
    assert [name.split(",")[0] for name in found] == ["before", "after"]
    assert all(0 < one["identity_similarity"] <= 1 for one in found.values())
    assert cv2.imread(str(report / "sheet.jpg")).shape[0] == 5 * 128
    assert sum(1 for _ in read_frames(report / "talk.mp4")) >= 50


def test_short_films_are_refused_with_the_reason(tmp_path):
    write_video(tmp_path / "short.mp4", islice(read_frames(EXAMPLES / "user.mp4"), 40))
    with pytest.raises(ValueError, match=r"got 40 frames, expected at least 250"):
        cache_person([tmp_path / "short.mp4"], tmp_path / "cache", pico(), 0.1)


def test_what_is_served_is_what_training_begins_with(tmp_path):
    repository = Path(__file__).parents[2] / "model_repository"
    folders = finetune.starting_point(tmp_path, repository, None, None)
    served = checkpoint.load(repository / "sdcm_denoiser" / "1").weights
    ours = load_echo(folders[1]).sdcm_denoiser.state_dict()
    assert set(ours) == set(served)
    assert all(np.array_equal(ours[n].numpy(), np.float32(served[n])) for n in served)
    assert load_vae(folders[0]).latent_std.ne(1).all()
    assert dataclasses.is_dataclass(load_echo(folders[1]).config)
