"""This is where the cache's frames become latents, once a VAE is trained, and latents pictures.

The VAE's digest is kept beside them: other weights, other latents. A VAE whose decoder alone was
trained further (`VAETraining.decoder_only`) names the one that its encoder came from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

from training.data import Track, images_of, tracks
from visavis import checkpoint
from visavis.nn.echo import load_vae
from visavis.nn.vae import VAE

SPLITS = ("train", "test")
DIGEST_FILE = "latents.sha256"


def cache_latents(cache: Path, vae_folder: Path) -> None:
    """Encode every track that does not yet have latents of this VAE; one process does."""
    digest = encoder_digest(vae_folder)
    with PartialState().main_process_first():
        todo = [t for split in SPLITS for t in tracks(cache, split) if _digest(t) != digest]
        if not todo:
            return
        vae = load_vae(vae_folder).to(memory_format=torch.channels_last)  # pyright: ignore
        for track in tqdm(todo, unit="track", desc="latents"):
            np.save(track.folder / "latents.npy", encode(vae, track.frames))
            (track.folder / DIGEST_FILE).write_text(digest)


def encoder_digest(vae_folder: Path) -> str:
    """What says whose latents they are."""
    manifest = checkpoint.load(vae_folder, "vae").manifest
    return manifest.get("encoder_of", manifest["sha256"])


@torch.inference_mode()
def encode(vae: VAE, frames: np.ndarray, batch: int = 64) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, C, h, w) float16."""
    parts = []
    for start in range(0, len(frames), batch):
        parts.append(vae.encode(images_of(np.array(frames[start : start + batch]))).half().numpy())
    return np.concatenate(parts)


def decode(vae: VAE, latents: Tensor, portrait: np.ndarray) -> np.ndarray:
    """(T, C, h, w) latents and their portrait (H, W, 3) uint8 -> (T, H, W, 3) uint8 pictures."""
    with torch.inference_mode():
        pixels = images_of(np.array(portrait)[None])
        reference = vae.encode(pixels)
        parts = [vae.decode(part, reference, pixels).clamp(0, 1) for part in latents.split(25)]
    return (torch.cat(parts).permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


def _digest(track: Track) -> str | None:
    path = track.folder / DIGEST_FILE
    return path.read_text() if path.exists() else None
