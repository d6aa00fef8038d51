"""This is where the VAE's decoder learns the denoiser's own latents.

    python -m training.decoder CACHE VAE_CHECKPOINT ECHO_CHECKPOINT RUN CONFIG

A denoiser that is unsure predicts something in between: latents a little too small, which a decoder
that has only seen an encoder's turns into mouths that hardly open. Here every training track is
predicted block by block from its true past, once, and the decoder learns to make the true frames
out of these predictions, and out of true latents as before. The encoder stays as it is, so nothing
else needs to be trained again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.data import Track, images_of, tracks
from training.latents import cache_latents
from training.loop import Loop, LoopConfig, averaged_weights
from training.rollout import RolloutConfig, rollout
from training.vae import VAETraining, detail_map, reconstruction_loss, save_pairs
from visavis import checkpoint
from visavis import config as configs
from visavis.checkpoint import Checkpoint
from visavis.config import EchoConfig
from visavis.nn.echo import Echo, arrays, load_echo, load_vae
from visavis.nn.vae import VAE

AT_ONCE = 12  # tracks predicted together


@dataclass(frozen=True)
class DecoderTraining:
    """Settings of one run."""

    batch: int = 12
    predicted_share: float = 0.7  # of a batch; the others are true latents
    track_blocks: int = 120  # from the beginning of every training track (24 s)
    loss: VAETraining = field(default_factory=VAETraining)  # its weights of errors
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1500, learning_rate=5e-4))


def predictions(echo: Echo, pool: list[Track], blocks: int) -> list[Tensor]:
    """(T, C, h, w) of each track: what the denoiser makes of every block after the true one."""
    echo.eval()
    found: list[Tensor] = []
    for first in tqdm(range(0, len(pool), AT_ONCE), desc="predictions", unit="group"):
        group = pool[first : first + AT_ONCE]
        settings = RolloutConfig(
            blocks=min(blocks, *(track.blocks for track in group)), teacher_forced=True, seed=first
        )
        found += list(rollout(echo, group, settings))
    return found


def draw(
    pool: list[Track], predicted: list[Tensor], batch: int, predicted_share: float
) -> tuple[Tensor, Tensor]:
    """Latents (B, C, h, w), most of them predicted, and the frames (B, 3, H, W) they stand for."""
    latents, frames = [], []
    for index in torch.randint(len(pool), (batch,)).tolist():
        moment = int(torch.randint(len(predicted[index]), ()))
        true = torch.from_numpy(pool[index].latents[moment].astype(np.float32))
        is_predicted = torch.rand(()) < predicted_share
        latents.append(predicted[index][moment] if is_predicted else true)
        frames.append(pool[index].frames[moment])
    return torch.stack(latents), images_of(np.stack(frames))


def train(cache: Path, vae: Path, echo: Path, run: Path, settings: DecoderTraining) -> Path:
    """Train, or go on training, and write the VAE's checkpoint folder `run/checkpoint`."""
    cache_latents(cache, vae)
    pool = tracks(cache, "train")
    predicted = predictions(load_echo(echo), pool, settings.track_blocks)
    before = checkpoint.load(vae, "vae")
    network = load_vae(vae).to(memory_format=torch.channels_last).train()  # pyright: ignore
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("decoder"))
    loop = Loop(run, network, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))
    size, loss = before.config.image_size, settings.loss
    weight = detail_map(size, loss.eye_weight, loss.mouth_weight)
    for step in loop:
        latents, pictures = draw(pool, predicted, settings.batch, settings.predicted_share)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = network.decode(latents)
        loop.update(reconstruction_loss(decoded.float(), pictures, weight, loss))
        if (step + 1) % 500 == 0:
            show(loop, pool, predicted)
    return finish(run, before, network, loop.step)


@torch.inference_mode()
def show(loop: Loop[VAE], pool: list[Track], predicted: list[Tensor]) -> None:
    """A sheet: true training frames above what the averaged decoder makes of predictions."""
    torch.manual_seed(1)
    latents, pictures = draw(pool, predicted, 8, 1.0)
    decoded = loop.averaged.decode(latents).clamp(0, 1)
    save_pairs(loop.folder / "samples" / f"step_{loop.step + 1:06d}.png", pictures, decoded)


def finish(run: Path, before: Checkpoint[EchoConfig], network: VAE, step: int) -> Path:
    """The averaged weights as a checkpoint folder; it says which VAE it came from."""
    network.load_state_dict(averaged_weights(run)[0])
    return checkpoint.save(
        run / "checkpoint",
        "vae",
        before.config,
        arrays(network),
        step=step,
        encoder_of=before.manifest["sha256"],
    )


def main(cache: Path, vae: Path, echo: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train the decoder from a settings file, such as training/configs/nano_decoder.json."""
    torch.set_num_threads(threads)
    folder = train(cache, vae, echo, run, configs.load(DecoderTraining, config))
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
