"""The evaluation puts every system in one table, and leaves out what cannot be measured."""

import json

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner
from visavis_client.face import Face

from tests.cache import save_track, write_cache
from tests.sizes import tiny
from training import evaluate, identity
from training.data import tracks
from training.film import write_video
from training.measures import judge, motion
from visavis import checkpoint
from visavis.nn.echo import Echo, arrays
from visavis.nn.vae import VAE

CONFIG = tiny()
FRAMES = 45
SIZE = CONFIG.image_size
BASELINES = ["ground_truth", "static_face", "training_mean", "partner_mirrored", "shuffled"]


class ToyFinder:
    """Finds a face in every picture that is not dark; the mouth opens with the dark in it."""

    def find(self, image, **options):
        if image.mean() < 30:
            return []
        points = np.random.default_rng(0).uniform(0.3, 0.7, (motion.POINTS, 2)) * len(image)
        points[motion.LOWER_LIP] = points[motion.UPPER_LIP] + (0, (image < 40).mean() * len(image))
        points[motion.NOSE_TIP] += image[:4, :4].mean() / 255
        return [Face((0, 0, *image.shape[1::-1]), points, 1.0)]


@pytest.fixture
def cheap_eyes(monkeypatch):
    """Faces and identities without the networks that take most of the time."""
    monkeypatch.setattr(judge, "FaceFinder", ToyFinder)
    monkeypatch.setattr(
        identity, "embedding", lambda image: 1 + image.mean((0, 1)).repeat(43)[:128]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache of two conversations a split, untrained checkpoints, voices, and other videos."""
    root = tmp_path_factory.mktemp("evaluate")
    generator = np.random.default_rng(1)
    for track in tracks(write_cache(root / "cache", write_track), "test"):
        voice = root / "voices" / f"{track.name}.wav"
        voice.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(voice, generator.uniform(-0.1, 0.1, FRAMES * 640), 16_000)
        write_video(root / "other" / f"{track.name}.mp4", np.asarray(track.frames))
    torch.manual_seed(0)
    checkpoint.save(root / "vae", "vae", CONFIG, arrays(VAE(CONFIG)))
    checkpoint.save(root / "echo", "echo", CONFIG, arrays(Echo(CONFIG)))
    return root


def write_track(folder, generator):
    aperture = np.abs(np.sin(np.arange(FRAMES) * generator.uniform(0.3, 0.6)))
    aperture[:12] = 0
    frames = np.broadcast_to(generator.integers(90, 200, 3, np.uint8), (FRAMES, SIZE, SIZE, 3))
    frames = frames.copy()
    for n, opening in enumerate(aperture):
        frames[n, 22 - int(1 + 4 * opening) : 22 + int(1 + 4 * opening), 12:20] = 20
        frames[n, :4, :4] = 100 + 3 * n
    features = (FRAMES // CONFIG.block_frames, CONFIG.audio.feature_frames)
    values = generator.standard_normal((*features, CONFIG.audio.feature_width))
    save_track(
        folder,
        frames,
        values,
        aperture=aperture,
        speaking=aperture > 0,
        emotion=np.full(FRAMES, "happy"),
        phoneme=np.where(aperture < 0.2, "p", "a"),
    )


def run(*arguments):
    result = CliRunner().invoke(evaluate_app(), [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def evaluate_app():
    import typer

    app = typer.Typer()
    app.command()(evaluate.main)
    return app


def test_networks_baselines_and_other_videos_share_one_table(folder, tmp_path, cheap_eyes):
    run(
        *("--cache", folder / "cache", "--out", tmp_path, "--threads", 1),
        *("--vae", folder / "vae", "--echo", folder / "echo"),
        *("--voices", folder / "voices", "--videos", f"other={folder / 'other'}"),
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    rows = metrics["summary"]
    assert list(rows) == [*BASELINES, "reconstruction", "audio_only", "echo_due", "echo", "other"]
    assert metrics["settings"] == {"tracks": 4, "seconds_a_track": FRAMES / 25}

    truth, still = rows["ground_truth"], rows["static_face"]
    assert truth["mouth_r"] == truth["mouth_r_ceiling"] > 0.9
    assert still["mouth_r"] == pytest.approx(0, abs=1e-3)
    assert truth["fd_jaw"] == pytest.approx(0, abs=1e-3) and still["fd_jaw"] > 0
    assert truth["closure_pbm"] == truth["mouth_at_rest"] == 1
    assert still["variance_jaw"] == 0 and "seam_jump_jaw" not in still
    assert rows["other"]["psnr"] > 25 and truth["psnr"] == 100

    kept = {"voice_swap_lower_over_upper", "user_swap_upper_over_mouth_speaking"}
    kept |= {"own_portrait_nearest", "mouth_r_worst", "user_swap_upper_over_mouth_listening"}
    assert kept <= set(rows["echo"])
    assert "voice_swap_lower_over_upper" not in rows["audio_only"]

    assert set(metrics["raw"]["missing"]) == {
        "reaction_*",
        "emotion_agreement",
        "lip_sync_*, lip_offset_frames",
    }
    report = (tmp_path / "report.md").read_text()
    assert "no `cause`" in report and "| echo |" in report and "emotion_agreement ↑" not in report
    check_pictures(tmp_path)


def check_pictures(out):
    sheet = cv2.imread(str(out / "contact_sheet.jpg"))
    assert sheet.shape[:2] == (4 * 3 * SIZE, 12 * SIZE)  # the truth, echo and other of each
    for name in ("overview.png", "apertures.png"):
        assert cv2.imread(str(out / name)) is not None
    assert not (out / "lip_sync.png").exists()
    with av.open(str(out / "side_by_side.mp4")) as film:
        assert film.streams.video[0].frames == FRAMES
        heard = np.concatenate([f.to_ndarray() for f in film.decode(audio=0)], axis=1)
    assert abs(heard.shape[1] - FRAMES * 640) <= 2048 and heard.std() > 0.01
    made = sorted((out / "videos").rglob("*.mp4"))
    assert [str(path.relative_to(out)) for path in made] == [
        f"videos/echo/conversation_{n:04d}/{person}.mp4" for n in (0, 1) for person in "ab"
    ]


def test_a_network_may_hear_no_more_than_a_window(folder, tmp_path, monkeypatch):
    def generate(echo, people, settings):
        raise RuntimeError(f"asked for a window of {settings.window_blocks} blocks")

    monkeypatch.setattr(evaluate, "generate", generate)
    network = ("--vae", folder / "vae", "--echo", folder / "echo", "--window-s", 2)
    with pytest.raises(RuntimeError, match="window of 10 blocks"):
        run("--cache", folder / "cache", "--out", tmp_path, "--threads", 1, *network)


def test_missing_and_short_videos_are_named(folder, tmp_path):
    people = tracks(folder / "cache", "test")
    with pytest.raises(FileNotFoundError, match="expected one video for each of the 4"):
        evaluate.from_folder("other", tmp_path, people, FRAMES)
    system = evaluate.from_folder("other", folder / "other", people, FRAMES + 1)
    with pytest.raises(ValueError, match=f"got {FRAMES} frames, expected at least {FRAMES + 1}"):
        system.video(0)


def test_half_a_network_and_nameless_folders_are_refused(folder, tmp_path):
    cache = ("--cache", folder / "cache", "--out", tmp_path)
    assert "both or neither" in run(*cache, "--vae", folder / "vae").output
    assert "NAME=FOLDER" in run(*cache, "--videos", "somewhere", "--size", "pico").output
