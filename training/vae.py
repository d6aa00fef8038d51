"""This is where the VAE is trained: `python -m training.vae CACHE RUN CONFIG`.

Loss: absolute and squared error and their spatial gradients, with eyes and mouth weighing more (the
crops are aligned, so their place is known), and a very small Kullback-Leibler term. PSNR is printed
to follow progress; it does not choose anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import typer
from torch import Tensor

from training.data import images_of, pictures
from training.loop import Loop, LoopConfig, averaged_weights
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES, EchoConfig
from visavis.nn.vae import VAE


@dataclass(frozen=True)
class VAETraining:
    """Settings of one VAE run."""

    size: str = "pico"
    batch: int = 16
    eye_weight: float = 3.0
    mouth_weight: float = 3.0
    gradient_weight: float = 0.5
    squared_weight: float = 2.0
    kl_weight: float = 1e-5
    augment: float = 0.5  # share of pictures whose colours are changed
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=6000, learning_rate=2e-3))


def detail_map(size: int, eye_weight: float, mouth_weight: float) -> Tensor:
    """(H, W) weights of an aligned crop: more over eyes and mouth, 1 elsewhere, soft edges."""
    y, x = np.mgrid[0:size, 0:size] / size
    eyes = np.exp(-(((x - 0.5) / 0.22) ** 4) - ((y - 0.41) / 0.09) ** 4)
    mouth = np.exp(-(((x - 0.5) / 0.15) ** 4) - ((y - 0.69) / 0.11) ** 4)
    weight = 1 + np.maximum((eye_weight - 1) * eyes, (mouth_weight - 1) * mouth)
    return torch.from_numpy(weight.astype(np.float32))


def draw(pool: list[np.ndarray], batch: int, augment: float) -> Tensor:
    """A batch of pictures (B, 3, H, W) float32 in [0, 1], some recoloured.

    pool: (N, H, W, 3) uint8 each; every member is drawn from equally often.
    """
    chosen = torch.randint(len(pool), (batch,)).tolist()
    frames = [pool[i][int(torch.randint(len(pool[i]), ()))] for i in chosen]
    images = images_of(np.stack(frames))
    flipped = torch.rand(batch) < 0.5
    images[flipped] = images[flipped].flip(-1)
    changed = torch.rand(batch) < augment
    images[changed] = recolour(images[changed])
    return images


def recolour(images: Tensor) -> Tensor:
    """Random gain and gamma a channel: other skins, lights and cameras than the corpus has."""
    gain = torch.empty(len(images), 3, 1, 1).uniform_(0.7, 1.25)
    gamma = torch.exp(torch.empty(len(images), 1, 1, 1).uniform_(-0.4, 0.4))
    return (images.clamp(min=1e-4) ** gamma * gain).clamp(0, 1)


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


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the standard normal, a latent value."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


@torch.inference_mode()
def validate(vae: VAE, images: Tensor) -> tuple[float, Tensor]:
    """PSNR in dB over pictures (B, 3, H, W), and their reconstructions."""
    decoded = torch.cat([vae.decode(vae.encode(part)).clamp(0, 1) for part in images.split(16)])
    error = ((decoded - images) ** 2).mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(error + 1e-10)).mean()), decoded


def save_pairs(path: Path, images: Tensor, decoded: Tensor) -> None:
    """A sheet: originals above reconstructions."""
    rows = [torch.cat(list(row), dim=2) for row in (images, decoded)]
    sheet = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    cv2.imwrite(str(path), (sheet[..., ::-1] * 255).round().astype(np.uint8))


def measure_statistics(vae: VAE, pool: list[np.ndarray], count: int = 2048) -> None:
    """Set the VAE's latent mean and standard deviation from training pictures, a channel each."""
    torch.manual_seed(0)
    with torch.inference_mode():
        drawn = [draw(pool, 32, 0.0) for _ in range(count // 32)]
        means = torch.cat([vae.posterior(images)[0] for images in drawn])
    vae.latent_mean.copy_(means.mean(dim=(0, 2, 3))[:, None, None])
    vae.latent_std.copy_(means.std(dim=(0, 2, 3))[:, None, None].clamp(min=1e-3))


def train(cache: Path, run: Path, settings: VAETraining) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    config = SIZES[settings.size]()
    pool, held_out = pictures(cache, "train"), pictures(cache, "test")
    torch.manual_seed(settings.loop.seed)
    vae = VAE(config).to(memory_format=torch.channels_last)  # pyright: ignore
    loop = Loop(run, vae, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))
    weight = detail_map(config.image_size, settings.eye_weight, settings.mouth_weight)
    for step in loop:
        images = draw(pool, settings.batch, settings.augment)
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = vae.posterior(images)
            noise = torch.randn_like(mean)
            output = vae.decoder(mean + torch.exp(0.5 * log_variance) * noise)
        reconstruction = reconstruction_loss(output.float(), images, weight, settings)
        kl = kl_loss(mean.float(), log_variance.float())
        loop.update(reconstruction + settings.kl_weight * kl, kl=kl)
        if (step + 1) % 500 == 0:
            report(loop, held_out, step + 1)
    return finish(run, config, pool, held_out, loop.step)


def report(loop: Loop, held_out: list[np.ndarray], step: int) -> None:
    """Log the averaged network's PSNR on people never trained on, with a sheet to look at."""
    torch.manual_seed(1)
    images = draw(held_out, 32, 0.0)
    psnr, decoded = validate(loop.averaged, images)
    loop.log(held_out_psnr_db=psnr)
    save_pairs(loop.folder / "samples" / f"step_{step:06d}.png", images[:8], decoded[:8])


def finish(
    run: Path, config: EchoConfig, pool: list[np.ndarray], held_out: list[np.ndarray], step: int
) -> Path:
    """The averaged weights with their latent statistics, as a checkpoint folder."""
    vae = VAE(config)
    vae.load_state_dict(averaged_weights(run)[0])
    vae.eval()
    measure_statistics(vae, pool)
    torch.manual_seed(2)
    psnr, _ = validate(vae, draw(held_out, 128, 0.0))
    arrays = {name: tensor.numpy() for name, tensor in vae.state_dict().items()}
    return checkpoint.save(
        run / "checkpoint", "vae", config, arrays, step=step, held_out_psnr_db=round(psnr, 2)
    )


def main(cache: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train the VAE from a settings file, such as training/configs/pico_vae.json."""
    torch.set_num_threads(threads)
    settings = configs.load(VAETraining, config)
    folder = train(cache, run, settings)
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
