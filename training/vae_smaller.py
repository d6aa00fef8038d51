"""This is where a smaller VAE learns a larger one's latents.

    python -m training.vae_smaller CACHE LARGER_VAE_CHECKPOINT RUN CONFIG

CACHE is of the larger size. The smaller encoder learns to see in a small picture what the larger
one sees in a large one, the smaller decoder to paint it small. So the two sizes have their latents
in common: cached ones stay good, and a denoiser of either is at home with both. Losses are those of
`training.vae`; the decoder is given the larger encoder's latents, and of the portrait its own, as
when served.

Legend: B batch, H W pixels of the larger size, C h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from training import data
from training.command import run_trainer
from training.latents import encoder_digest
from training.loop import Loop, LoopConfig, averaged_weights
from training.pictures import Pool, detail_corners, details, draw
from training.precision import half_precision
from training.vae import (
    VAETraining,
    Weights,
    closely,
    keep,
    painting_loss,
    pairs_of,
    reconstruct,
    sheet,
    validate,
)
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES
from visavis.nn.echo import load_vae
from visavis.nn.vae import VAE


@dataclass(frozen=True)
class SmallerVAETraining:
    """Settings of one run."""

    agreement_weight: float = 0.3  # of the latents' squared error, theirs having unit variance
    vae: VAETraining = field(
        default_factory=lambda: VAETraining(
            size="pico", loop=LoopConfig(steps=8000, learning_rate=1e-3)
        )
    )


def reduced(pairs: Tensor, size: int) -> Tensor:
    """Pairs (B, 2, 3, H, W) at `size` pixels a side, each the mean of its place."""
    times = pairs.shape[-1] // size
    return F.avg_pool2d(pairs.flatten(0, 1), times).unflatten(0, (-1, 2))


def lesson(vae: VAE, larger: VAE, pairs: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of pairs (B, 2, 3, H, W): themselves at `size`, what the decoder is to be given (B, 2, C, h,
    w), and how far the encoder's latents are from the larger one's."""
    with half_precision(pairs.device):
        with torch.no_grad():
            theirs = larger.encode(pairs.flatten(0, 1)).float()
        small = reduced(pairs, size)
        ours = vae.encode(small.flatten(0, 1)).float()
    portraits, pictures = (x.detach().unflatten(0, (-1, 2)) for x in (ours, theirs))
    given = torch.stack([portraits[:, 0], pictures[:, 1]], dim=1)
    return small, given, F.mse_loss(ours, theirs)


def losses_of(
    vae: VAE,
    larger: VAE,
    frames: np.ndarray,
    weights: Weights,
    settings: SmallerVAETraining,
) -> dict[str, Tensor]:
    """The losses of pairs of pictures (B, 2, H, W, 3) uint8: the first `batch` of them whole, of
    the others their mouths or eyes."""
    config, device = settings.vae, weights.whole.device
    size, side = weights.whole.shape[-1], frames.shape[2] // 2
    step = frames.shape[2] // SIZES[config.size]().latent_size
    whole, others = frames[: config.batch], frames[config.batch :]
    corners = detail_corners(len(others), frames.shape[2], side, step, config.mouth_share)
    seen, near = (pairs_of(some).to(device) for some in (whole, details(others, corners, side)))
    found: dict[str, Tensor] = {}

    small, given, far = lesson(vae, larger, seen, size)
    painted, _ = reconstruct(vae, small, config, given)
    found["whole"] = painting_loss(painted, small[:, 1], weights.whole, config)

    small, given, near_far = lesson(vae, larger, near, size // 2)
    painted, _ = reconstruct(vae, small, config, given)
    found["details"], found["perceptual"] = closely(painted, small[:, 1], weights, config)

    found["agreement"] = far + near_far
    loss = found["whole"] + found["details"] + settings.agreement_weight * found["agreement"]
    return {"loss": loss, **{name: figure.detach() for name, figure in found.items()}}


def train(cache: Path, larger_folder: Path, run: Path, settings: SmallerVAETraining) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    config = SIZES[settings.vae.size]()
    theirs = checkpoint.load(larger_folder, "vae").config
    if theirs.latent_shape != config.latent_shape or theirs.image_size % config.image_size:
        raise ValueError(
            f"{settings.vae.size}: got latents {config.latent_shape} of {config.image_size} pixels "
            f"a side, expected {theirs.latent_shape} as in {larger_folder}, of a whole fraction of "
            f"{theirs.image_size} pixels; choose another size"
        )
    pool, held_out = data.pictures(cache, "train"), data.pictures(cache, "test")
    torch.manual_seed(settings.vae.loop.seed)
    vae, larger = VAE(config), load_vae(larger_folder)
    vae.latent_mean.copy_(larger.latent_mean)
    vae.latent_std.copy_(larger.latent_std)
    loop = Loop(run, vae.to(memory_format=torch.channels_last), settings.vae.loop)  # pyright: ignore
    larger.to(loop.device, memory_format=torch.channels_last)  # pyright: ignore
    (run / "training.json").write_text(configs.to_json(settings))
    weights = Weights.of(settings.vae, loop.device)
    drawn = settings.vae.batch + settings.vae.details

    def losses() -> dict[str, Tensor]:
        frames = draw(pool, settings.vae.shares, drawn, settings.vae.augment)
        return losses_of(loop.model, larger, frames, weights, settings)

    def finish() -> Path:
        vae = VAE(config)
        vae.load_state_dict(averaged_weights(loop.folder)[0])
        pairs = held_out_pairs(held_out, settings, 128)
        return keep(loop, config, vae.eval(), pairs, encoder_of=encoder_digest(larger_folder))

    for _ in loop:
        loop.update(losses)
        if loop.due(settings.vae.report_every):
            pairs = held_out_pairs(held_out, settings, 32).to(loop.device)
            figures, decoded = validate(loop.averaged, pairs)
            loop.log(**figures)
            loop.show("reconstruction", sheet(pairs[:8], decoded[:8]))
    return loop.conclude(finish)


def held_out_pairs(held_out: Pool, settings: SmallerVAETraining, count: int) -> Tensor:
    """As many pairs (B, 2, 3, H, W) of the smaller size; always the same of people never seen."""
    torch.manual_seed(1)
    frames = draw(held_out, settings.vae.shares, count, 0.0)
    return reduced(pairs_of(frames), SIZES[settings.vae.size]().image_size)


def main(cache: Path, larger: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train from a settings file, such as training/configs/pico_smaller.json."""
    run_trainer(
        SmallerVAETraining,
        config,
        threads,
        lambda settings: train(cache, larger, run, settings),
    )


if __name__ == "__main__":
    typer.run(main)
