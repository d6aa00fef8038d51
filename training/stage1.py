"""This is where stage 1 is trained: the talking head, from the avatar's own voice alone.

    python -m training.stage1 CACHE VAE_CHECKPOINT RUN CONFIG

The user is absent (its learned absence stands in), so the denoiser learns lips, identity and motion
first; stage 2 then teaches it to listen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor

from training.batches import Place, batch_of, draw_places
from training.command import Start, Stream, run_trainer
from training.contexts import ContextConfig, previous_latents
from training.data import Track, tracks
from training.denoising import Conditions, denoise, nobody
from training.latents import cache_latents, decode
from training.loop import Loop, LoopConfig, averaged_weights
from training.losses import FlowConfig, flow_loss, noisy
from training.precision import half_precision
from training.probe import correlation, fit_probe
from training.rollout import RolloutConfig, rollout
from training.streaming import training_pool
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES
from visavis.nn.echo import Echo, arrays, load_echo, load_vae

# Parts of the denoiser that only a listener needs: stage 2 trains them.
LISTENING_PARTS = (
    "user_attention",
    "user_conv",
    "user_project",
    "user_absent",
    "affect_project",
    "affect_modulation",
    "affect_input",
)
HEARING_PARTS = ("sdcm_denoiser.articulation.",)  # that `training.articulate` trains
SHOWN_BLOCKS = 25  # of a held-out track in sample films


@dataclass(frozen=True)
class Stage1Training:
    """Settings of one stage-1 run."""

    size: str = "nano"
    without: tuple[str, ...] = ()  # parts of ECHO that are left out, see `visavis.config.PARTS`
    batch: int = 20
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
    batch = batch_of(places, echo.config, echo.device)
    previous, strayed = previous_latents(echo, places, batch, conditions, settings.context)
    x_t, t = noisy(batch.x_0, settings.flow)
    with half_precision(echo.device):
        x_0 = denoise(echo, x_t, t, batch, previous, conditions)
    return flow_loss(x_0, batch.x_0, strayed, t, settings.flow)


def speaks(name: str) -> bool:
    """Whether a parameter of Echo is trained by stage 1."""
    talking = name.startswith(("sdcm_denoiser", "reference_encoder"))
    return talking and not any(part in name for part in (*LISTENING_PARTS, *HEARING_PARTS))


def train(
    cache: Path,
    vae: Path,
    run: Path,
    settings: Stage1Training,
    *,
    stream: str = "",
    start: Path | None = None,
) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`.

    `stream` is where shards of a cache lie that is drawn from (`training.streaming`), in place of
    the cache's own training split; `start` a checkpoint to begin with, in place of random weights.
    """
    config = replace(SIZES[settings.size](), without=settings.without)
    cache_latents(cache, vae)
    held_out = tracks(cache, "test")
    torch.manual_seed(settings.loop.seed)
    echo = Echo(config) if start is None else load_echo(start).train()
    for name, parameter in echo.named_parameters():
        parameter.requires_grad_(speaks(name))
    loop = Loop(run, echo, settings.loop)
    pool = training_pool(cache, vae, loop, stream)
    (run / "training.json").write_text(configs.to_json(settings))

    def losses() -> dict[str, Tensor]:
        places = draw_places(pool, settings.batch, config, settings.speaking_share)
        heard = (torch.rand(settings.batch) >= settings.audio_dropout).float().to(loop.device)
        return {"loss": talking_loss(echo, places, nobody(config, heard), settings)}

    def figures(trained: Echo) -> dict[str, float]:
        settings = shown_rollout(held_out, with_user=False)
        own = rollout(trained.eval(), held_out, settings)
        return lip_report(trained, pool, held_out, own, settings)

    def show() -> None:
        film(loop, vae, held_out[0], with_user=False)

    return teach(loop, losses, figures, show, settings.report_every)


def teach(
    loop: Loop[Echo],
    losses: Callable[[], Mapping[str, Tensor]],
    figures: Callable[[Echo], dict[str, float]],
    show: Callable[[], None],
    report_every: int,
) -> Path:
    """Drive a run of Echo to its end and write the checkpoint folder `run/checkpoint`.

    Every `report_every` steps the `figures` of the averaged network are logged, and something is
    shown; the last ones are the checkpoint's.
    """
    for _ in loop:
        loop.update(losses)
        if loop.due(report_every):
            loop.log(**figures(loop.averaged))
            show()
    return loop.conclude(lambda: finish(loop.folder, loop.model, loop.step, figures(loop.averaged)))


def film(loop: Loop[Echo], vae: Path, track: Track, *, with_user: bool) -> None:
    """Keep a film of the averaged network: the true person left, the generated one right."""
    settings = RolloutConfig(blocks=min(SHOWN_BLOCKS, track.blocks), with_user=with_user)
    latents = rollout(loop.averaged, [track], settings)[0]
    frames = decode(load_vae(vae), latents, track.frames[0])
    loop.film("held_out", np.concatenate([track.frames[: len(frames)], frames], axis=2))


def some_of(pool: Sequence[Track], count: int = 48) -> Sequence[Track]:
    """About as many tracks of a pool, evenly spread, for what is fitted on their latents."""
    return pool[:: max(1, len(pool) // count)]


def shown_rollout(held_out: list[Track], *, with_user: bool) -> RolloutConfig:
    """What reports are about: six seconds of every held-out person, from their beginning."""
    return RolloutConfig(blocks=min(30, *(t.blocks for t in held_out)), with_user=with_user)


def lip_report(
    echo: Echo,
    pool: Sequence[Track],
    held_out: list[Track],
    own: Tensor,
    settings: RolloutConfig,
) -> dict[str, float]:
    """Audio-mouth correlation on held-out people, and what is left of it under another's voice.

    `own` (B, T, C, h, w) is the rollout by `settings` under their own voices.
    """
    probe = fit_probe(some_of(pool))
    frames = settings.blocks * echo.config.block_frames
    swapped = held_out[1:] + held_out[:1]

    def against(truths: list[Track], latents: Tensor) -> float:
        pairs = zip(truths, latents.numpy(), strict=True)
        return float(
            np.mean([correlation(probe(z), t.truth["aperture"][:frames]) for t, z in pairs])
        )

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


def main(
    cache: Path,
    vae: Path,
    run: Path,
    config: Path,
    start: Start = None,
    stream: Stream = "",
    threads: int = 2,
) -> None:
    """Train stage 1 from a settings file, such as training/configs/nano_stage1.json."""
    run_trainer(
        Stage1Training,
        config,
        threads,
        lambda settings: train(cache, vae, run, settings, stream=stream, start=start),
    )


if __name__ == "__main__":
    typer.run(main)
