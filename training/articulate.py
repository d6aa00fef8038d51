"""This is where the denoiser learns what a mouth does at a voice, before any face is made of it.

    python -m training.articulate CACHE VAE_CHECKPOINT RUN CONFIG [--from ECHO_CHECKPOINT]

Through the denoiser alone it learns this slowly: on two cores it saw an hour of speech once, and
its lips followed voices at r = 0.76 where a small network that saw only the voice, nine times,
came to 0.88. So `visavis.nn.articulation.Articulation` is taught by itself how far the mouth is
open in each frame, which every corpus knows, and from then on stays as it is.

Stage 1 begins with the checkpoint (`--from`). A network that has been trained without can be given
one, too: its other weights stay as they are, and until it is trained on, so does what it does.

Legend: B blocks, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor, nn

from training.batches import Place, draw_places
from training.command import Start, Stream, run_trainer
from training.data import Track, tracks
from training.loop import Loop, LoopConfig
from training.probe import correlation
from training.stage1 import some_of, teach
from training.streaming import training_pool
from visavis import checkpoint
from visavis import config as configs
from visavis.config import SIZES
from visavis.nn.echo import Echo, tensors

PART = "articulation"


@dataclass(frozen=True)
class Articulating:
    """Settings of one run."""

    size: str = "nano"  # without a checkpoint to begin with
    batch: int = 100  # blocks
    dropout: float = 0.3  # of an hour's voices every word is soon known
    speaking_share: float = 0.6  # of blocks drawn where the person speaks
    report_every: int = 500
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1500, learning_rate=1e-3, weight_decay=0.05, warmup_steps=50, ema_decay=0.99
        )
    )


def beginning(size: str, start: Path | None) -> Echo:
    """Untrained weights, or those of a checkpoint, with the part untrained if it had none."""
    if start is None:
        return Echo(SIZES[size]())
    found = checkpoint.load(start, "echo")
    without = tuple(part for part in found.config.without if part != PART)
    echo = Echo(replace(found.config, without=without))
    own = {name: weight for name, weight in echo.state_dict().items() if PART in name}
    echo.load_state_dict(own | tensors(found))
    return echo


def opening(track: Track, first: int, frames: int, scale: float) -> np.ndarray:
    """(frames,) float32: how far the mouth is open, less the track's mean, in deviations."""
    aperture = track.truth["aperture"]
    return ((aperture[first : first + frames] - aperture.mean()) / scale).astype(np.float32)


def scale_of(pool: Sequence[Track]) -> float:
    """The standard deviation of apertures within tracks."""
    return float(np.sqrt(np.mean([np.var(track.truth["aperture"]) for track in pool])))


def articulation_loss(echo: Echo, places: Sequence[Place], scale: float) -> Tensor:
    """The squared error of what is read in the voice against how far the mouths are open."""
    frames = echo.config.block_frames
    features = np.stack([place.track.avatar_features[place.block] for place in places])
    true = np.stack([opening(p.track, p.block * frames, frames, scale) for p in places])
    read = readings(echo, torch.from_numpy(features.astype(np.float32)).to(echo.device))
    return (read - torch.from_numpy(true).to(echo.device)).square().mean()


def set_dropout(network: nn.Module, share: float) -> None:
    """How much a network forgets in training."""
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = share


def readings(echo: Echo, features: Tensor) -> Tensor:
    """(B, F): how far a mouth opens at the voice's features (B, A, D)."""
    return echo.sdcm_denoiser.articulation(features)[..., 0]


@torch.inference_mode()
def report(echo: Echo, held_out: Sequence[Track]) -> dict[str, float]:
    """Pearson's r of the readings with the mouths of people never heard: at all times, in speech,
    and of the worst of them."""
    echo.eval()
    at_all_times, in_speech = [], []
    for track in held_out:
        features = torch.from_numpy(np.asarray(track.avatar_features, np.float32))
        read = readings(echo, features.to(echo.device)).flatten().cpu().numpy()
        true, speaking = (track.truth[name][: len(read)] for name in ("aperture", "speaking"))
        at_all_times.append(correlation(read, true))
        in_speech.append(correlation(read[speaking > 0], true[speaking > 0]))
    return {
        "aperture_r": float(np.mean(at_all_times)),
        "aperture_r_speaking": float(np.mean(in_speech)),
        "aperture_r_worst": float(np.min(at_all_times)),
    }


def train(
    cache: Path,
    vae: Path,
    run: Path,
    settings: Articulating,
    *,
    stream: str = "",
    start: Path | None = None,
) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`.

    All else stays as it is in the checkpoint `start`, or untrained without one. For `stream` see
    `training.stage2`.
    """
    held_out = tracks(cache, "test")
    torch.manual_seed(settings.loop.seed)
    echo = beginning(settings.size, start).train()
    echo.requires_grad_(False)
    echo.sdcm_denoiser.articulation.requires_grad_(True)
    set_dropout(echo.sdcm_denoiser.articulation, settings.dropout)
    loop = Loop(run, echo, settings.loop)
    pool = training_pool(cache, vae, loop, stream)
    (run / "training.json").write_text(configs.to_json(settings))
    scale = scale_of(some_of(pool))

    def losses() -> dict[str, Tensor]:
        places = draw_places(pool, settings.batch, echo.config, settings.speaking_share)
        return {"loss": articulation_loss(loop.model, places, scale)}

    def figures(trained: Echo) -> dict[str, float]:
        return report(trained, held_out)

    return teach(loop, losses, figures, lambda: None, settings.report_every)


def main(
    cache: Path,
    vae: Path,
    run: Path,
    config: Path,
    start: Start = None,
    stream: Stream = "",
    threads: int = 2,
) -> None:
    """Train from a settings file, such as training/configs/nano_articulate.json."""
    run_trainer(
        Articulating,
        config,
        threads,
        lambda settings: train(cache, vae, run, settings, stream=stream, start=start),
    )


if __name__ == "__main__":
    typer.run(main)
