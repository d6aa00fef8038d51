"""The ablation trains what it says, measures every run once, and compares signs with the paper."""

import json

import numpy as np
import pytest
import torch

from tests.cache import write_cache
from tests.sizes import tiny
from tests.training.test_evaluate import FRAMES, ToyFinder, write_track
from training import ablate, identity, listen, stage1, stage2
from training.loop import LoopConfig
from training.measures import judge
from training.measures.ablation import FULL, PAPER, agreement, markdown, spread
from visavis import checkpoint, config
from visavis.nn.echo import arrays, load_echo
from visavis.nn.vae import VAE

LOOP = LoopConfig(steps=2, save_every=2, report_every=1)
SETTINGS = ablate.Ablation(
    seeds=2,
    seconds=FRAMES / 25,
    num_steps=1,
    stage1=stage1.Stage1Training(size="tiny", batch=2, loop=LOOP),
    listen=listen.Listening(conversations=2, answers=2, loop=LOOP),
    stage2=stage2.Stage2Training(conversations=2, loss_blocks=1, learned_blocks=1, loop=LOOP),
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache, a VAE, and toy eyes."""
    monkeypatch.setitem(config.SIZES, "tiny", tiny)
    monkeypatch.setattr(judge, "FaceFinder", ToyFinder)
    monkeypatch.setattr(
        identity, "embedding", lambda image: 1 + image.mean((0, 1)).repeat(43)[:128]
    )
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "vae", "vae", tiny(), arrays(VAE(tiny())))
    return write_cache(tmp_path / "cache", write_moody), tmp_path / "vae", tmp_path / "out"


def write_moody(folder, generator):
    """A track in which two moods are due."""
    write_track(folder, generator)
    path = folder / "truth.npz"
    emotion = np.where(np.arange(FRAMES) < FRAMES // 2, "happy", "sad")
    np.savez(path, **(dict(np.load(path)) | {"emotion": emotion}))


def test_every_variant_is_trained_without_its_part_and_measured_once(places, monkeypatch):
    cache, vae, out = places
    (out.parent / "settings.json").write_text(config.to_json(SETTINGS))
    for seed in (1, 0):  # as two machines might
        ablate.main(cache, vae, out, out.parent / "settings.json", None, 1, only=[seed])
    ablate.main(cache, vae, out, out.parent / "settings.json", None, 1)
    found = json.loads((out / "ablation.json").read_text())
    assert {name: len(rows) for name, rows in found["raw"].items()} == dict.fromkeys(
        ablate.VARIANTS, 2
    )
    for name, variant in ablate.VARIANTS.items():
        trained = ablate.Run(name, 1, out)
        assert load_echo(trained.folder / "checkpoint").config.without == variant.without
        settings = json.loads((trained.folder / "training.json").read_text())
        assert settings["window_blocks"] == variant.window_blocks
        assert settings["user_dropout"] == (0.1 if variant.listens else 1.0)
        assert settings["loop"]["seed"] == 1
        assert (trained.folder / "listen").exists() == variant.listens
    full, other_seed = found["raw"][FULL].values()
    assert full != other_seed and "mouth_r" in full and "static_face" in found["summary"]["others"]
    assert (out / "ablation.png").exists() and "without SDCM" in (out / "ablation.md").read_text()

    for module in (stage1, listen, stage2):
        monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    again = json.loads((out / "ablation.json").read_text())["raw"]
    ablate.main(cache, vae, out, out.parent / "settings.json", None, 1)
    assert json.loads((out / "ablation.json").read_text())["raw"] == again


def test_signs_are_compared_within_a_seed_and_beyond_the_spread():
    better, worse = PAPER[FULL]["rpcc_exp"], PAPER["without LPE"]["rpcc_exp"]
    assert worse > better
    results = {FULL: {0: {"rpcc_exp": 0.10}, 1: {"rpcc_exp": 0.30}}}

    def mark(*values):
        rows = {seed: {"rpcc_exp": value} for seed, value in enumerate(values)}
        return agreement({**results, "without LPE": rows}, "without LPE", "rpcc_exp")

    assert mark(0.12, 0.33) == "=" and mark(0.09, 0.28) == "≠" and mark(0.15, 0.28) == "~"
    assert mark(0.12) == "=" and agreement(results, FULL, "rpcc_exp") == ""
    assert spread([0.10, 0.12]) == pytest.approx((0.11, np.std([0.10, 0.12], ddof=1)))
    table = markdown({**results, "2 s window": results[FULL]}, {"static_face": {}}, {"seeds": 2})
    assert "| 2 s window | 0.200 ± 0.141 |" in table and "| static_face | – |" in table
