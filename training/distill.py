"""This is where many steps become one: few-step distillation of a trained network.

    python -m training.distill CACHE VAE_CHECKPOINT TEACHER_CHECKPOINT RUN CONFIG

In one step from pure noise a network can only give the mean of all that might happen: soft faces
and mouths that hardly open. In several steps, and guided, it decides; but that costs as many passes
as steps and guidance want. The teacher therefore talks through every training conversation once, in
its own good time, and the student learns to make from the noise that a block began with the very
block that the teacher ended with (Luhman & Luhman, 2021, arXiv 2101.02388). From the same noise
there is one answer, not a mean of many, and guidance is learned along.

Why this of all ways: consistency and shortcut models bootstrap from themselves and need far more
steps of training than a few conversations allow, and adversarial ones a second network. This needs
what is there; its price, the teacher's talks, is paid once and kept in `RUN/talks`.

Legend: B batch, n blocks, F block frames, C h w latents, K user tokens a frame, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.batches import BlockBatch, Place, batch_of
from training.data import Track, tracks
from training.denoising import Conditions, ContextConfig, denoise, roughen
from training.hearing import hear
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.losses import FlowConfig, flow_loss
from training.precision import half_precision
from training.rollout import RolloutConfig, block_noise, rollout, stack
from training.stage1 import film, teach
from training.stage2 import report
from visavis import checkpoint
from visavis import config as configs
from visavis.nn.echo import Echo, load_echo
from visavis.sampler import context

AT_ONCE = 11  # tracks that the teacher talks through together


@dataclass(frozen=True)
class Distillation:
    """Settings of one run: how the teacher talks, and how the student learns."""

    teacher_steps: int = 4
    audio_guidance_scale: float = 2.0
    user_guidance_scale: float = 2.0
    talk_blocks: int = 10_000  # of each conversation at most
    batch: int = 20
    report_every: int = 250
    context: ContextConfig = field(default_factory=lambda: ContextConfig(own_share=0.25))
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=800, learning_rate=3e-4))

    @property
    def rollout(self) -> RolloutConfig:
        """How the teacher talks, but for how long."""
        return RolloutConfig(
            num_steps=self.teacher_steps,
            audio_guidance_scale=self.audio_guidance_scale,
            user_guidance_scale=self.user_guidance_scale,
        )


@dataclass(frozen=True)
class Talk:
    """What a teacher made of a track: noise and latents (n·F, C, h, w), user tokens (n, F, K, D).

    All float16 and memory-mapped.
    """

    track: Track
    noise: np.ndarray
    latents: np.ndarray
    user_tokens: np.ndarray

    @classmethod
    def load(cls, folder: Path, track: Track) -> Talk:
        """From the folder in which it was kept."""
        names = ("noise", "latents", "user_tokens")
        return cls(track, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def talks(echo: Echo, pool: Sequence[Track], folder: Path, settings: Distillation) -> list[Talk]:
    """The teacher's talks through all tracks; those that are in the folder are kept."""
    folders = [folder / track.name for track in pool]
    todo = [n for n, place in enumerate(folders) if not (place / "done").exists()]
    for first in tqdm(range(0, len(todo), AT_ONCE), desc="teacher's talks", unit="group"):
        group = todo[first : first + AT_ONCE]
        talk(echo, [pool[n] for n in group], [folders[n] for n in group], settings, seed=group[0])
    return [Talk.load(place, track) for place, track in zip(folders, pool, strict=True)]


@torch.inference_mode()
def talk(
    echo: Echo, group: list[Track], folders: list[Path], settings: Distillation, seed: int
) -> None:
    """Let the teacher talk through some tracks at once, and keep what it made of each."""
    blocks = min(settings.talk_blocks, *(track.blocks for track in group))
    how = replace(settings.rollout, blocks=blocks, seed=seed)
    with half_precision(echo.device):
        latents = rollout(echo, group, how)
        heard = hear(echo, [track.user for track in group], range(blocks), blocks)
    noise = torch.cat(list(block_noise(echo.config, len(group), blocks, seed)), dim=1)
    for n, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("noise", noise), ("latents", latents), ("user_tokens", heard)):
            np.save(folder / f"{name}.npy", value[n].cpu().numpy().astype(np.float16))
        (folder / "done").touch()


@dataclass(frozen=True)
class Moment:
    """One block of a talk."""

    talk: Talk
    block: int

    def latents(self, before: int, frames: int) -> np.ndarray:
        """(frames, C, h, w) of the talk, from `before` frames before the block's beginning on."""
        block_frames = self.talk.user_tokens.shape[1]
        first = self.block * block_frames - before
        return self.talk.latents[first : first + frames]


@dataclass(frozen=True)
class Lesson:
    """What a student needs of B blocks. batch: its x_0 is the teacher's. noise: as x_0."""

    batch: BlockBatch
    noise: Tensor
    conditions: Conditions

    @classmethod
    def of(cls, echo: Echo, moments: Sequence[Moment]) -> Lesson:
        """The blocks of `moments`, in the context that the teacher had."""
        config, device = echo.config, echo.device
        frames, past = config.block_frames, config.denoiser.previous_frames
        batch = batch_of([Place(m.talk.track, m.block, 0) for m in moments], config, device)
        previous = batch.previous_latents.clone()  # the portrait, where a talk begins
        later = [n for n, moment in enumerate(moments) if moment.block > 0]
        if later:
            last = stack([moments[n].latents(past, past) for n in later]).to(device)
            reference = batch.reference_latents[later][:, None]
            previous[later] = context(last, reference, past, config.context_keep)
        noise = [m.talk.noise[m.block * frames : (m.block + 1) * frames] for m in moments]
        heard = stack([m.talk.user_tokens[m.block] for m in moments]).to(device)
        with torch.no_grad(), half_precision(device):
            affect = echo.affect_encoder(batch.word_ids)
        return cls(
            replace(
                batch,
                x_0=stack([m.latents(0, frames) for m in moments]).to(device),
                previous_latents=previous,
            ),
            stack(noise).to(device),
            Conditions(heard, affect, heard.new_ones(len(moments), 2)),
        )

    def answer(self, echo: Echo, previous: Tensor) -> Tensor:
        """x_0 (B, F, C, h, w) in one step from the teacher's noise, after `previous`."""
        with half_precision(echo.device):
            t = self.noise.new_ones(len(self.noise), 1)
            return denoise(echo, self.noise, t, self.batch, previous, self.conditions)


def draw_moments(pool: Sequence[Talk], count: int) -> list[Moment]:
    """Random blocks of random talks."""
    chosen = [pool[n] for n in torch.randint(len(pool), (count,)).tolist()]
    return [Moment(talk, int(torch.randint(len(talk.user_tokens), ()))) for talk in chosen]


def student_loss(echo: Echo, moments: Sequence[Moment], settings: Distillation) -> Tensor:
    """The error of the student's blocks, some of which follow its own block before."""
    lesson = Lesson.of(echo, moments)
    batch, config = lesson.batch, echo.config
    previous = roughen(batch.previous_latents, batch.reference_latents, settings.context)
    own = [n for n in range(round(settings.context.own_share * len(moments))) if moments[n].block]
    if own:
        before = Lesson.of(echo, [Moment(moments[n].talk, moments[n].block - 1) for n in own])
        with torch.no_grad():
            x_0 = before.answer(echo, before.batch.previous_latents)
        reference, frames = before.batch.reference_latents, config.denoiser.previous_frames
        previous[own] = context(x_0, reference[:, None], frames, config.context_keep)
    t = lesson.noise.new_ones(len(moments), 1)
    answer = lesson.answer(echo, previous)
    return flow_loss(answer, batch.x_0, batch.previous_latents[:, -1], t, settings.flow)


def train(cache: Path, vae: Path, teacher: Path, run: Path, settings: Distillation) -> Path:
    """Let the teacher talk, train the student, or go on; writes the folder `run/checkpoint`."""
    cache_latents(cache, vae)
    pool, held_out = tracks(cache, "train"), tracks(cache, "test")
    student = load_echo(teacher).train()
    student.lcu_encoder.requires_grad_(False)
    student.affect_encoder.requires_grad_(False)
    loop = Loop(run, student, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))
    if loop.accelerator.is_main_process:
        talks(load_echo(teacher).to(loop.device), pool, run / "talks", settings)
    loop.accelerator.wait_for_everyone()
    heard = talks(student, pool, run / "talks", settings)

    def losses() -> dict[str, Tensor]:
        return {"loss": student_loss(student, draw_moments(heard, settings.batch), settings)}

    def figures(trained: Echo) -> dict[str, float]:
        return report(trained, pool, held_out)

    return teach(
        loop, losses, figures, lambda: film(loop, vae, held_out[0], with_user=True), settings
    )


def main(cache: Path, vae: Path, teacher: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Distil from a settings file, such as training/configs/nano_distill.json."""
    torch.set_num_threads(threads)
    folder = train(cache, vae, teacher, run, configs.load(Distillation, config))
    print(json.dumps(dict(checkpoint.load(folder).manifest), indent=2))


if __name__ == "__main__":
    typer.run(main)
