"""Small caches as training.data writes them, filled by each test with what it needs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from visavis.config import EchoConfig

TrackWriter = Callable[[Path, np.random.Generator], None]


def write_cache(root: Path, write: TrackWriter, train: int = 2, test: int = 2) -> Path:
    """A cache of `train` and `test` conversations, each person's track written by `write`."""
    generator = np.random.default_rng(0)
    for folder in conversations(root, train, test):
        for person in "ab":
            write(folder / person, generator)
        (folder / "done").touch()
    return root


def conversations(root: Path, train: int, test: int) -> Iterator[Path]:
    """The folders of a cache's conversations."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            yield root / split / f"conversation_{number:04d}"


def save_track(folder: Path, frames: np.ndarray, features: np.ndarray, **truth: np.ndarray) -> None:
    """One track: frames (T, H, W, 3), features (blocks, A, D) as own and as user's, and truth."""
    folder.mkdir(parents=True)
    np.save(folder / "frames.npy", frames)
    for name in ("avatar_features", "user_features"):
        np.save(folder / f"{name}.npy", features.astype(np.float16))
    np.savez(folder / "truth.npz", **{"pose": np.zeros((len(frames), 3)), **truth})


def save_unseen_track(
    folder: Path,
    generator: np.random.Generator,
    config: EchoConfig,
    latents: np.ndarray,
    **truth: np.ndarray,
) -> None:
    """One track of somebody silent whose latents (T, C, h, w) are all that is looked at: black
    pictures and features of noise."""
    frames, size = len(latents), config.image_size
    shape = (config.audio.feature_frames, config.audio.feature_width)
    save_track(
        folder,
        np.zeros((frames, size, size, 3), np.uint8),
        generator.standard_normal((frames // config.block_frames, *shape)),
        speaking=np.zeros(frames, bool),
        **truth,
    )
    np.save(folder / "latents.npy", latents.astype(np.float16))
