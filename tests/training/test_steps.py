"""Steps and guidance are swept, counted and laid side by side."""

import json

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from tests.cache import write_cache
from tests.sizes import restless, tiny
from tests.training.test_drift import words
from tests.training.test_evaluate import ToyFinder, write_track
from training import identity, steps
from training.data import tracks
from training.latents import cache_latents
from training.measures import judge
from training.steps import Guidance, Network, Setting
from visavis import checkpoint
from visavis.config import pico
from visavis.nn.echo import Echo, arrays
from visavis.nn.vae import VAE

CONFIG = tiny()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache of two conversations a split, and untrained checkpoints, one of another size."""
    root = tmp_path_factory.mktemp("steps")
    write_cache(root / "cache", write_track)
    torch.manual_seed(0)
    checkpoint.save(root / "vae", "vae", CONFIG, arrays(VAE(CONFIG)))
    for name in ("teacher", "student"):
        checkpoint.save(root / name, "echo", CONFIG, arrays(restless(Echo(CONFIG))))
    checkpoint.save(root / "pico", "echo", pico(), arrays(Echo(pico())))
    cache_latents(root / "cache", root / "vae")
    return root


@pytest.fixture(autouse=True)
def cheap_eyes(monkeypatch):
    """Faces and identities without the networks that take most of the time."""
    monkeypatch.setattr(judge, "FaceFinder", ToyFinder)
    monkeypatch.setattr(
        identity, "embedding", lambda image: 1 + image.mean((0, 1)).repeat(43)[:128]
    )


def run(*arguments):
    app = typer.Typer()
    app.command()(steps.main)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_networks_bring_their_own_guidance_or_take_all_that_is_asked_for():
    teacher, student = Network.parse("teacher=some/folder@2,1.5"), Network.parse("student=b")
    assert teacher == Network("teacher", steps.Path("some/folder"), Guidance(2, 1.5))
    assert student.guidance is None
    asked = [Guidance(), Guidance(2, 1)]
    own = steps.settings_of(teacher, [1, 4], asked)
    assert [(s.num_steps, str(s.guidance)) for s in own] == [(1, "2,1.5"), (4, "2,1.5")]
    assert [(s.num_steps, s.line) for s in steps.settings_of(student, [1, 4], asked)] == [
        (1, "student"),
        (4, "student"),
        (1, "student @2,1"),
        (4, "student @2,1"),
    ]
    for wrong in ("folder", "=folder", "name=", "a=b@2", "a=b@2,", "a=b@2,1,1", "a=b@x,1"):
        with pytest.raises(typer.BadParameter, match="expected NAME=CKPT or"):
            Network.parse(wrong)


@pytest.mark.parametrize(
    ("guidance", "asked"), [((1, 1), 1), ((2, 1), 3), ((2, 2), 2), ((1, 2), 2), ((3, 2), 3)]
)
def test_evaluations_are_counted_as_they_happen(folder, guidance, asked):
    setting = Setting("teacher", 2, Guidance(*guidance))
    assert setting.evaluations_per_block == 2 * asked
    echo, calls = Echo(CONFIG).eval(), []
    echo.sdcm_denoiser.register_forward_hook(lambda *_: calls.append(1))
    people = tracks(folder / "cache", "test")[:1]
    steps.system(echo, VAE(CONFIG), people, setting, blocks=3)
    assert len(calls) == 3 * setting.evaluations_per_block


def test_teacher_and_student_share_one_table(folder, tmp_path):
    said = run(
        *("--cache", folder / "cache", "--vae", folder / "vae", "--out", tmp_path),
        *("--echo", f"teacher={folder / 'teacher'}@2,1", "--echo", f"student={folder / 'student'}"),
        *("--steps", "1,2", "--threads", 1),
    ).output
    found = json.loads((tmp_path / "steps.json").read_text())
    facts, found = found["settings"], found["summary"]
    assert facts["tracks"] == 4 and facts["seconds_a_track"] == 1.8
    rows = [
        (s["name"], s["num_steps"], s["guidance"]["audio"], s["evaluations_per_block"])
        for s in found["systems"]
    ]
    assert rows == [
        *[("teacher", 1, 2.0, 3), ("teacher", 2, 2.0, 6)],
        *[("student", 1, 1.0, 1), ("student", 2, 1.0, 2)],
    ]
    figures = [s["figures"] for s in found["systems"]]
    assert len({one["psnr"] for one in figures}) == 4
    assert found["ground_truth"]["psnr"] == 100 > max(one["psnr"] for one in figures)

    table = (tmp_path / "steps.md").read_text()
    assert table in said
    assert "| network | steps | guidance audio,user | evaluations a block | mouth_r ↑ |" in table
    assert "| teacher | 2 | 2,1 | 6 | " in table and "| student | 1 | 1,1 | 1 | " in table
    assert "reaction_r" not in table and "no `cause`" in table
    assert cv2.imread(str(tmp_path / "steps.png")) is not None
    sheet = cv2.imread(str(tmp_path / "steps.jpg"))
    height = CONFIG.image_size
    assert sheet.shape[:2] == (2 * (1 + 4) * height, 12 * height)
    assert not (tmp_path / "videos").exists()


def test_the_sheet_puts_the_same_moments_one_below_the_other():
    grey = {
        name: [np.full((64, 768, 3), n + k, np.uint8) for k in (0, 100)]
        for n, name in ((50, "truth"), (90, "student"))
    }
    sheet = steps.contact_sheet(grey)
    assert [int(sheet[row, -1, 0]) for row in (0, 64, 128, 192)] == [50, 90, 150, 190]
    assert (sheet[:64] > 200).any()  # the caption


def test_what_cannot_be_swept_is_refused(folder, tmp_path):
    common = ("--cache", folder / "cache", "--vae", folder / "vae", "--out", tmp_path)
    student = f"student={folder / 'student'}"

    def said(*arguments):
        return words(run(*common, *arguments).output)

    assert "expected different ones" in said("--echo", student, "--echo", student)
    for wrong in ("0", "1,x", "", "1.5"):
        assert "positive numbers" in said("--echo", student, "--steps", wrong)
    assert "a checkpoint of its size" in said("--echo", f"other={folder / 'pico'}")
