"""The settings files that README names are ones that the trainers read."""

from pathlib import Path

import pytest

from training import (
    ablate,
    articulate,
    distill,
    lip_sync,
    listen,
    motion_prior,
    stage1,
    stage2,
    vae,
    vae_smaller,
)
from visavis import config

FOLDER = Path(__file__).parents[2] / "training" / "configs"
SETTINGS = {
    "vae": vae.VAETraining,
    "decoder": vae.VAETraining,
    "smaller": vae_smaller.SmallerVAETraining,
    "articulate": articulate.Articulating,
    "stage1": stage1.Stage1Training,
    "listen": listen.Listening,
    "motion": motion_prior.MotionTraining,
    "stage2": stage2.Stage2Training,
    "distill": distill.Distillation,
    "lip_sync": lip_sync.LipSyncTraining,
    "ablation": ablate.Ablation,
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_settings_load(path):
    size, _, kind = path.stem.partition("_")
    settings = config.load(SETTINGS.get(kind) or SETTINGS[path.stem], path)
    if kind in ("vae", "decoder", "articulate", "stage1"):
        assert settings.size == size
