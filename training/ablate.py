"""This is where ECHO's claims are put to the test: the same network without one part at a time.

    python -m training.ablate --cache CACHE --vae CKPT --out OUT [--config JSON] [--lip-sync CKPT]

Every variant is trained and measured on the same data with the same number of steps, under several
seeds: full; without LPE, HBCU or LAU; with entangled cross-attention in SDCM's place; with the last
two seconds of the user in place of all; and with the avatar's own voice alone. Stage 1 knows no
user, so the variants of a seed share it, but for the entangled one, which needs its own.

Written are `ablation.json` (every figure of every run), `ablation.md` (means and standard
deviations over seeds, and whether each difference has the sign of ECHO's), `ablation.png` (the same
to look at) and `reach.png`: how alike reactions are to the true ones, by how far back lies what
they depend on. A stopped run goes on where it was; what is finished is kept in `OUT/seed_0/…`.
Several processes or machines may do a seed each into one OUT (`--only 0`, `--only 1`, …); run once
more without `--only`, it writes what all of them found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import torch
import typer

from training import stage1, stage2
from training.data import Track, tracks
from training.latents import cache_latents, decode
from training.measures import lip_sync
from training.measures.ablation import FULL, Results, Row, write
from training.measures.baselines import baselines
from training.measures.judge import Judge, Sight
from training.measures.reactions import reach_figures
from training.measures.row import motion_matrix
from training.measures.system import System, portraits
from training.rollout import RolloutConfig, rollout
from visavis import config as configs
from visavis.config import FRAME_RATE_HZ, SIZES
from visavis.nn.echo import load_echo, load_vae
from visavis.nn.vae import VAE

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Variant:
    """What is left out."""

    without: tuple[str, ...] = ()
    window_blocks: int | None = None  # of the past that are heard
    listens: bool = True


VARIANTS: Mapping[str, Variant] = {
    FULL: Variant(),
    "without LPE": Variant(("perception",)),
    "without HBCU": Variant(("understanding",)),
    "without LAU": Variant(("affect",)),
    "without SDCM": Variant(("decoupling",)),
    "2 s window": Variant(window_blocks=10),
    "audio only": Variant(("affect",), listens=False),
}


@dataclass(frozen=True)
class Ablation:
    """Settings of the whole experiment."""

    seeds: int = 3
    seconds: float = 40.0  # of each held-out track that are measured
    num_steps: int = 4
    stage1: stage1.Stage1Training = field(
        default_factory=lambda: stage1.Stage1Training(size="femto")
    )
    stage2: stage2.Stage2Training = field(default_factory=stage2.Stage2Training)


@dataclass(frozen=True)
class Run:
    """One variant under one seed."""

    name: str
    seed: int
    out: Path

    @property
    def variant(self) -> Variant:
        """What is left out."""
        return VARIANTS[self.name]

    @property
    def folder(self) -> Path:
        """Where it is trained, and its figures are kept."""
        return self.out / f"seed_{self.seed}" / self.name.replace(" ", "_")

    @property
    def first_stage(self) -> Path:
        """Where the stage 1 lies that it begins with."""
        entangled = "decoupling" in self.variant.without
        return self.out / f"seed_{self.seed}" / ("stage1_entangled" if entangled else "stage1")

    def rollout(self, settings: Ablation, blocks: int) -> RolloutConfig:
        """How it talks when it is measured."""
        variant = self.variant
        return RolloutConfig(
            blocks=blocks,
            num_steps=settings.num_steps,
            with_user=variant.listens,
            window_blocks=variant.window_blocks,
        )


def train(cache: Path, vae: Path, run: Run, settings: Ablation) -> Path:
    """Both stages of one run, as far as they are not done; returns the checkpoint's folder."""
    variant = run.variant
    first = replace(
        settings.stage1,
        without=tuple(part for part in variant.without if part == "decoupling"),
        loop=replace(settings.stage1.loop, seed=run.seed),
    )
    second = replace(
        settings.stage2,
        without=variant.without,
        window_blocks=variant.window_blocks,
        user_dropout=settings.stage2.user_dropout if variant.listens else 1.0,
        loop=replace(settings.stage2.loop, seed=run.seed),
    )
    started = run.first_stage / "checkpoint"
    if not (started / "manifest.json").exists():
        stage1.train(cache, vae, run.first_stage, first)
    finished = run.folder / "checkpoint"
    if not (finished / "manifest.json").exists():
        stage2.train(cache, vae, started, run.folder, second)
    return finished


def measure(judge: Judge, vae: VAE, checkpoint: Path, run: Run, settings: Ablation) -> Row:
    """All figures of one trained run, kept beside it."""

    def figures() -> Row:
        blocks = judge.frames // judge.reference.block_frames
        latents = rollout(load_echo(checkpoint), judge.people, run.rollout(settings, blocks))
        portrait = portraits(judge.people)
        made = System(
            run.name, lambda n: decode(vae, latents[n], portrait(n)), portrait, "baseline"
        )
        sight = judge.look(made)
        return judge.row(sight) | reach(judge, sight)

    return kept(run.folder / "figures.json", figures)


def kept(path: Path, measured: Callable[[], RowT]) -> RowT:
    """What was measured once and is kept in `path`, whole or not at all."""
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(measured(), indent=2) + "\n")
        partial.rename(path)
    return json.loads(path.read_text())


def reach(judge: Judge, sight: Sight) -> dict[str, float]:
    """`reach_AGE` and `reach_count_AGE`: likeness of reactions by what they depend on, in s."""
    clips = [
        (motion_matrix(ours.motion), motion_matrix(true.motion), track)
        for ours, true, track in zip(
            sight.observations, judge.truth.observations, judge.people, strict=True
        )
        if ours.motion is not None and true.motion is not None and "context_frame" in track.truth
    ]
    if not clips:
        return {}
    motions, truths, people = zip(*clips, strict=True)
    causes, contexts = (
        [track.truth[name] for track in people] for name in ("cause", "context_frame")
    )
    found = reach_figures(motions, truths, causes, contexts)
    return {f"reach_{age}": one.r for age, one in found.items()} | {
        f"reach_count_{age}": one.count for age, one in found.items()
    }


def held_out_judge(cache: Path, scorer: lip_sync.LipSync | None, settings: Ablation) -> Judge:
    """Who measures."""
    people: Sequence[Track] = tracks(cache, "test")
    size = SIZES[settings.stage1.size]()
    blocks = round(settings.seconds * FRAME_RATE_HZ) // size.block_frames
    frames = min(blocks, *(track.blocks for track in people)) * size.block_frames
    return Judge(people, tracks(cache, "train"), frames, size, scorer)


def baseline_rows(judge: Judge, train_tracks: Sequence[Track]) -> dict[str, Row]:
    """The rows of the baselines, the truth's first."""
    truth, *rest = baselines(judge.people, train_tracks, judge.frames)
    rows = {system.name: judge.row(judge.look(system)) for system in rest}
    return {truth.name: judge.row(judge.truth), **rows}


def main(
    cache: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    config: Annotated[Path | None, typer.Option(help="settings as JSON")] = None,
    lip_scorer: Annotated[Path | None, typer.Option("--lip-sync")] = None,
    threads: int = 2,
    only: Annotated[list[int] | None, typer.Option(help="the seeds to do; all without it")] = None,
) -> None:
    """Train and measure every variant under every seed; writes tables and plots to OUT."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    settings = Ablation() if config is None else configs.load(Ablation, config)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(configs.to_json(settings))
    cache_latents(cache, vae)
    scorer = None if lip_scorer is None else lip_sync.load(lip_scorer)
    judge = held_out_judge(cache, scorer, settings)
    others = kept(out / "baselines.json", lambda: baseline_rows(judge, tracks(cache, "train")))
    decoder = load_vae(vae).to(memory_format=torch.channels_last)  # pyright: ignore
    results: Results = {name: [] for name in VARIANTS}
    facts = {
        "tracks": len(judge.people),
        "seconds_a_track": judge.frames / FRAME_RATE_HZ,
        "steps": f"{settings.stage1.loop.steps} + {settings.stage2.loop.steps}",
    }
    table = ""
    for nth, seed in enumerate(range(settings.seeds) if only is None else only, start=1):
        for name in VARIANTS:
            run = Run(name, seed, out)
            checkpoint = train(cache, vae, run, settings)
            results[name].append(measure(judge, decoder, checkpoint, run, settings))
            done = {name: rows for name, rows in results.items() if rows}
            table = write(out, done, others, {**facts, "seeds": nth})
    print(table)


if __name__ == "__main__":
    typer.run(main)
