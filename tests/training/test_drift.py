"""A long talk repeats its conversation but never restarts, and what it loses is told."""

import json

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from tests.cache import save_track, write_cache
from tests.sizes import restless, tiny
from training import drift, identity
from training.data import Track, tracks
from training.drift import Change
from training.repeated import Repeated
from training.rollout import RolloutConfig, rolled_blocks, rollout, user_tokens
from visavis import checkpoint
from visavis.nn.echo import Echo, arrays
from visavis.nn.vae import VAE

CONFIG = tiny()
F = CONFIG.block_frames
BLOCKS, FRAMES = 9, 47  # the last two frames fill no block
SIZE = CONFIG.image_size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache of two conversations a split with latents, and untrained checkpoints."""
    root = tmp_path_factory.mktemp("drift")
    write_cache(root / "cache", write_track)
    torch.manual_seed(0)
    checkpoint.save(root / "vae", "vae", CONFIG, arrays(VAE(CONFIG)))
    checkpoint.save(root / "echo", "echo", CONFIG, arrays(restless(Echo(CONFIG))))
    return root


@pytest.fixture(scope="module")
def echo():
    torch.manual_seed(0)
    return restless(Echo(CONFIG)).eval()


def write_track(folder, generator):
    features = (BLOCKS, CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    save_track(
        folder,
        generator.integers(0, 255, (FRAMES, SIZE, SIZE, 3), np.uint8),
        generator.standard_normal(features),
        aperture=np.arange(FRAMES) / FRAMES,
        speaking=np.ones(FRAMES, bool),
        emotion=np.where(np.arange(FRAMES) < 20, "happy", "sad"),
    )
    latents = generator.standard_normal((FRAMES, *CONFIG.latent_shape))
    np.save(folder / "latents.npy", latents.astype(np.float16))


def repeated(track: Track, passes: int) -> Repeated:
    return Repeated(track.folder, track.partner, passes * BLOCKS, F)


def test_every_pass_of_a_conversation_is_the_same_block_by_block(folder):
    track = tracks(folder / "cache", "test")[0]
    person = repeated(track, 3)
    assert person.blocks == 3 * BLOCKS and person.name == track.name
    assert len(person.frames) == len(person.latents) == 3 * BLOCKS * F
    for ours, once in ((person, track), (person.user, track.user)):
        for n in range(3):
            frames = slice(n * BLOCKS * F, (n + 1) * BLOCKS * F)
            blocks = slice(n * BLOCKS, (n + 1) * BLOCKS)
            assert np.array_equal(ours.frames[frames], once.frames[: BLOCKS * F])
            assert np.array_equal(ours.latents[frames], once.latents[: BLOCKS * F])
            assert np.array_equal(ours.avatar_features[blocks], once.avatar_features)
            assert np.array_equal(ours.user_features[blocks], once.user_features)
            assert np.array_equal(ours.truth["emotion"][frames], once.truth["emotion"][:-2])
    with pytest.raises(IndexError):
        person.avatar_features[3 * BLOCKS]


def test_what_is_heard_goes_on_through_the_joins(folder, echo):
    track = tracks(folder / "cache", "test")[0]
    with torch.inference_mode():
        once = user_tokens(echo, [track.user], RolloutConfig(blocks=BLOCKS))
        heard = user_tokens(echo, [repeated(track, 2).user], RolloutConfig(blocks=2 * BLOCKS))
    first, second = heard[:, :BLOCKS], heard[:, BLOCKS:]
    assert torch.allclose(first, once, atol=1e-5)
    change = (first - second).abs().amax((0, 2, 3, 4))  # of every block
    assert (change > 1e-4).all()


def test_blocks_one_by_one_are_the_whole_talk(folder, echo):
    people = [repeated(track, 2) for track in tracks(folder / "cache", "test")[:2]]
    settings = RolloutConfig(blocks=2 * BLOCKS, num_steps=2)
    whole = rollout(echo, people, settings)
    stream = rolled_blocks(echo, people, settings)
    first = next(stream)
    assert first.shape == (2, F, *CONFIG.latent_shape)
    assert torch.equal(torch.cat([first, *stream], dim=1), whole)
    assert not torch.equal(whole[:, : BLOCKS * F], whole[:, BLOCKS * F :])


def test_every_whole_second_is_looked_at_from_its_first_frame():
    frames = torch.arange(60).reshape(1, 60, 1, 1, 1)
    for block_frames in (5, 4, 30):
        seconds = list(drift.moments(frames.split(block_frames, dim=1), 6))
        assert [second.flatten().tolist() for second in seconds] == [
            list(range(start, start + 6)) for start in (0, 25)
        ]


def test_the_first_minute_is_compared_with_the_last_that_repeats_it():
    def starts(seconds, pass_s):
        first, last = drift.compared(seconds, pass_s)
        assert first.start == 0 and first.stop == last.stop - last.start == min(60, seconds // 2)
        return last.start

    assert starts(600, 40) == 520  # 13 passes of 40 s before it
    assert starts(600, 30) == 540
    assert starts(600, 29.6) == round(18 * 29.6)
    assert starts(600, 400) == 400
    assert starts(600, 900) == 540  # it never comes again
    assert starts(30, 40) == 15
    assert starts(100, 40) == 50  # the pass at 40 s begins within the first half


def test_a_decay_of_five_percent_is_told():
    voice = np.tile([1.0, -1.0, 3.0, 0.5], 150)  # what is said moves a figure too, and is no drift
    decay = np.interp(np.arange(600), [0, 60, 536, 600], [1, 1, 0.95, 0.95])
    samples = {"sharpness": 20 * decay, "flicker": 10 + voice, "nothing": np.zeros(600)}
    found = drift.changes_of(samples, 4 * 4)
    assert found["sharpness"].first == pytest.approx(20, rel=1e-3)
    assert found["sharpness"].percent == pytest.approx(-5, abs=0.1)
    assert found["flicker"].percent == pytest.approx(0)
    assert found["nothing"].percent is None
    mean = drift.mean_changes([{"x": Change(1.0, 2.0)}, {"x": Change(3.0, 4.0)}])["x"]
    assert mean == Change(2.0, 3.0) and str(mean) == "2.000 → 3.000 (+50.0 %)"


def test_the_goal_is_three_percent_worse_and_no_more():
    def changes(similarity, sharpness):
        return {
            "identity_similarity": Change(1, 1 + similarity / 100),
            "sharpness": Change(20, 20 * (1 + sharpness / 100)),
            "flicker": Change(1, 0.5),
        }

    assert drift.keeps(changes(-2.9, 40))
    assert not drift.keeps(changes(-3.1, 0)) and not drift.keeps(changes(0, -3.1))
    assert not drift.keeps({**changes(0, 0), "sharpness": Change(0, 1)})


def test_blur_lowers_sharpness_and_only_the_border_flickers():
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8).repeat(3, axis=0)
    assert drift.flicker(frames) == 0
    frames[1:, 20:40, 20:40] = 0
    assert drift.flicker(frames) == 0
    frames[2, 0] = frames[1, 0] // 2  # one row of 64, of a border of 4 * 60 * 4 pixels, in one step
    change = np.abs(frames[2, 0].astype(int) - frames[1, 0]).mean()
    assert drift.flicker(frames) == pytest.approx(change * 64 / (4 * 60 * 4) / 2)
    sharp = drift.sharpness(frames[0])
    assert drift.sharpness(cv2.GaussianBlur(frames[0], (5, 5), 2)) < sharp / 10
    frames[0, :16], frames[0, :, :14] = 0, 0  # outside of the face
    assert drift.sharpness(frames[0]) == pytest.approx(sharp)


def run(*arguments):
    app = typer.Typer()
    app.command()(drift.main)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def words(output: str) -> str:
    """An error's text without its frame and its line ends."""
    return " ".join(output.replace("│", " ").split())


def test_a_long_talk_is_written_down_second_by_second(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        identity, "embedding", lambda image: 1 + image.mean((0, 1)).repeat(43)[:128]
    )
    monkeypatch.setattr(drift, "AT_ONCE", 2)
    checkpoints = ("--cache", folder / "cache", "--vae", folder / "vae", "--echo", folder / "echo")
    options = ("--minutes", 0.1, "--people", 3, "--threads", 1)  # 6 s of 1.8 s again and again
    said = run(*checkpoints, "--out", tmp_path, *options).output
    found = json.loads((tmp_path / "drift.json").read_text())
    names = ["conversation_0000/a", "conversation_0000/b", "conversation_0001/a"]
    samples, found = found["raw"], found["summary"]
    assert list(samples) == names and list(found["changes"]) == [*names, "mean"]
    for name in names:
        assert {len(series) for series in samples[name].values()} == {6}
    sharpness = np.array([samples[name]["sharpness"] for name in names])
    mean = found["changes"]["mean"]["sharpness"]
    assert mean["first"] == pytest.approx(sharpness[:, :3].mean())
    assert mean["last"] == pytest.approx(sharpness[:, 3:].mean())
    assert mean["percent"] == pytest.approx(100 * (mean["last"] / mean["first"] - 1))
    assert found["compared_s"][names[0]] == [[0, 3], [3, 6]]
    assert set(found["reconstruction"]) == set(samples[names[0]])
    assert "| conversation_0001/a |" in said and (tmp_path / "drift.md").read_text() in said
    assert cv2.imread(str(tmp_path / "drift.png")) is not None
    sheet = cv2.imread(str(tmp_path / "drift.jpg"))
    assert sheet.shape[:2] == (3 * SIZE, 3 * SIZE)  # portraits, first and last second


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    checkpoints = ("--vae", folder / "vae", "--echo", folder / "echo", "--out", tmp_path)
    said = words(run("--cache", folder / "cache", *checkpoints, "--minutes", 0.02).output)
    assert "got 0.02, expected two seconds or more" in said
    assert "expected one or more" in words(run("--cache", tmp_path, *checkpoints).output)
