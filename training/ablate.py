"""This is where ECHO's claims are put to the test: the same network without one part at a time.

    python -m training.ablate --cache CACHE --vae CKPT --out OUT [--config JSON] [--lip-sync CKPT]

Every variant is trained and measured on the same data with the same number of steps, under several
seeds: full; without LPE, HBCU or LAU; with entangled cross-attention in SDCM's place; with the last
two seconds of the user in place of all; and with the avatar's own voice alone. Stage 1 knows no
user, so the variants of a seed share it, but for the entangled one, which needs its own. Every
variant then learns to hear by itself (`training.listen`).

The sentence on the due emotion is what a server's built-in model makes of the transcript; with two
seconds of the user go two seconds of the transcript.

Written are `ablation.json` (every figure of every run), `ablation.md` (means and standard
deviations over seeds, and whether each difference has the sign of ECHO's), `ablation.png` (the same
to look at) and `reach.png`: how like true ones listening faces are, by how far back lie the latest
news. A stopped run goes on where it was; what is finished is kept in `OUT/seed_0/…`.
Runs are shared out among `--workers` processes of one thread each. Several machines may do a seed
each into one OUT (`--only 0`, `--only 1`, …); run once more without `--only`, it writes what all of
them found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training import listen, stage1, stage2
from training.data import Track, tracks
from training.latents import cache_latents, decode
from training.measures import lip_sync
from training.measures.ablation import FULL, Results, Row, write
from training.measures.baselines import baselines
from training.measures.judge import Judge, Sight
from training.measures.reach import news_age_s, reach_figures
from training.measures.system import System, portraits
from training.rollout import RolloutConfig, rollout
from training.whole import kept
from training.workers import done, limit_threads
from visavis import config as configs
from visavis.config import FRAME_RATE_HZ, SIZES, EchoConfig
from visavis.nn.echo import Echo, load_echo, load_vae

NOT_ECHO = ("motion", "articulation")
TALKING_PARTS = (*NOT_ECHO, "decoupling")  # that stage 1 knows
SWAPPED_BLOCKS = 50  # ten seconds


@dataclass(frozen=True)
class Variant:
    """What is left out."""

    without: tuple[str, ...] = NOT_ECHO
    window_blocks: int | None = None  # of the past that are heard
    listens: bool = True


def leaving_out(part: str) -> Variant:
    """ECHO without one of its parts."""
    return Variant((*NOT_ECHO, part))


VARIANTS: Mapping[str, Variant] = {
    FULL: Variant(),
    "without LPE": leaving_out("perception"),
    "without HBCU": leaving_out("understanding"),
    "without LAU": leaving_out("affect"),
    "without SDCM": leaving_out("decoupling"),
    "2 s window": Variant(window_blocks=10),
    "audio only": Variant((*NOT_ECHO, "affect"), listens=False),
}


@dataclass(frozen=True)
class Ablation:
    """Settings of the whole experiment."""

    seeds: int = 3
    seconds: float = 40.0  # of each held-out track that are measured
    num_steps: int = 4
    audio_guidance_scale: float = 1.0
    user_guidance_scale: float = 1.0
    stage1: stage1.Stage1Training = field(
        default_factory=lambda: stage1.Stage1Training(size="femto")
    )
    listen: listen.Listening = field(default_factory=listen.Listening)
    stage2: stage2.Stage2Training = field(default_factory=stage2.Stage2Training)


@dataclass(frozen=True)
class Laboratory:
    """Where all runs of an experiment find what they need and leave what they have."""

    cache: Path
    vae: Path
    out: Path
    settings: Ablation
    lip_scorer: Path | None = None

    @property
    def size(self) -> EchoConfig:
        """Of all networks."""
        return SIZES[self.settings.stage1.size]()

    @property
    def people(self) -> list[Track]:
        """Those that are held out."""
        return tracks(self.cache, "test")

    @property
    def frames(self) -> int:
        """How many of each track are measured."""
        block_frames = self.size.block_frames
        wanted = round(self.settings.seconds * FRAME_RATE_HZ) // block_frames
        return min(wanted, *(track.blocks for track in self.people)) * block_frames


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
    def figures(self) -> Path:
        """Its figures."""
        return self.folder / "figures.json"

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
            audio_guidance_scale=settings.audio_guidance_scale,
            user_guidance_scale=settings.user_guidance_scale,
            with_user=variant.listens,
            window_blocks=variant.window_blocks,
        )


def train_to_talk(lab: Laboratory, run: Run) -> None:
    """The stage 1 of a run, unless it is done."""
    settings = lab.settings.stage1
    first = replace(
        settings,
        without=tuple(part for part in run.variant.without if part in TALKING_PARTS),
        loop=replace(settings.loop, seed=run.seed),
    )
    if not (run.first_stage / "checkpoint" / "manifest.json").exists():
        stage1.train(lab.cache, lab.vae, run.first_stage, first)


def train_to_hear(lab: Laboratory, run: Run) -> Path:
    """What a run's stage 2 begins with: stage 1, with ears if it is to have any."""
    begins, folder, variant = run.first_stage / "checkpoint", run.folder / "listen", run.variant
    if not variant.listens:
        return begins
    settings = lab.settings.listen
    hearing = replace(
        settings,
        without=variant.without,
        window_blocks=variant.window_blocks,
        loop=replace(settings.loop, seed=run.seed),
    )
    return listen.train(lab.cache, lab.vae, begins, folder, hearing)


def train_to_listen(lab: Laboratory, run: Run) -> Path:
    """The stage 2 of a run, unless it is done; returns the checkpoint's folder."""
    settings, variant = lab.settings.stage2, run.variant
    second = replace(
        settings,
        without=variant.without,
        window_blocks=variant.window_blocks,
        user_dropout=settings.user_dropout if variant.listens else 1.0,
        due_weight=settings.due_weight if variant.listens else 0.0,
        loop=replace(settings.loop, seed=run.seed),
    )
    finished = run.folder / "checkpoint"
    if not (finished / "manifest.json").exists():
        stage2.train(lab.cache, lab.vae, train_to_hear(lab, run), run.folder, second)
    return finished


def finish(lab: Laboratory, run: Run) -> Row:
    """Stage 2 of a run and all its figures, kept beside it."""
    return kept(run.figures, lambda: measure(lab, run, train_to_listen(lab, run)))


def measure(lab: Laboratory, run: Run, checkpoint: Path) -> Row:
    """All figures of one trained run."""
    judge, vae = judge_of(lab), load_vae(lab.vae)
    echo, portrait = load_echo(checkpoint), portraits(judge.people)
    blocks = judge.frames // judge.reference.block_frames
    latents = rollout(echo, judge.people, run.rollout(lab.settings, blocks))
    made = System(run.name, lambda n: decode(vae, latents[n], portrait(n)), portrait, "baseline")
    sight = judge.look(made)
    return judge.row(sight) | reach(judge, sight) | swap(lab, run, echo, latents)


def swap(lab: Laboratory, run: Run, echo: Echo, own: Tensor) -> dict[str, float]:
    """How far another user reaches into the mouth, of those who listen (`user_swap_report`)."""
    if not run.variant.listens:
        return {}
    blocks = min(SWAPPED_BLOCKS, lab.frames // echo.config.block_frames)
    return stage2.user_swap_report(echo, lab.people, own, run.rollout(lab.settings, blocks))


def reach(judge: Judge, sight: Sight) -> dict[str, float]:
    """`reach_AGE` and `reach_count_AGE`: likeness of listening faces by how old the news are."""
    clips = [
        (ours.motion["exp"], true.motion["exp"], track.truth["speaking"], news_age_s(*causes))
        for ours, true, track, causes in zip(
            sight.observations,
            judge.truth.observations,
            judge.people,
            map(causes_of, judge.people),
            strict=True,
        )
        if ours.motion is not None and true.motion is not None and causes
    ]
    found = reach_figures(*zip(*clips, strict=True)) if clips else {}
    return {f"reach_{age}": one.r for age, one in found.items()} | {
        f"reach_count_{age}": one.count for age, one in found.items()
    }


def causes_of(track: Track) -> list[np.ndarray]:
    """What either person of a conversation reacts to; empty where the corpus does not say so."""
    truths = track.truth, track.user.truth
    return [t["cause"] for t in truths] if all("cause" in t for t in truths) else []


@cache
def judge_of(lab: Laboratory) -> Judge:
    """Who measures; one in each process, as it looks at the truth first."""
    scorer = None if lab.lip_scorer is None else lip_sync.load(lab.lip_scorer)
    return Judge(lab.people, tracks(lab.cache, "train"), lab.frames, lab.size, scorer)


def measure_baselines(lab: Laboratory) -> dict[str, Row]:
    """The rows of the baselines, the truth's first."""

    def rows() -> dict[str, Row]:
        judge = judge_of(lab)
        truth, *rest = baselines(judge.people, tracks(lab.cache, "train"), judge.frames)
        found = {system.name: judge.row(judge.look(system)) for system in rest}
        return {truth.name: judge.row(judge.truth), **found}

    return kept(lab.out / "baselines.json", rows)


def begin(job: Callable[[], object]) -> None:
    """One job, on one thread also where the environment came too late or is not minded."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    job()


def each_done(jobs: Sequence[Callable[[], object]], workers: int, name: str) -> Iterator[None]:
    """Do all jobs, in this process if one is enough; yields after each."""
    doing = map(begin, jobs) if workers == 1 else done(begin, jobs, workers)
    for _ in tqdm(doing, name, len(jobs), unit="job"):
        yield


def conduct(lab: Laboratory, seeds: Sequence[int], names: Sequence[str], workers: int) -> str:
    """Do what is not done, write tables and plots as figures come; returns the last table."""
    runs = [Run(name, seed, lab.out) for seed in seeds for name in names]
    beginnings = {run.first_stage: run for run in runs}.values()
    first = [partial(measure_baselines, lab), *(partial(train_to_talk, lab, r) for r in beginnings)]
    for _ in each_done(first, workers, "baselines, stage 1"):
        pass
    then = [partial(finish, lab, run) for run in runs]
    table = ""
    for _ in each_done(then, workers, "stage 2, figures"):
        table = write_found(lab, runs)
    return table


def write_found(lab: Laboratory, runs: Sequence[Run]) -> str:
    """Tables and plots of those runs that are measured; returns the table, if there is one yet."""
    measured = [run for run in runs if run.figures.exists()]
    found: dict[str, dict[int, Row]] = {name: {} for name in VARIANTS}
    for run in measured:
        found[run.name][run.seed] = json.loads(run.figures.read_text())
    if not found[FULL]:  # there is nothing yet to compare with
        return ""
    settings = lab.settings
    facts = {
        "tracks": len(lab.people),
        "seconds_a_track": lab.frames / FRAME_RATE_HZ,
        "steps": " + ".join(
            str(part.loop.steps) for part in (settings.stage1, settings.listen, settings.stage2)
        ),
        "seeds": len({run.seed for run in measured}),
    }
    rows: Results = {name: own for name, own in found.items() if own}
    return write(lab.out, rows, measure_baselines(lab), facts)


def main(
    cache: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    config: Annotated[Path | None, typer.Option(help="settings as JSON")] = None,
    lip_scorer: Annotated[Path | None, typer.Option("--lip-sync")] = None,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
    only: Annotated[list[int] | None, typer.Option(help="the seeds to do; all without it")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="those to do; all without it")] = None,
) -> None:
    """Train and measure every variant under every seed; writes tables and plots to OUT."""
    if unknown := set(variant or ()) - set(VARIANTS):
        raise typer.BadParameter(f"got {sorted(unknown)}, expected some of {list(VARIANTS)}")
    limit_threads()
    settings = Ablation() if config is None else configs.load(Ablation, config)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(configs.to_json(settings))
    cache_latents(cache, vae)
    lab = Laboratory(cache, vae, out, settings, lip_scorer)
    print(conduct(lab, only or range(settings.seeds), variant or list(VARIANTS), workers))


if __name__ == "__main__":
    typer.run(main)
