"""This is where the LCU learns what a user's voice and face ask for, before any face is made of it.

    python -m training.listen CACHE VAE_CHECKPOINT STAGE1_CHECKPOINT RUN CONFIG

Through the denoiser alone it learns this last: what a listener shows is a small part of a picture's
error, and the sentence of `visavis.affect` tells the mood sooner. So here the corpus's own words
for what is due (`training.expression.Labels`: the emotion, and what is reacted to) are read from
f_pu directly, without the denoiser, at a twentieth of a stage-2 step's cost a block. That
intermediate layers learn better with a task of their own is deep supervision (Lee et al., 2015,
arXiv 1409.5185). The reading has no weights: f_pu's first channels, averaged over a block, are to
be the labels, so that stage 2 can go on asking for them (`Stage2Training.due_weight`), and what
attends to f_pu finds them there.

A few conversations are soon known by heart; hence `training.hearing.Hindrance`.

Legend: B conversations, n blocks, F block frames, K tokens a frame, D width, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor

from training.command import Stream, run_trainer
from training.data import Track, tracks
from training.expression import Labels, labels_of, shown
from training.hearing import Hindrance, hear, heard_blocks
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.rollout import RolloutConfig, user_tokens
from training.stage1 import some_of, teach
from training.streaming import training_pool
from visavis import config as configs
from visavis.nn.echo import Echo, load_echo


@dataclass(frozen=True)
class Listening:
    """Settings of one run."""

    without: tuple[str, ...] = ()  # parts of ECHO that are left out, see `visavis.config.PARTS`
    conversations: int = 12  # in a batch, all at the same block
    answers: int = 16  # blocks in a row that are asked about and learned from
    window_blocks: int | None = None  # of the past that are heard; all that the memory holds
    hindrance: Hindrance = field(default_factory=Hindrance)
    report_every: int = 100
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=250, learning_rate=1e-3, weight_decay=1e-2, warmup_steps=30, ema_decay=0.98
        )
    )


def readings(f_pu: Tensor, labels: int) -> Tensor:
    """(…, L): what f_pu (…, F, K, D) says is due, in its first channels."""
    return f_pu.float().mean((-3, -2))[..., :labels]


def due_error(f_pu: Tensor, due: Tensor) -> Tensor:
    """Squared error of the readings of f_pu (B, n, F, K, D) against labels (B, n, L)."""
    return (readings(f_pu, due.shape[-1]) - due).square().mean()


def due_in(labels: Labels, people: Sequence[Track], blocks: range, block_frames: int) -> Tensor:
    """(B, n, L) float32 labels of what is due to people in the middle of blocks.

    All are on one scale, so that what is rare does not count for more than what is common: the
    squared error is a Brier score, 1 for a guess of the mean.
    """
    frames = middles(blocks, block_frames)
    due = np.stack([shown(person, labels.names, frames) for person in people])
    return torch.from_numpy((due - labels.mean) / np.float32(labels.scale))


def middles(blocks: range, block_frames: int) -> list[int]:
    """The frame in the middle of each block."""
    return [block * block_frames + block_frames // 2 for block in blocks]


def draw_conversations(pool: Sequence[Track], settings: Listening) -> tuple[list[Track], int]:
    """Some people, and the block that all their conversations are heard up to."""
    longest = pool[int(torch.randint(len(pool), ()))].blocks
    stop = int(torch.randint(min(settings.answers, longest), longest + 1, ()))
    enough = [track for track in pool if track.blocks >= stop]
    drawn = torch.randint(len(enough), (settings.conversations,)).tolist()
    return [enough[n] for n in drawn], stop


def listening_loss(
    echo: Echo, people: list[Track], stop: int, labels: Labels, settings: Listening
) -> Tensor:
    """The error of the last `answers` blocks before `stop`, all before them having been heard."""
    blocks = heard_blocks(echo, stop - 1, settings.window_blocks)
    count = min(settings.answers, len(blocks), stop)
    heard = hear(
        echo,
        [person.user for person in people],
        blocks,
        count,
        learned_blocks=count,
        half=True,
        hindrance=settings.hindrance,
    )
    due = due_in(labels, people, range(stop - count, stop), echo.config.block_frames)
    return due_error(heard, due.to(echo.device))


@torch.inference_mode()
def read(
    echo: Echo,
    labels: Labels,
    held_out: Sequence[Track],
    window_blocks: int | None = None,
    hindrance: Hindrance | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, n, L) readings and labels of all blocks that all held-out people have."""
    blocks = range(min(track.blocks for track in held_out))
    heard = user_tokens(
        echo,
        [person.user for person in held_out],
        RolloutConfig(blocks=len(blocks), window_blocks=window_blocks),
        hindrance=hindrance,
    )
    due = due_in(labels, held_out, blocks, echo.config.block_frames)
    return readings(heard, due.shape[-1]).cpu(), due


def asked(
    echo: Echo, labels: Labels, held_out: Sequence[Track], window_blocks: int | None = None
) -> tuple[Tensor, Tensor]:
    """(N, L) readings and labels of all blocks in which held-out people listen."""
    found, due = read(echo, labels, held_out, window_blocks)
    middle = middles(range(due.shape[1]), echo.config.block_frames)
    listens = torch.tensor(np.stack([t.truth["speaking"][middle] == 0 for t in held_out]))
    return found[listens], due[listens]


def correlations(found: Tensor, true: Tensor) -> Tensor:
    """(L,) of each label; not a number for one that never changes."""
    pairs = torch.stack([found, true]).unbind(2)
    return torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs])


def report(
    echo: Echo, labels: Labels, held_out: Sequence[Track], window_blocks: int | None = None
) -> dict[str, float]:
    """How well the readings fit held-out conversations, where the person listens.

    `due_r`: the mean over labels of the readings' correlation with them. `due_emotion`: the share
    of blocks whose highest emotion is the one that is due.
    """
    found, true = asked(echo, labels, held_out, window_blocks)
    figures = {"due_r": float(correlations(found, true).nanmean())}
    emotions = [n for n, name in enumerate(labels.names) if name.startswith("emotion:")]
    if len(emotions) > 1:
        mean = torch.from_numpy(labels.mean) / labels.scale
        highest, told = ((x + mean)[:, emotions].argmax(1) for x in (found, true))
        figures["due_emotion"] = float((highest == told).float().mean())
    return figures


def train(
    cache: Path, vae: Path, start: Path, run: Path, settings: Listening, *, stream: str = ""
) -> Path:
    """Train the LCU, or go on, and write the checkpoint folder `run/checkpoint`.

    All else stays as it is in the checkpoint `start`. For `stream` see `training.stage2`. Raises
    ValueError where the corpus does not say what is due.
    """
    cache_latents(cache, vae)
    held_out = tracks(cache, "test")
    echo = load_echo(start, settings.without).train()
    echo.requires_grad_(False)
    echo.lcu_encoder.requires_grad_(True)
    loop = Loop(run, echo, settings.loop)
    pool = training_pool(cache, vae, loop, stream)
    (run / "training.json").write_text(configs.to_json(settings))
    labels = Labels.among(some_of(pool))
    width = echo.config.lcu.width
    if not 1 < len(labels.names) <= width:
        raise ValueError(
            f"what is due: got labels {labels_of(some_of(pool))}, expected 2 to {width} that vary; "
            "use a corpus with transcripts, or go on with training.stage2"
        )

    def losses() -> dict[str, Tensor]:
        people, stop = draw_conversations(pool, settings)
        return {"loss": listening_loss(loop.model, people, stop, labels, settings)}

    def figures(trained: Echo) -> dict[str, float]:
        return report(trained, labels, held_out, settings.window_blocks)

    return teach(loop, losses, figures, lambda: None, settings.report_every)


def main(
    cache: Path,
    vae: Path,
    start: Path,
    run: Path,
    config: Path,
    stream: Stream = "",
    threads: int = 2,
) -> None:
    """Train the LCU from a settings file, such as training/configs/nano_listen.json."""
    run_trainer(
        Listening,
        config,
        threads,
        lambda settings: train(cache, vae, start, run, settings, stream=stream),
    )


if __name__ == "__main__":
    typer.run(main)
