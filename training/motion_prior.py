"""This is where heads learn to turn and eyes to blink: the prior that draws a block's motion.

    python -m training.motion_prior CACHE VAE_CHECKPOINT STAGE2_CHECKPOINT RUN CONFIG

Everything but the prior stays as it is in the checkpoint. It takes minutes on a CPU: what the prior
is given of voice, user and feeling is computed once, and a block's motion is thirty numbers.

The codes are k-means' centres among the motions of the corpus's blocks, in units of a frame's
step, so that a nod weighs as much as a slow turn; the loss is the negative log-likelihood of the
codes that are nearest to the truth.

Legend: n blocks, F block frames, M numbers of motion, m those of a group, A audio feature frames,
U user tokens a frame, E affect tokens, D widths, G numbers of the gist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from scipy.cluster.vq import kmeans2
from torch import Tensor
from tqdm import tqdm

from training.batches import Place, affect_words
from training.command import run_trainer
from training.data import Track, tracks
from training.hearing import hear
from training.latents import cache_latents
from training.loop import Loop, LoopConfig
from training.stage1 import teach
from visavis import config as configs
from visavis.motion import GROUPS, NAMES
from visavis.nn.echo import Echo, load_echo
from visavis.nn.motion_prior import MotionPrior, origin

LIDS = NAMES.index("lids")
CLOSED = 0.5  # of the way: an eye that counts as shut


@dataclass(frozen=True)
class MotionTraining:
    """Settings of one run."""

    batch: int = 256  # blocks
    gist_noise: float = 0.3  # on what voice, user and feeling say before they pass the bottleneck
    dropout: float = 0.1  # share of blocks of which all of that is withheld
    motion_noise: float = 0.3  # on the motion of the block before, in units of a frame's step
    report_every: int = 500
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=2000, learning_rate=2e-3, weight_decay=1e-2, ema_decay=0.995
        )
    )


@dataclass(frozen=True)
class Situations:
    """What the prior is given of n blocks, and what it is to draw."""

    previous_motion: Tensor  # (n, F, M)
    avatar_audio_features: Tensor  # (n, A, D)
    user_tokens: Tensor  # (n, F, 1, D), means over U, as the prior takes them
    affect_tokens: Tensor  # (n, E, D)
    motion: Tensor  # (n, F, M), the truth

    def rows(self, index: Tensor) -> Situations:
        """Some of the blocks."""
        return Situations(*(getattr(self, one.name)[index] for one in fields(self)))

    def to(self, device: torch.device) -> Situations:
        """The same on another device."""
        return Situations(*(getattr(self, one.name).to(device) for one in fields(self)))

    def gist(self, prior: MotionPrior) -> Tensor:
        """(n, G): what the prior heeds of voice, user and feeling."""
        return prior.gist(self.avatar_audio_features, self.user_tokens, self.affect_tokens)

    @classmethod
    def joined(cls, parts: Sequence[Situations]) -> Situations:
        """The blocks of several tracks."""
        columns = ([getattr(part, one.name) for part in parts] for one in fields(cls))
        return cls(*(torch.cat(column) for column in columns))


def situations(echo: Echo, track: Track) -> Situations:
    """All blocks of a track, as they come when served; the user may be missing."""
    frames, blocks = echo.config.block_frames, track.blocks
    motion = torch.from_numpy(track.motion[: blocks * frames]).unflatten(0, (blocks, frames))
    before = torch.cat([motion[:1, :1].expand(1, frames, -1), motion[:-1]])
    features = torch.from_numpy(np.asarray(track.avatar_features, np.float32))
    with torch.inference_mode():
        if track.partner.exists():
            user = hear(echo, [track.user], range(blocks), blocks)[0].mean(2, keepdim=True)
            words = np.stack([affect_words(Place(track, n, 0), echo.config) for n in range(blocks)])
            affect = echo.affect_encoder(torch.from_numpy(words).to(echo.device))
        else:
            user = torch.zeros(blocks, frames, 1, echo.config.lcu.width)
            affect = torch.zeros(blocks, echo.config.affect.tokens, echo.config.affect.width)
    known = (before, features, user, affect, motion)
    return Situations(*(some.clone().float().to(echo.device) for some in known))


@torch.no_grad()
def fit_codes(prior: MotionPrior, known: Situations, seed: int = 0) -> None:
    """Set the prior's codes: the centres that k-means finds among the motions of blocks."""
    for name, codes in prior.codes.items():
        scale = prior.step_scales[GROUPS[name]]
        motions = (from_origin(known, name) / scale).flatten(1).cpu().numpy()
        centres = np.unique(motions, axis=0)
        if len(centres) > len(codes):
            centres, _ = kmeans2(motions, len(codes), minit="++", rng=seed)
        found = torch.from_numpy(centres).to(codes.device)
        codes[: len(centres)] = found.unflatten(1, codes.shape[1:]) * scale


def from_origin(some: Situations, group: str) -> Tensor:
    """(n, F, m): the true motion of a group, as its codes are counted."""
    return some.motion[..., GROUPS[group]] - origin(group, some.previous_motion)


def nearest_codes(prior: MotionPrior, some: Situations) -> dict[str, Tensor]:
    """(n,) int64 by group: the codes that are nearest to the true motion."""
    found = {}
    for name, codes in prior.codes.items():
        scale = prior.step_scales[GROUPS[name]]
        ours, theirs = ((x / scale).flatten(1) for x in (codes, from_origin(some, name)))
        found[name] = torch.cdist(theirs, ours).argmin(dim=1)
    return found


def surprise(
    prior: MotionPrior, previous_motion: Tensor, gist: Tensor, codes: Mapping[str, Tensor]
) -> Tensor:
    """Mean negative log-likelihood in nats of a block's true codes, of all groups together."""
    found = prior.likelihoods(previous_motion, gist)
    return torch.stack([F.cross_entropy(found[name], codes[name]) for name in found]).sum()


def motion_loss(
    prior: MotionPrior, some: Situations, codes: Mapping[str, Tensor], settings: MotionTraining
) -> Tensor:
    """`surprise` with noise on what the prior knows."""
    gist = some.gist(prior)
    gist = gist + settings.gist_noise * torch.randn_like(gist)
    kept = torch.rand(len(gist), 1, device=gist.device) >= settings.dropout
    jitter = settings.motion_noise * prior.step_scales * torch.randn_like(some.previous_motion)
    return surprise(prior, some.previous_motion + jitter, gist * kept, codes)


@torch.inference_mode()
def drawn_talk(prior: MotionPrior, some: Situations, seed: int = 0) -> np.ndarray:
    """(T, M): the motion of a track's blocks, each drawn after the one before; still at first."""
    generator = torch.Generator().manual_seed(seed)
    motion = torch.zeros_like(some.motion[:1])
    gist, found = some.gist(prior), []
    for n in range(len(gist)):
        noise = torch.empty(1, prior.noise_width).exponential_(generator=generator)
        motion = prior.draw(noise.to(motion.device), motion, gist[n : n + 1])
        found.append(motion[0])
    return torch.cat(found).cpu().numpy()


def report(prior: MotionPrior, held_out: Sequence[Situations]) -> dict[str, float]:
    """How lively drawn talks are against true ones, 1 being as lively, and how likely those.

    `spread` and `speed` are ratios of standard deviations, of motion and of its steps, the mean
    over its numbers; `shut` is the ratio of frames with closed eyes; `surprise` in nats a block.
    """
    drawn = [drawn_talk(prior, some, seed) for seed, some in enumerate(held_out)]
    true = [some.motion.flatten(0, 1).cpu().numpy() for some in held_out]

    def ratio(of: Callable[[np.ndarray], np.ndarray]) -> float:
        ours, theirs = (np.mean([of(talk) for talk in talks], axis=0) for talks in (drawn, true))
        known = theirs > 0
        return float(np.mean(ours[known] / theirs[known])) if known.any() else 1.0

    every = Situations.joined(held_out)
    codes = nearest_codes(prior, every)
    with torch.inference_mode():
        found = surprise(prior, every.previous_motion, every.gist(prior), codes)
    return {
        "spread": ratio(lambda talk: talk.std(0)),
        "speed": ratio(lambda talk: np.diff(talk, axis=0).std(0)),
        "shut": ratio(lambda talk: (talk[:, [LIDS]] > CLOSED).mean(0)),
        "surprise": float(found),
    }


def train(cache: Path, vae: Path, start: Path, run: Path, settings: MotionTraining) -> Path:
    """Train the prior, or go on, and write the checkpoint folder `run/checkpoint`.

    All else stays as it is in the checkpoint `start`.
    """
    cache_latents(cache, vae)
    echo = load_echo(start)
    known, held_out = (
        [situations(echo, track) for track in tqdm(tracks(cache, split), f"{split}, heard")]
        for split in ("train", "test")
    )
    every = Situations.joined(known)
    prior = echo.requires_grad_(False).motion_prior
    fit_codes(prior, every, settings.loop.seed)
    prior.log_likelihood.requires_grad_(True)
    for narrow in (prior.voice, prior.user, prior.feeling):
        narrow.requires_grad_(True)
    loop = Loop(run, echo, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))
    every = every.to(loop.device)
    codes = nearest_codes(prior, every)

    def losses() -> dict[str, Tensor]:
        drawn = torch.randint(len(every.motion), (settings.batch,))
        nearest = {name: those[drawn] for name, those in codes.items()}
        return {"loss": motion_loss(prior, every.rows(drawn), nearest, settings)}

    def figures(trained: Echo) -> dict[str, float]:
        return report(trained.motion_prior, [some.to(trained.device) for some in held_out])

    return teach(loop, losses, figures, lambda: None, settings.report_every)


def main(cache: Path, vae: Path, start: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train the prior from a settings file, such as training/configs/nano_motion.json."""
    run_trainer(
        MotionTraining, config, threads, lambda settings: train(cache, vae, start, run, settings)
    )


if __name__ == "__main__":
    typer.run(main)
