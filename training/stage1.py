"""This is where stage 1 is trained: the talking head, from the avatar's own voice alone.

    python -m training.stage1 CACHE VAE_CHECKPOINT RUN CONFIG

The user is absent (its learned absence stands in), so the denoiser learns lips, identity and motion
first; stage 2 then teaches it to listen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor

from training.batches import Place, batch_of, draw_places
from training.data import Track, tracks
from training.denoising import (
    Conditions,
    ContextConfig,
    denoise,
    half_precision,
    previous_latents,
)
from training.latents import cache_latents
from training.loop import Loop, LoopConfig, averaged_weights
from training.losses import FlowConfig, flow_loss, noisy
from training.probe import correlation, fit_probe
from training.rollout import RolloutConfig, rollout
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES, EchoConfig
from visavis.nn.echo import Echo, arrays

# Parts of the denoiser that only a listener needs: stage 2 trains them.
LISTENING_PARTS = ("user_attention", "user_conv", "user_absent", "affect_project")


@dataclass(frozen=True)
class Stage1Training:
    """Settings of one stage-1 run."""

    size: str = "pico"
    batch: int = 32
    speaking_share: float = 0.7  # of blocks drawn where the person speaks
    audio_dropout: float = 0.1  # for guidance
    report_every: int = 600
    context: ContextConfig = field(default_factory=ContextConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(learning_rate=6e-4))


def talking_loss(
    echo: Echo, places: list[Place], conditions: Conditions, settings: Stage1Training
) -> Tensor:
    """The flow-matching loss of one batch of blocks."""
    batch = batch_of(places, echo.config)
    previous = previous_latents(echo, places, batch, conditions, settings.context)
    x_t, t = noisy(batch.x_0, settings.flow)
    with half_precision():
        x_0 = denoise(echo, x_t, t, batch, previous, conditions)
    return flow_loss(x_0, batch.x_0, batch.previous_latents[:, -1], t, settings.flow)


def speaks(name: str) -> bool:
    """Whether a parameter of Echo is trained by stage 1."""
    talking = name.startswith(("sdcm_denoiser", "reference_encoder"))
    return talking and not any(part in name for part in LISTENING_PARTS)


def nobody(config: EchoConfig, batch: int) -> tuple[Tensor, Tensor]:
    """User and affect tokens of an avatar that has nobody to listen to: zeros."""
    lcu, affect = config.lcu, config.affect
    return (
        torch.zeros(batch, config.block_frames, lcu.tokens_per_frame, lcu.width),
        torch.zeros(batch, affect.tokens, affect.width),
    )


def train(cache: Path, vae: Path, run: Path, settings: Stage1Training) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    config = SIZES[settings.size]()
    cache_latents(cache, vae)
    pool, held_out = tracks(cache, "train"), tracks(cache, "test")
    torch.manual_seed(settings.loop.seed)
    echo = Echo(config)
    for name, parameter in echo.named_parameters():
        parameter.requires_grad_(speaks(name))
    loop = Loop(run, echo, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))
    absent = nobody(config, settings.batch)
    for step in loop:
        places = draw_places(pool, settings.batch, config, settings.speaking_share)
        heard = (torch.rand(settings.batch, 1) >= settings.audio_dropout).float()
        present = torch.cat([heard, torch.zeros_like(heard)], dim=1)
        loop.update(talking_loss(echo, places, Conditions(*absent, present), settings))
        if (step + 1) % settings.report_every == 0:
            loop.log(**lip_report(loop.averaged, pool, held_out, with_user=False))
    return finish(run, echo, loop.step, lip_report(loop.averaged, pool, held_out, with_user=False))


def lip_report(
    echo: Echo, pool: list[Track], held_out: list[Track], *, with_user: bool
) -> dict[str, float]:
    """Audio-mouth correlation on held-out people, and what is left of it under another's voice."""
    echo.eval()
    probe = fit_probe(pool[:: max(1, len(pool) // 24)])
    settings = RolloutConfig(blocks=min(30, *(t.blocks for t in held_out)), with_user=with_user)
    frames = settings.blocks * echo.config.block_frames
    swapped = held_out[1:] + held_out[:1]

    def against(truths: list[Track], latents: Tensor) -> float:
        pairs = zip(truths, latents.numpy(), strict=True)
        return float(
            np.mean([correlation(probe(z), t.truth["aperture"][:frames]) for t, z in pairs])
        )

    own = rollout(echo, held_out, settings)
    other = rollout(echo, held_out, settings, voices=swapped)
    true = torch.stack([torch.from_numpy(t.latents[:frames].astype(np.float32)) for t in held_out])
    amplitude = np.mean(
        [probe(z).std() / probe(g).std() for z, g in zip(own.numpy(), true.numpy(), strict=True)]
    )
    return {
        "mouth_r": against(held_out, own),
        "mouth_r_swapped_voice": against(swapped, other),
        "mouth_r_ceiling": against(held_out, true),
        "mouth_amplitude": float(amplitude),
    }


def finish(run: Path, echo: Echo, step: int, metrics: dict[str, float]) -> Path:
    """The averaged weights as a checkpoint folder."""
    echo.load_state_dict(averaged_weights(run)[0])
    rounded = {name: round(value, 4) for name, value in metrics.items()}
    return checkpoint.save(
        run / "checkpoint", "echo", echo.config, arrays(echo), step=step, metrics=rounded
    )


def main(cache: Path, vae: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train stage 1 from a settings file, such as training/configs/pico_stage1.json."""
    torch.set_num_threads(threads)
    folder = train(cache, vae, run, configs.load(Stage1Training, config))
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
