"""This is where stage 2 is trained: the LCU, the user's cross-attention and the gate.

    python -m training.stage2 --cache DIR --vae CKPT --stage1 CKPT --run DIR --config FILE

From two-person conversations the avatar learns to listen. The LCU runs through a stretch of blocks,
its state carried as when serving; the loss is taken on the stretch's last blocks. What stage 1
learned goes on learning at a lower rate, so that lips stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer
from torch import Tensor

from training.batches import BlockBatch, affect_words, block_of, collate
from training.data import Track, tracks
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.losses import FlowConfig
from training.rollout import initial_lcu_state, listen
from training.stage1 import (
    LISTENING_PARTS,
    denoising_loss,
    finish,
    lip_report,
)
from visavis import checkpoint
from visavis import config as configs
from visavis.config import EchoConfig
from visavis.nn.echo import Echo, load_echo

# Besides these, the gate learns at the full rate: it now has two voices to weigh.
NEW_PARTS = ("lcu_encoder", "affect_encoder", "sdcm.gate", *LISTENING_PARTS)


@dataclass(frozen=True)
class Stage2Training:
    """Settings of one stage-2 run."""

    conversations: int = 12  # stretches in a batch
    stretch_blocks: int = 16  # blocks that the LCU hears before and during the loss (3.2 s)
    loss_blocks: int = 3  # of them, at the end, the blocks with a loss
    audio_dropout: float = 0.1
    user_dropout: float = 0.1
    old_rate: float = 0.2  # learning rate of what stage 1 trained, as a ratio
    context_noise: float = 0.4
    restart_share: float = 0.05
    report_every: int = 250
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=800, learning_rate=6e-4))


@dataclass(frozen=True)
class Stretch:
    """A run of blocks of one avatar's track."""

    track: Track
    first: int


def draw_stretches(pool: list[Track], settings: Stage2Training) -> list[Stretch]:
    """Random stretches of random tracks; some begin where the conversation does."""
    chosen = []
    for index in torch.randint(len(pool), (settings.conversations,)).tolist():
        last = max(1, pool[index].blocks - settings.stretch_blocks + 1)
        first = int(torch.randint(last, ())) if torch.rand(()) > 0.1 else 0
        chosen.append(Stretch(pool[index], first))
    return chosen


def hear(echo: Echo, stretches: list[Stretch], settings: Stage2Training) -> list[Tensor]:
    """f_pu (B, F, K, D) of each loss block, the LCU having heard the stretch up to it."""
    state = initial_lcu_state(echo, len(stretches))
    heard = []
    for offset in range(settings.stretch_blocks):
        user_tokens, state = listen(
            echo,
            [s.track.user for s in stretches],
            [s.first + offset for s in stretches],
            state,
        )
        heard.append(user_tokens)
    return heard[-settings.loss_blocks :]


def blocks_of(stretches: list[Stretch], offset: int, config: EchoConfig) -> BlockBatch:
    """The avatar's blocks at `offset` of each stretch."""
    samples, words = [], []
    for stretch in stretches:
        block = stretch.first + offset
        reference = int(torch.randint(len(stretch.track.latents), ()))
        samples.append(block_of(stretch.track, block, reference, config))
        words.append(affect_words(stretch.track, block, config))
    return collate(samples, words)


def rate_of(name: str, old_rate: float) -> float:
    """The learning-rate ratio of a parameter: full for what stage 1 did not train."""
    return 1.0 if any(part in name for part in NEW_PARTS) else old_rate


def conversation_loss(echo: Echo, stretches: list[Stretch], settings: Stage2Training) -> Tensor:
    """The mean denoising loss of the stretches' last blocks."""
    losses = []
    for number, user_tokens in enumerate(hear(echo, stretches, settings)):
        offset = settings.stretch_blocks - settings.loss_blocks + number
        batch = blocks_of(stretches, offset, echo.config)
        affect_tokens = echo.affect_encoder(batch.word_ids)
        keep = torch.rand(len(stretches), 2)
        dropout = torch.tensor([settings.audio_dropout, settings.user_dropout])
        condition = (keep >= dropout).float()
        losses.append(denoising_loss(echo, batch, user_tokens, affect_tokens, condition, settings))
    return torch.stack(losses).mean()


def train(cache: Path, vae: Path, stage1: Path, run: Path, settings: Stage2Training) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    cache_latents(cache, vae)
    pool, held_out = tracks(cache, "train"), tracks(cache, "test")
    echo = load_echo(stage1).train()
    loop = Loop(run, echo, settings.loop, rate_of=lambda name: rate_of(name, settings.old_rate))
    (run / "training.json").write_text(configs.to_json(settings))
    for step in loop:
        stretches = draw_stretches(pool, settings)
        with torch.autocast("cpu", torch.bfloat16):
            loss = conversation_loss(echo, stretches, settings)
        loop.update(loss)
        if (step + 1) % settings.report_every == 0:
            loop.log(**report(loop.averaged, pool, held_out))
    return finish(run, echo, loop.step, report(loop.averaged, pool, held_out))


def report(echo: Echo, pool: list[Track], held_out: list[Track]) -> dict[str, float]:
    """What stage 1 reports, with the user present."""
    return lip_report(echo, pool, held_out, with_user=True)


def main(cache: Path, vae: Path, stage1: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train stage 2 from a settings file, such as training/configs/pico_stage2.json."""
    torch.set_num_threads(threads)
    folder = train(cache, vae, stage1, run, configs.load(Stage2Training, config))
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
