"""This is where the cache's frames become latents, once a VAE is trained.

The VAE's digest is kept beside them: other weights, other latents. A VAE whose decoder alone was
trained further (training/decoder.py) names the one that its encoder came from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.data import Track, images_of, tracks
from visavis import checkpoint
from visavis.nn.echo import load_vae
from visavis.nn.vae import VAE

SPLITS = ("train", "test")


def cache_latents(cache: Path, vae_folder: Path) -> None:
    """Encode every track that does not yet have latents of this VAE."""
    manifest = checkpoint.load(vae_folder, "vae").manifest
    digest = manifest.get("encoder_of", manifest["sha256"])
    todo = [t for split in SPLITS for t in tracks(cache, split) if _digest(t) != digest]
    if not todo:
        return
    vae = load_vae(vae_folder).to(memory_format=torch.channels_last)  # pyright: ignore
    for track in tqdm(todo, unit="track", desc="latents"):
        np.save(track.folder / "latents.npy", encode(vae, track.frames))
        (track.folder / "latents.sha256").write_text(digest)


@torch.inference_mode()
def encode(vae: VAE, frames: np.ndarray, batch: int = 64) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, C, h, w) float16."""
    parts = []
    for start in range(0, len(frames), batch):
        parts.append(vae.encode(images_of(np.array(frames[start : start + batch]))).half().numpy())
    return np.concatenate(parts)


def _digest(track: Track) -> str | None:
    path = track.folder / "latents.sha256"
    return path.read_text() if path.exists() else None
