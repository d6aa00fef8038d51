"""This is where many passes become one: a guided teacher, and a student that does the same at once.

    python -m training.distill CACHE VAE_CHECKPOINT TEACHER_CHECKPOINT RUN CONFIG
                               [--student CHECKPOINT]

A network that is asked once gives the mean of what might happen: faces that show little and mouths
that open too little. Guidance undoes that, at the cost of a pass for each condition that is left
out, and steps cost as many again. So the network is its own student: whatever `teacher_steps` of
guided sampling make of some noise in some context, the student learns to make of them in one step,
unguided (Meng et al., 2023, arXiv 2210.03142; from noise to answer: Luhman & Luhman, 2021, arXiv
2101.02388). There is one answer to each question, so it is learned in a few hundred steps, and the
contexts are the student's own, so it is taught where it will be. With `--student` another network
than the teacher begins, such as a smaller one (`training.shrink`) with the same latents and LCU.

Why this of all ways: consistency and shortcut models bootstrap from themselves and need far more
steps of training than a few conversations allow, and adversarial ones a second network. How many
steps a teacher is worth is seen with `training.steps`.

Legend: B batch, F frames, C h w latents, P previous frames, K user tokens a frame, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from training.batches import BlockBatch, Place, batch_of
from training.command import Stream, run_trainer
from training.contexts import ContextConfig, previous_latents
from training.data import tracks
from training.denoising import Conditions, denoise, denoise_at_once
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.losses import FlowConfig, flow_loss, lip_map
from training.precision import half_precision
from training.stage2 import draw_moment, hear_moment, mean_over_blocks, teach_to_listen
from training.streaming import training_pool
from visavis import config as configs
from visavis.guidance import ConditionMask, guided
from visavis.nn.echo import Echo, load_echo
from visavis.sampler import sample
from visavis.schedule import timesteps


@dataclass(frozen=True)
class Distillation:
    """Settings of one run: how the teacher answers, and what it is asked."""

    teacher_steps: int = 4
    audio_guidance_scale: float = 1.5
    user_guidance_scale: float = 2.0
    conversations: int = 10  # in a batch, all at the same block
    loss_blocks: int = 2  # in a row, of each
    told_share: float = 0.5  # see `training.stage2`
    true_lips: bool = True  # of who speaks the teacher knows the lips, and guides from there
    # The learning rate of what an opening mouth looks like, over that of all else: to catch up
    # where a network was given its ear for it late (`training.articulate`).
    articulation_rate: float = 1.0
    report_every: int = 250
    context: ContextConfig = field(
        default_factory=lambda: ContextConfig(restart_share=0.05, own_share=0.5, stray_share=0.25)
    )
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=400, learning_rate=3e-4))


def teacher_answer(
    teacher: Echo,
    noise: Tensor,
    batch: BlockBatch,
    previous: Tensor,
    conditions: Conditions,
    settings: Distillation,
) -> Tensor:
    """x_0 (B, F, C, h, w) that guided sampling ends with, from `noise` after `previous`."""

    def predict(x_t: Tensor, t: float, masks: Sequence[ConditionMask]) -> list[Tensor]:
        time = x_t.new_full((len(x_t), 1), t)
        under = [replace(conditions, present=x_t.new_tensor([mask] * len(x_t))) for mask in masks]
        found = [denoise(teacher, x_t, time, batch, previous, some) for some in under]
        return [
            with_true_lips(x_0, batch.x_0, batch.speaking) if settings.true_lips and audio else x_0
            for x_0, (audio, _) in zip(found, masks, strict=True)
        ]

    each = guided(predict, settings.audio_guidance_scale, settings.user_guidance_scale)
    return sample(each, noise, timesteps(settings.teacher_steps))


def with_true_lips(x_0: Tensor, true: Tensor, speaking: Tensor) -> Tensor:
    """A prediction with the true lips in every frame in which the avatar speaks.

    Args: x_0 and true (B, F, C, h, w), speaking (B, F).
    """
    lips = speaking[:, :, None, None, None] * (lip_map(x_0, 2.0) - 1)
    return x_0 + lips * (true - x_0)


def student_loss(
    teacher: Echo,
    student: Echo,
    places: list[Place],
    heard_before: Tensor,
    heard: Tensor,
    settings: Distillation,
) -> Tensor:
    """The error of the student's blocks against the teacher's.

    Args: heard_before and heard (B, F, K, D), f_pu of the block before and of this one.
    """
    batch = batch_of(places, student.config, student.device)
    noise = torch.randn_like(batch.x_0)
    with torch.no_grad(), half_precision(student.device):
        present = heard.new_ones(len(places), 2)
        conditions = Conditions(heard, student.affect_encoder(batch.word_ids), present)
        before = replace(conditions, user_tokens=heard_before)
        previous, _ = previous_latents(student, places, batch, before, settings.context)
        answer = teacher_answer(teacher, noise, batch, previous, conditions, settings)
    with half_precision(student.device):
        x_0 = denoise_at_once(student, noise, batch, previous, conditions)
    t = noise.new_ones(len(noise), 1)
    return flow_loss(x_0, answer, torch.zeros_like(batch.reference_latents), t, settings.flow)


def lesson_loss(
    teacher: Echo, student: Echo, places: list[Place], settings: Distillation
) -> Tensor:
    """The mean of `student_loss` over `loss_blocks` blocks from `places` on."""
    with torch.no_grad():
        heard = hear_moment(student, places, settings.loss_blocks)
    return mean_over_blocks(
        places, heard, lambda *block: student_loss(teacher, student, *block, settings=settings)
    )


def train(
    cache: Path,
    vae: Path,
    teacher: Path,
    run: Path,
    settings: Distillation,
    *,
    start: Path | None = None,
    stream: str = "",
) -> Path:
    """Train the student, or go on, and write the checkpoint folder `run/checkpoint`.

    Only the denoiser learns, and how the portrait is read if the student does not begin as the
    teacher but as `start`: what is heard and felt stays as the teacher knows it. For `stream` see
    `training.stage2`.
    """
    cache_latents(cache, vae)
    held_out = tracks(cache, "test")
    student = load_echo(start or teacher).train()
    student.requires_grad_(False)
    student.sdcm_denoiser.requires_grad_(True)
    student.sdcm_denoiser.articulation.requires_grad_(False)
    student.reference_encoder.requires_grad_(start is not None)

    def rate_of(name: str) -> float:
        return settings.articulation_rate if "articulation_maps" in name else 1.0

    loop = Loop(run, student, settings.loop, rate_of)
    pool = training_pool(cache, vae, loop, stream)
    (run / "training.json").write_text(configs.to_json(settings))
    taught_by = load_echo(teacher).to(loop.device)

    def losses() -> dict[str, Tensor]:
        places = draw_moment(
            pool, settings.conversations, settings.loss_blocks, told_share=settings.told_share
        )
        return {"loss": lesson_loss(taught_by, student, places, settings)}

    return teach_to_listen(loop, losses, pool, held_out, vae, settings.report_every)


def main(
    cache: Path,
    vae: Path,
    teacher: Path,
    run: Path,
    config: Path,
    student: Annotated[Path | None, typer.Option(help="begins, instead of the teacher")] = None,
    stream: Stream = "",
    threads: int = 2,
) -> None:
    """Distil from a settings file, such as training/configs/nano_distill.json."""
    run_trainer(
        Distillation,
        config,
        threads,
        lambda settings: train(cache, vae, teacher, run, settings, start=student, stream=stream),
    )


if __name__ == "__main__":
    typer.run(main)
