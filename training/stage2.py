"""This is where stage 2 is trained: the LCU, the user's cross-attention and the gate.

    python -m training.stage2 CACHE VAE_CHECKPOINT STAGE1_CHECKPOINT RUN CONFIG

From two-person conversations the avatar learns to listen. The LCU runs through a stretch of blocks,
its state carried as when serving; the loss is taken on the stretch's last blocks. What stage 1
learned goes on learning at a lower rate, so that lips stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor

from training.batches import Place, batch_of, draw_reference
from training.data import Track, tracks
from training.denoising import (
    Conditions,
    ContextConfig,
    denoise,
    half_precision,
    previous_latents,
)
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.losses import FlowConfig, flow_loss, guided_target, noisy, swap_loss
from training.measures.baselines import others
from training.rollout import RolloutConfig, initial_lcu_state, listen, rollout
from training.stage1 import LISTENING_PARTS, finish, lip_report
from visavis import checkpoint
from visavis import config as configs
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
    swap_weight: float = 4.0  # of the change of speaking lips under another user
    own_guidance: float = 0.4  # see `losses.guided_target`
    guided_from_step: int = 250  # before, with and without a voice differ by chance alone
    report_every: int = 250
    context: ContextConfig = field(default_factory=lambda: ContextConfig(restart_share=0.05))
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=800, learning_rate=6e-4))


def draw_stretches(pool: list[Track], settings: Stage2Training) -> list[Place]:
    """The first blocks of random stretches; some begin where the conversation does."""
    chosen = []
    for index in torch.randint(len(pool), (settings.conversations,)).tolist():
        last = max(1, pool[index].blocks - settings.stretch_blocks + 1)
        first = int(torch.randint(last, ())) if torch.rand(()) > 0.1 else 0
        chosen.append(Place(pool[index], first, draw_reference(pool[index])))
    return chosen


def hear(echo: Echo, stretches: list[Place], blocks: int) -> list[Tensor]:
    """f_pu (B, F, K, D) of each of the stretches' first `blocks` blocks."""
    state = initial_lcu_state(echo, len(stretches))
    heard = []
    for offset in range(blocks):
        users = [place.track.user for place in stretches]
        at = [place.later(offset).block for place in stretches]
        user_tokens, state = listen(echo, users, at, state)
        heard.append(user_tokens)
    return heard


def rate_of(name: str, old_rate: float) -> float:
    """The learning-rate ratio of a parameter: full for what stage 1 did not train."""
    return 1.0 if any(part in name for part in NEW_PARTS) else old_rate


def conversation_loss(
    echo: Echo, stretches: list[Place], settings: Stage2Training, guide: bool
) -> Tensor:
    """The mean loss of the stretches' last blocks, the LCU having heard all before."""
    with half_precision():
        heard = hear(echo, stretches, settings.stretch_blocks)
    losses = []
    for offset in range(settings.stretch_blocks - settings.loss_blocks, settings.stretch_blocks):
        places = [place.later(offset) for place in stretches]
        before, now = heard[offset - 1], heard[offset]
        losses.append(listening_loss(echo, places, before, now, settings, guide))
    return torch.stack(losses).mean()


def listening_loss(
    echo: Echo,
    places: list[Place],
    heard_before: Tensor,
    heard: Tensor,
    settings: Stage2Training,
    guide: bool,
) -> Tensor:
    """The loss of one block a stretch: denoising, and lips that do not mind who listens.

    Args: heard_before and heard (B, F, K, D), f_pu of the block before and of this one; guide,
    whether the network learns its own guidance.
    """
    batch = batch_of(places, echo.config)
    dropout = torch.tensor([settings.audio_dropout, settings.user_dropout])
    present = (torch.rand(len(places), 2) >= dropout).float()
    with half_precision():
        conditions = Conditions(heard, echo.affect_encoder(batch.word_ids), present)
    before = replace(conditions, user_tokens=heard_before)
    previous = previous_latents(echo, places, batch, before, settings.context)
    x_t, t = noisy(batch.x_0, settings.flow)
    with half_precision():
        x_0 = denoise(echo, x_t, t, batch, previous, conditions)

    def under(other: Conditions) -> Tensor:
        with torch.no_grad(), half_precision():
            return denoise(echo, x_t, t, batch, previous, other)

    target = batch.x_0
    if guide:
        voiceless = under(replace(conditions, present=present * torch.tensor([0.0, 1.0])))
        target = guided_target(target, x_0, voiceless, present[:, 0], settings.own_guidance)
    loss = flow_loss(x_0, target, batch.previous_latents[:, -1], t, settings.flow)
    swapped = under(replace(conditions, user_tokens=heard.roll(1, 0)))
    return loss + settings.swap_weight * swap_loss(x_0, swapped, batch.speaking, t, settings.flow)


def train(cache: Path, vae: Path, stage1: Path, run: Path, settings: Stage2Training) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    cache_latents(cache, vae)
    pool, held_out = tracks(cache, "train"), tracks(cache, "test")
    echo = load_echo(stage1).train()
    loop = Loop(run, echo, settings.loop, rate_of=lambda name: rate_of(name, settings.old_rate))
    (run / "training.json").write_text(configs.to_json(settings))
    for step in loop:
        stretches = draw_stretches(pool, settings)
        guide = step >= settings.guided_from_step
        loop.update(conversation_loss(echo, stretches, settings, guide))
        if (step + 1) % settings.report_every == 0:
            loop.log(**report(loop.averaged, pool, held_out))
    return finish(run, echo, loop.step, report(loop.averaged, pool, held_out))


def report(echo: Echo, pool: list[Track], held_out: list[Track]) -> dict[str, float]:
    """What stage 1 reports, with the user present, and the swap of the user."""
    lips = lip_report(echo, pool, held_out, with_user=True)
    return lips | user_swap_report(echo, held_out)


def user_swap_report(echo: Echo, held_out: list[Track]) -> dict[str, float]:
    """Change of the upper face's latents over the mouth's under another user: speech, silence."""
    echo.eval()
    settings = RolloutConfig(blocks=min(30, *(t.blocks for t in held_out)))
    frames = settings.blocks * echo.config.block_frames
    strangers = [track.user for track in others(held_out)]
    own = rollout(echo, held_out, settings)
    other = rollout(echo, held_out, settings, users=strangers)
    change = (other - own).abs().mean(2)  # (B, T, h, w)
    eighth = change.shape[-1] // 8
    upper = change[:, :, 2 * eighth : 4 * eighth, 2 * eighth : 6 * eighth].mean((2, 3))
    mouth = change[:, :, 5 * eighth : 6 * eighth, 3 * eighth : 5 * eighth].mean((2, 3))
    speaking = torch.tensor(np.stack([t.truth["speaking"][:frames] > 0 for t in held_out]))
    return {
        "user_swap_speaking": float(upper[speaking].mean() / mouth[speaking].mean()),
        "user_swap_listening": float(upper[~speaking].mean() / mouth[~speaking].mean()),
    }


def main(cache: Path, vae: Path, stage1: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train stage 2 from a settings file, such as training/configs/pico_stage2.json."""
    torch.set_num_threads(threads)
    folder = train(cache, vae, stage1, run, configs.load(Stage2Training, config))
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
