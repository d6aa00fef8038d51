"""A track of random latents, for what needs no pictures."""

from pathlib import Path

import numpy as np

from tests.sizes import tiny
from training.data import Track

CONFIG = tiny()
BLOCKS = 4


def track(folder: Path) -> Track:
    """A track of random latents."""
    frames = BLOCKS * CONFIG.block_frames
    generator = np.random.default_rng(0)
    latents = generator.standard_normal((frames, *CONFIG.latent_shape)).astype(np.float16)
    width = (CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
    np.save(folder / "latents.npy", latents)
    np.save(folder / "frames.npy", np.zeros((frames, 2, 2, 3), np.uint8))
    for name in ("avatar_features", "user_features"):
        np.save(folder / f"{name}.npy", generator.standard_normal((BLOCKS, *width)))
    emotion, pose = np.full(frames, "happy"), generator.standard_normal((frames, 3))
    np.savez(folder / "truth.npz", speaking=np.ones(frames, bool), emotion=emotion, pose=pose)
    return Track(folder, folder)
