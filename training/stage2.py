"""This is where stage 2 is trained: the LCU, the user's cross-attention and the gate.

    python -m training.stage2 CACHE VAE_CHECKPOINT CHECKPOINT RUN CONFIG

The checkpoint is that of `training.listen`, or of stage 1 where the corpus does not say what is
due; what the LCU hears by then is only to be heeded.

From two-person conversations the avatar learns to listen. The LCU hears each conversation from its
beginning, as when serving, and the loss is taken on a few blocks in a row: the cause of what is
seen in them may lie minutes back. What stage 1 learned goes on learning at a lower rate, so that
lips stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor

from training.batches import Place, batch_of, draw_reference
from training.command import Stream, run_trainer
from training.contexts import ContextConfig, previous_latents
from training.data import Track, tracks
from training.denoising import Conditions, denoise
from training.expression import ExpressionProbe, Labels, expression_report, fit_expression
from training.hearing import Hindrance, hear, heard_blocks
from training.latents import cache_latents
from training.listen import due_error, due_in
from training.loop import Loop, LoopConfig
from training.losses import FlowConfig, flow_loss, noisy, swap_loss
from training.measures.baselines import others
from training.precision import half_precision
from training.rollout import RolloutConfig, rollout
from training.stage1 import LISTENING_PARTS, film, lip_report, shown_rollout, some_of, teach
from training.streaming import training_pool
from visavis import config as configs
from visavis.nn.echo import Echo, load_echo

# Besides these, the gate learns at the full rate: it now has two voices to weigh.
NEW_PARTS = ("lcu_encoder", "affect_encoder", "sdcm.gate", *LISTENING_PARTS)


@dataclass(frozen=True)
class Stage2Training:
    """Settings of one stage-2 run."""

    without: tuple[str, ...] = ()  # parts of ECHO that are left out, see `visavis.config.PARTS`
    conversations: int = 12  # in a batch, all at the same block
    loss_blocks: int = 2  # in a row, of each
    learned_blocks: int = 8  # the newest, through which perception learns; the memory is of all
    window_blocks: int | None = None  # of the past that are heard; all that the memory holds
    hindrance: Hindrance = field(default_factory=Hindrance)
    told_share: float = 0.5  # of the blocks, whose sentence may be wrong, as a server's may
    audio_dropout: float = 0.1
    user_dropout: float = 0.1
    old_rate: float = 0.2  # learning rate of what stage 1 trained, as a ratio
    swap_weight: float = 4.0  # of the change of speaking lips under another user
    swapped_share: float = 0.34  # of the blocks, which are seen under another user too
    expression_weight: float = 1.0  # of the error of what a face shows
    due_weight: float = 0.1  # of the error of what f_pu says is due, see `training.listen`
    report_every: int = 250
    context: ContextConfig = field(
        default_factory=lambda: ContextConfig(own_share=0.25, stray_share=0.8)
    )
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=800, learning_rate=6e-4))


def draw_moment(
    pool: Sequence[Track],
    conversations: int,
    blocks: int,
    *,
    told_share: float,
    window_blocks: int | None = None,
) -> list[Place]:
    """The first of `blocks` blocks in a row, the same of all conversations that are drawn.

    A random conversation says how far in that is; those that are shorter are left out. A
    `told_share` of them has a server's sentences, of what it heard in `window_blocks`.
    """
    longest = pool[int(torch.randint(len(pool), ()))].blocks
    block = int(torch.randint(max(1, longest - blocks + 1), ()))
    long_enough = [track for track in pool if track.blocks >= block + blocks]
    chosen = [long_enough[n] for n in torch.randint(len(long_enough), (conversations,)).tolist()]
    return [
        Place(track, block, draw_reference(track), bool(torch.rand(()) < told_share), window_blocks)
        for track in chosen
    ]


def rate_of(name: str, old_rate: float) -> float:
    """The learning-rate ratio of a parameter: full for what stage 1 did not train."""
    return 1.0 if any(part in name for part in NEW_PARTS) else old_rate


def hear_moment(
    echo: Echo,
    places: list[Place],
    count: int,
    *,
    window_blocks: int | None = None,
    learned_blocks: int = 0,
    hindrance: Hindrance | None = None,
) -> Tensor:
    """f_pu (B, count + 1, F, K, D) of the block before `places` and the `count` from there on."""
    heard = hear(
        echo,
        [place.track.user for place in places],
        heard_blocks(echo, places[0].block + count - 1, window_blocks),
        count + 1,
        learned_blocks=learned_blocks,
        half=True,
        hindrance=hindrance,
    )
    if heard.shape[1] > count:
        return heard
    return torch.cat([heard[:, :1], heard], dim=1)  # nothing was heard before the first block


def conversation_loss(
    echo: Echo,
    places: list[Place],
    probe: ExpressionProbe,
    labels: Labels,
    settings: Stage2Training,
) -> Tensor:
    """The mean loss of `loss_blocks` blocks from `places` on, all before them having been heard."""
    heard = hear_moment(
        echo,
        places,
        settings.loss_blocks,
        window_blocks=settings.window_blocks,
        learned_blocks=settings.learned_blocks,
        hindrance=settings.hindrance,
    )

    def loss(block: list[Place], before: Tensor, now: Tensor) -> Tensor:
        return listening_loss(echo, block, before, now, probe, settings)

    shown = mean_over_blocks(places, heard, loss)
    if not labels.names:
        return shown
    first, people = places[0].block, [place.track for place in places]
    blocks = range(first, first + settings.loss_blocks)
    due = due_in(labels, people, blocks, echo.config.block_frames).to(echo.device)
    return shown + settings.due_weight * due_error(heard[:, 1:], due)


def mean_over_blocks(
    places: list[Place], heard: Tensor, loss: Callable[[list[Place], Tensor, Tensor], Tensor]
) -> Tensor:
    """The mean of `loss(places, heard_before, heard)` over blocks in a row, from `places` on.

    Args: heard (B, n + 1, F, K, D), what `hear_moment` returns for n blocks.
    """
    losses = [
        loss([place.later(offset) for place in places], heard[:, offset], heard[:, offset + 1])
        for offset in range(heard.shape[1] - 1)
    ]
    return torch.stack(losses).mean()


def listening_loss(
    echo: Echo,
    places: list[Place],
    heard_before: Tensor,
    heard: Tensor,
    probe: ExpressionProbe,
    settings: Stage2Training,
) -> Tensor:
    """The loss of one block of each: denoising, what the face shows, and lips that do not mind who
    listens.

    Args: heard_before and heard (B, F, K, D), f_pu of the block before and of this one.
    """
    batch = batch_of(places, echo.config, echo.device)
    dropout = heard.new_tensor([settings.audio_dropout, settings.user_dropout])
    present = (torch.rand(len(places), 2, device=echo.device) >= dropout).float()
    with half_precision(echo.device):
        conditions = Conditions(heard, echo.affect_encoder(batch.word_ids), present)
    before = replace(conditions, user_tokens=heard_before)
    previous, strayed = previous_latents(echo, places, batch, before, settings.context)
    x_t, t = noisy(batch.x_0, settings.flow)
    with half_precision(echo.device):
        x_0 = denoise(echo, x_t, t, batch, previous, conditions)
    loss = flow_loss(x_0, batch.x_0, strayed, t, settings.flow)
    loss = loss + settings.expression_weight * probe.loss(x_0, batch.x_0)

    some = range(math.ceil(settings.swapped_share * len(places)))
    strangers = replace(conditions, user_tokens=heard.roll(1, 0)).rows(some)
    few = batch.rows(some)
    with torch.no_grad(), half_precision(echo.device):
        swapped = denoise(
            echo, x_t[: len(some)], t[: len(some)], few, previous[: len(some)], strangers
        )
    change = swap_loss(x_0[: len(some)], swapped, few.speaking, t[: len(some)], settings.flow)
    return loss + settings.swap_weight * change


def train(
    cache: Path, vae: Path, stage1: Path, run: Path, settings: Stage2Training, *, stream: str = ""
) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`.

    `stream` is where shards of a cache lie that is drawn from (`training.streaming`), in place of
    the cache's own training split.
    """
    cache_latents(cache, vae)
    held_out = tracks(cache, "test")
    echo = load_echo(stage1, settings.without).train()
    echo.sdcm_denoiser.articulation.requires_grad_(False)  # `training.articulate` has trained it
    loop = Loop(run, echo, settings.loop, rate_of=lambda name: rate_of(name, settings.old_rate))
    pool = training_pool(cache, vae, loop, stream)
    (run / "training.json").write_text(configs.to_json(settings))
    probe, labels = fit_expression(some_of(pool), loop.device), Labels.among(some_of(pool))

    def losses() -> dict[str, Tensor]:
        places = draw_moment(
            pool,
            settings.conversations,
            settings.loss_blocks,
            told_share=settings.told_share,
            window_blocks=settings.window_blocks,
        )
        return {"loss": conversation_loss(echo, places, probe, labels, settings)}

    return teach_to_listen(loop, losses, pool, held_out, vae, settings.report_every)


def teach_to_listen(
    loop: Loop[Echo],
    losses: Callable[[], Mapping[str, Tensor]],
    pool: Sequence[Track],
    held_out: list[Track],
    vae: Path,
    report_every: int,
) -> Path:
    """`training.stage1.teach` with the figures and the film of an avatar that has a user."""

    def figures(trained: Echo) -> dict[str, float]:
        return report(trained, pool, held_out)

    def show() -> None:
        film(loop, vae, held_out[0], with_user=True)

    return teach(loop, losses, figures, show, report_every)


def report(echo: Echo, pool: Sequence[Track], held_out: list[Track]) -> dict[str, float]:
    """What stage 1 reports, with the user present, what is shown, and the swap of the user."""
    settings = shown_rollout(held_out, with_user=True)
    own = rollout(echo.eval(), held_out, settings)
    lips = lip_report(echo, pool, held_out, own, settings)
    probe = fit_expression(some_of(pool), torch.device("cpu"))
    shown = expression_report(echo, probe, held_out)
    return lips | shown | user_swap_report(echo, held_out, own, settings)


def user_swap_report(
    echo: Echo, held_out: list[Track], own: Tensor, settings: RolloutConfig
) -> dict[str, float]:
    """Change of the upper face's latents over the mouth's under another user: speech, silence.

    `own` (B, T, C, h, w) is the rollout under their own users, of `settings.blocks` at least.
    """
    frames = settings.blocks * echo.config.block_frames
    strangers = [track.user for track in others(held_out)]
    other = rollout(echo, held_out, settings, users=strangers)
    change = (other - own[:, :frames]).abs().mean(2)  # (B, T, h, w)
    eighth = change.shape[-1] // 8
    upper = change[:, :, 2 * eighth : 4 * eighth, 2 * eighth : 6 * eighth].mean((2, 3))
    mouth = change[:, :, 5 * eighth : 6 * eighth, 3 * eighth : 5 * eighth].mean((2, 3))
    speaking = torch.tensor(np.stack([t.truth["speaking"][:frames] > 0 for t in held_out]))
    return {
        "user_swap_speaking": float(upper[speaking].mean() / mouth[speaking].mean()),
        "user_swap_listening": float(upper[~speaking].mean() / mouth[~speaking].mean()),
    }


def main(
    cache: Path,
    vae: Path,
    stage1: Path,
    run: Path,
    config: Path,
    stream: Stream = "",
    threads: int = 2,
) -> None:
    """Train stage 2 from a settings file, such as training/configs/nano_stage2.json."""
    run_trainer(
        Stage2Training,
        config,
        threads,
        lambda settings: train(cache, vae, stage1, run, settings, stream=stream),
    )


if __name__ == "__main__":
    typer.run(main)
