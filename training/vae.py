"""This is where the VAE is trained: `python -m training.vae CACHE RUN CONFIG`.

Every step sees a few pairs of a portrait and another picture of the same person, and many details
of other pairs: mouths and eyes at full resolution, where a viewer looks and where most is to be
learned, for a quarter of the cost. The loss of whole pictures is absolute and squared error and
their spatial gradients; details add the distance of their features (as LPIPS without learned
weights: Zhang et al., 2018, arXiv 1801.03924), which minds a blurred tooth more than pixels do. A
very small Kullback-Leibler term keeps latents bounded.

A part of the latents is decoded with noise on it: what a denoiser predicts is never exact, and a
decoder that has only seen exact latents turns a small error into another mouth (Yang et al., 2025,
arXiv 2507.15856, find that a tokenizer that learns to denoise makes better latents for diffusion).
Once a denoiser is trained, `--echo` and `decoder_only` teach the decoder to paint what it predicts:
eyes, compared where they fit best, and whole heads, which are where they should be since the
denoiser is told how they move (`visavis.motion`). Of predicted mouths it sees few, and close by
only: what a prediction is not sure of it learns to paint as the mean, a mouth that hardly opens.
But without any, teeth that are drawn more strongly than true ones shine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from training.command import Start, run_trainer
from training.data import images_of, pictures, tracks
from training.latents import cache_latents, encoder_digest
from training.loop import Loop, LoopConfig, averaged_weights
from training.measures.efficientnet_lite import efficientnet_lite0
from training.measures.picture import tap_distance
from training.pictures import EYES, MOUTH, Pool, detail_corners, details, draw
from training.precision import half_precision
from training.shifts import shifted_to
from training.talks import Talks, talks_of
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES, EchoConfig
from visavis.nn.echo import arrays, load_echo, load_vae
from visavis.nn.painter import Painted
from visavis.nn.vae import VAE


@dataclass(frozen=True)
class VAETraining:
    """Settings of one VAE run."""

    size: str = "nano"
    batch: int = 4  # whole pictures
    details: int = 20  # mouths and eyes, half as many pixels a side
    mouth_share: float = 0.65  # of details
    track_share: float = 0.3  # of pictures: from conversations,
    still_share: float = 0.5  # of rendered people,
    recorded_share: float = 0.2  # of real ones
    eye_weight: float = 2.0  # in whole pictures
    mouth_weight: float = 3.0
    gradient_weight: float = 0.5
    squared_weight: float = 2.0
    moved_weight: float = 0.5  # of the moved portrait's error, painted over or not
    cover_weight: float = 0.03  # of painting: a blur is nearer to any hair than other hair is
    perceptual_weight: float = 0.05
    perceptual_details: int = 8  # of the details; their features cost as much as the VAE
    kl_weight: float = 1e-5
    latent_noise: float = 0.3  # standard deviation of the noise's strength, a latent's being 1,
    noisy_share: float = 0.5  # in this part of the batch
    augment: float = 0.5  # share of pictures that are moved, and of those that are recoloured
    decoder_only: bool = False  # leaves latents as they are, and all that was trained on them
    predicted: int = 2  # whole pictures of a network, if there is one,
    predicted_details: int = 12  # and details
    predicted_mouth_share: float = 0.25  # of these details
    predicted_mouth_weight: float = 0.0  # in these whole pictures
    report_every: int = 500
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=20000, learning_rate=1e-3))

    @property
    def shares(self) -> dict[str, float]:
        """How much of a batch comes from where."""
        return {
            "tracks": self.track_share,
            "stills": self.still_share,
            "recorded": self.recorded_share,
        }


MOVED_SCALES = (1, 4, 8)  # pixels a side that a moved portrait is compared by
PERCEPTUAL_TAPS = 3  # of EfficientNet-Lite0: edges and textures, at a half to an eighth


def detail_map(size: int, eye_weight: float, mouth_weight: float) -> Tensor:
    """(H, W) weights of an aligned crop: more over eyes and mouth, 1 elsewhere, soft edges."""
    y, x = np.mgrid[0:size, 0:size] / size
    eyes = np.exp(-(((x - EYES[0]) / 0.22) ** 4) - ((y - EYES[1]) / 0.09) ** 4)
    mouth = np.exp(-(((x - MOUTH[0]) / 0.15) ** 4) - ((y - MOUTH[1]) / 0.11) ** 4)
    weight = 1 + (eye_weight - 1) * eyes + (mouth_weight - 1) * mouth
    return torch.from_numpy(weight.astype(np.float32))


def inner_map(side: int) -> Tensor:
    """(S, S) weights of a detail: 1, but 0 in a margin where convolutions miss its surroundings."""
    weight, margin = torch.zeros(side, side), side // 8
    weight[margin:-margin, margin:-margin] = 1.0
    return weight


def reconstruction_loss(
    output: Tensor, target: Tensor, weight: Tensor, config: VAETraining
) -> Tensor:
    """Weighted error of pictures (B, 3, H, W) and of their spatial gradients."""
    error = output - target
    horizontal = (error[..., 1:] - error[..., :-1]) * weight[:, 1:]
    vertical = (error[..., 1:, :] - error[..., :-1, :]) * weight[1:]
    return (
        (weight * error.abs()).mean()
        + config.squared_weight * (weight * error**2).mean()
        + config.gradient_weight * (horizontal.abs().mean() + vertical.abs().mean())
    )


def perceptual_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean distance of features of details (B, 3, S, S) in [0, 1], their margins left out."""
    network, margin = efficientnet_lite0(), output.shape[-1] // 8
    inner = slice(margin, -margin)
    ours, theirs = (
        network.first_taps(images[..., inner, inner] * 2 - 1, PERCEPTUAL_TAPS)
        for images in (output, target)
    )
    return tap_distance(ours, theirs).mean()


@dataclass(frozen=True)
class Weights:
    """Where errors count: (H, W) of whole pictures, (S, S) of details."""

    whole: Tensor
    predicted: Tensor  # of whole pictures too
    detail: Tensor

    @classmethod
    def of(cls, settings: VAETraining, device: torch.device) -> Weights:
        """The maps of a size."""
        size = SIZES[settings.size]().image_size
        whole, predicted = (
            detail_map(size, settings.eye_weight, mouth_weight).to(device)
            for mouth_weight in (settings.mouth_weight, settings.predicted_mouth_weight)
        )
        return cls(whole, predicted, inner_map(size // 2).to(device))


def whole_losses(
    vae: VAE, pairs: Tensor, weights: Weights, settings: VAETraining
) -> dict[str, Tensor]:
    """The losses of pairs of whole pictures (B, 2, 3, H, W)."""
    painted, kl = reconstruct(vae, pairs, settings)
    loss = painting_loss(painted, pairs[:, 1], weights.whole, settings)
    return {"loss": loss + settings.kl_weight * kl, "kl": kl.detach()}


def detail_losses(
    vae: VAE, pairs: Tensor, weights: Weights, settings: VAETraining
) -> dict[str, Tensor]:
    """The losses of pairs of details (D, 2, 3, S, S)."""
    painted, kl = reconstruct(vae, pairs, settings)
    loss, perceptual = closely(painted, pairs[:, 1], weights, settings)
    return {"loss": loss + settings.kl_weight * kl, "perceptual": perceptual.detach()}


def closely(
    painted: Painted, target: Tensor, weights: Weights, settings: VAETraining
) -> tuple[Tensor, Tensor]:
    """The loss of painted details, and the distance of some of them to the targets (D, 3, S, S)."""
    some = slice(settings.perceptual_details)
    perceptual = perceptual_loss(painted.images[some], target[some])
    painting = painting_loss(painted, target, weights.detail, settings)
    return painting + settings.perceptual_weight * perceptual, perceptual


def painting_loss(
    painted: Painted, target: Tensor, weight: Tensor, settings: VAETraining
) -> Tensor:
    """Error of the pictures (B, 3, H, W), and some of the portrait's that was moved into them: it
    learns to move where it is painted over too.

    Fine texture says nothing of where to go once it is some pixels off, so the moved portrait is
    compared coarsely as well.
    """
    off = weight * (painted.moved_portrait - target)
    moved = torch.stack([F.avg_pool2d(off, scale).abs().mean() for scale in MOVED_SCALES]).sum()
    images = reconstruction_loss(painted.images, target, weight, settings)
    cover = (painted.cover * (weight > 0)).mean()
    return images + settings.moved_weight * moved + settings.cover_weight * cover


def reconstruct(
    vae: VAE, pairs: Tensor, settings: VAETraining, latents: Tensor | None = None
) -> tuple[Painted, Tensor]:
    """What comes back of the latter of pairs (B, 2, 3, H, W), with noise on the latents of some;
    and the KL, 0 of latents (B, 2, C, h, w) that are given."""
    with half_precision(pairs.device):
        if latents is None:
            posterior = vae.posterior(pairs.flatten(0, 1))
            mean, log_variance = (x.float().unflatten(0, (-1, 2)) for x in posterior)
            deviation, kl = torch.exp(0.5 * log_variance[:, 1]), kl_loss(mean, log_variance)
        else:
            mean = vae.raw(latents)
            deviation, kl = torch.zeros_like(mean[:, 1]), mean.new_zeros(())
        one_each = pairs.new_empty(len(pairs), 1, 1, 1)
        noisy = torch.rand_like(one_each) < settings.noisy_share
        strength = settings.latent_noise * torch.randn_like(one_each).abs() * noisy
        spread = mean.std(dim=(0, 1, 3, 4), keepdim=True)[:, 0]  # so larger ones buy no silence
        deviation = torch.sqrt(deviation**2 + (strength * spread) ** 2)
        noised = mean[:, 1] + deviation * torch.randn_like(deviation)
        painted = vae.decoder(noised, mean[:, 0], pairs[:, 0])
    return Painted(*(images.float() for images in painted)), kl


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the standard normal, a latent value."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


@torch.inference_mode()
def validate(vae: VAE, pairs: Tensor) -> tuple[dict[str, float], Tensor]:
    """PSNR in dB over pairs of pictures (B, 2, 3, H, W), whole and at the mouth; and what comes
    back of the latter ones."""
    images, parts = pairs[:, 1], []
    for some in pairs.split(16):
        latents, reference = vae.encode(some[:, 1]), vae.encode(some[:, 0])
        parts.append(vae.decode(latents, reference, some[:, 0]).clamp(0, 1))
    decoded = torch.cat(parts)
    size, side = images.shape[-1], images.shape[-1] // 4
    left, top = (round(center * size - side / 2) for center in MOUTH)
    mouth = (..., slice(top, top + side), slice(left, left + side))
    return {
        "held_out_psnr_db": psnr(decoded, images),
        "held_out_mouth_psnr_db": psnr(decoded[mouth], images[mouth]),
    }, decoded


def psnr(output: Tensor, target: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures (B, 3, H, W) in [0, 1]."""
    error = ((output - target) ** 2).mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(error + 1e-10)).mean())


def sheet(pairs: Tensor, decoded: Tensor) -> np.ndarray:
    """(3·H, B·W, 3) uint8: portraits, pictures and what came back of them (B, 3, H, W)."""
    rows = [torch.cat(list(row), dim=2) for row in (pairs[:, 0], pairs[:, 1], decoded)]
    picture = torch.cat(rows, dim=1).permute(1, 2, 0).cpu().numpy()
    return (picture * 255).round().astype(np.uint8)


def measure_statistics(vae: VAE, pool: Pool, settings: VAETraining, count: int = 2048) -> None:
    """Set the VAE's latent mean and standard deviation from training pictures, a channel each."""
    torch.manual_seed(0)
    with torch.inference_mode():
        drawn = [draw(pool, settings.shares, 16, 0.0) for _ in range(count // 32)]
        means = torch.cat([vae.posterior(pairs_of(pairs).flatten(0, 1))[0] for pairs in drawn])
    vae.latent_mean.copy_(means.mean(dim=(0, 2, 3))[:, None, None])
    vae.latent_std.copy_(means.std(dim=(0, 2, 3))[:, None, None].clamp(min=1e-3))


def pairs_of(frames: np.ndarray) -> Tensor:
    """(B, 2, H, W, 3) uint8 -> (B, 2, 3, H, W) float32 in [0, 1]."""
    return images_of(frames.reshape(-1, *frames.shape[2:])).unflatten(0, (-1, 2))


def predicted_losses(
    vae: VAE, talks: Talks, weights: Weights, settings: VAETraining
) -> dict[str, Tensor]:
    """The losses of what a network predicted, in `predicted` all of them."""
    near = predicted_detail_losses(vae, talks, weights, settings)
    pairs, latents = talks.draw(settings.predicted)
    seen, device = pairs_of(pairs), weights.whole.device
    known = torch.from_numpy(latents).movedim(-1, 2).to(device)
    painted, _ = reconstruct(vae, seen.to(device), settings, known)
    whole = painting_loss(painted, seen[:, 1].to(device), weights.predicted, settings)
    return near | {"predicted": near["predicted"] + whole}


def predicted_detail_losses(
    vae: VAE, talks: Talks, weights: Weights, settings: VAETraining
) -> dict[str, Tensor]:
    """The losses of predicted mouths and eyes, compared where they fit best."""
    side, device = weights.detail.shape[-1], weights.detail.device
    pairs, latents = talks.draw(settings.predicted_details)
    size, step = pairs.shape[2], pairs.shape[2] // latents.shape[2]
    corners = detail_corners(len(pairs), size, side, step, settings.predicted_mouth_share)
    cut = torch.from_numpy(details(latents, corners // step, side // step)).movedim(-1, 2)
    parts = pairs_of(details(pairs, corners, side)).to(device)
    painted, _ = reconstruct(vae, parts, settings, cut.to(device))
    target = shifted_to(parts[:, 1], painted.images, side // 16, weights.detail)
    loss, perceptual = closely(painted, target, weights, settings)
    return {"predicted": loss, "perceptual_predicted": perceptual.detach()}


def train(
    cache: Path,
    run: Path,
    settings: VAETraining,
    start: Path | None = None,
    echo: Path | None = None,
) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`.

    `start` is a VAE's checkpoint to begin with, instead of random weights. With `echo`, a network
    trained on its latents, the decoder learns to paint what that predicts, too.
    """
    if echo is not None and (start is None or not settings.decoder_only):
        raise ValueError(
            "echo: got a network beside an encoder in training, expected latents that stay those "
            "it was trained on; give the VAE's checkpoint to begin with and set decoder_only"
        )
    config = SIZES[settings.size]()
    pool, held_out = pictures(cache, "train"), pictures(cache, "test")
    talks = None
    if echo is not None and start is not None:
        cache_latents(cache, start)
        talks = talks_of(load_echo(echo), tracks(cache, "train"), run / "predictions")
    torch.manual_seed(settings.loop.seed)
    vae = VAE(config) if start is None else load_vae(start).train()
    vae.encoder.requires_grad_(not settings.decoder_only)
    loop = Loop(run, vae.to(memory_format=torch.channels_last), settings.loop)  # pyright: ignore
    (run / "training.json").write_text(configs.to_json(settings))
    side, step = config.image_size // 2, config.image_size // config.latent_size
    weights = Weights.of(settings, loop.device)

    def losses() -> dict[str, Tensor]:
        frames = draw(pool, settings.shares, settings.batch + settings.details, settings.augment)
        whole, others = frames[: settings.batch], frames[settings.batch :]
        corners = detail_corners(len(others), config.image_size, side, step, settings.mouth_share)
        parts = details(others, corners, side)
        seen, near = (pairs_of(some).to(loop.device) for some in (whole, parts))
        whole_found = whole_losses(loop.model, seen, weights, settings)
        found = detail_losses(loop.model, near, weights, settings)
        loss = whole_found["loss"] + found["loss"]
        if talks is not None:
            told = predicted_losses(loop.model, talks, weights, settings)
            loss = loss + told["predicted"]
            found |= {name: figure.detach() for name, figure in told.items()}
        return {**whole_found, **found, "loss": loss}

    for _ in loop:
        loop.update(losses)
        if loop.due(settings.report_every):
            report(loop, held_out, settings)
    return loop.conclude(lambda: finish(loop, config, pool, held_out, settings, start))


def report(loop: Loop[VAE], held_out: Pool, settings: VAETraining) -> None:
    """Log the averaged network's PSNR on people never trained on, with a sheet to look at."""
    torch.manual_seed(1)
    pairs = pairs_of(draw(held_out, settings.shares, 32, 0.0)).to(loop.device)
    figures, decoded = validate(loop.averaged, pairs)
    loop.log(**figures)
    loop.show("reconstruction", sheet(pairs[:8], decoded[:8]))


def finish(
    loop: Loop[VAE],
    config: EchoConfig,
    pool: Pool,
    held_out: Pool,
    settings: VAETraining,
    start: Path | None,
) -> Path:
    """The averaged weights with their latent statistics, as a checkpoint folder.

    With the decoder alone trained, latents keep their statistics, and the manifest says whose
    encoder it is, so that cached latents stay good.
    """
    vae = VAE(config)
    vae.load_state_dict(averaged_weights(loop.folder)[0])
    vae.eval()
    facts: dict[str, object] = {}
    if settings.decoder_only and start is not None:
        facts["encoder_of"] = encoder_digest(start)
    else:
        measure_statistics(vae, pool, settings)
    torch.manual_seed(2)
    return keep(loop, config, vae, pairs_of(draw(held_out, settings.shares, 128, 0.0)), **facts)


def keep(
    loop: Loop[VAE], config: EchoConfig, vae: VAE, held_out_pairs: Tensor, **facts: object
) -> Path:
    """A trained VAE as the checkpoint folder of its run, with its figures on held-out pairs."""
    figures, _ = validate(vae, held_out_pairs)
    rounded = {name: round(value, 2) for name, value in figures.items()}
    return checkpoint.save(
        loop.folder / "checkpoint", "vae", config, arrays(vae), step=loop.step, **facts, **rounded
    )


def main(
    cache: Path,
    run: Path,
    config: Path,
    start: Start = None,
    echo: Annotated[
        Path | None, typer.Option(help="A network whose predictions the decoder learns to paint.")
    ] = None,
    threads: int = 2,
) -> None:
    """Train the VAE from a settings file, such as training/configs/nano_vae.json."""
    run_trainer(
        VAETraining, config, threads, lambda settings: train(cache, run, settings, start, echo)
    )


if __name__ == "__main__":
    typer.run(main)
