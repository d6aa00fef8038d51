"""This is where it is put to the test what a long memory is worth, without any face being made.

    python -m training.mood CACHE OUT [--spoken] [--config JSON] [--workers 2]

News, good or bad, are on people's minds long after they were told. The LCU alone is taught to say
how much (the truth's `sobered` and `lifted`; read from f_pu as in `training.listen`) of people whom
it has never met, as it hears all of their conversation or its last two seconds, and as it sees the
user's face or not. For a face may tell by itself what lies back: who has told bad news looks it for
as long as they weigh on them. A memory is worth what it adds to that. With `--spoken` the ears that
do not see learn from conversations without faces (`training.corpus.spoken`), of which there may be
many more.

Written are `OUT/mood.json`, every figure of every run, and `OUT/mood.png`. A stopped run goes on
where it was.

Legend: B tracks, n blocks, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.data import WEIGHED, Track, tracks
from training.expression import Labels, every_few, shown
from training.hearing import Hindrance
from training.latents import SPLITS
from training.listen import Listening, draw_conversations, listening_loss, middles, read
from training.loop import Loop, LoopConfig
from training.measures.reach import by_age, news_age_s
from training.probe import correlation
from training.whole import kept
from training.workers import done, limit_threads
from visavis import config as configs
from visavis import record
from visavis.config import SIZES
from visavis.nn.echo import Echo

EDGES_S = (0.0, 10.0, 20.0, 40.0, np.inf)  # of how long ago the latest news were told
FACELESS = Hindrance(voice_dropout=0.0, face_dropout=1.0, voice_noise=0.0, face_noise=0.0)
Figures = dict[str, float]


@dataclass(frozen=True)
class Ear:
    """What an LCU is given: the blocks before now, all without a number, and the user's face."""

    window_blocks: int | None = None
    sees: bool = True


EARS: Mapping[str, Ear] = {
    "all of voice and face": Ear(),
    "2 s of voice and face": Ear(window_blocks=10),
    "all of the voice": Ear(sees=False),
    "2 s of the voice": Ear(window_blocks=10, sees=False),
}


@dataclass(frozen=True)
class MoodTraining:
    """Settings of the experiment."""

    size: str = "nano"
    seeds: int = 3
    listen: Listening = field(
        default_factory=lambda: Listening(
            loop=LoopConfig(
                steps=400, learning_rate=1e-3, weight_decay=1e-2, warmup_steps=30, ema_decay=0.98
            )
        )
    )


@dataclass(frozen=True)
class Run:
    """One ear under one seed."""

    cache: Path
    out: Path
    settings: MoodTraining
    name: str
    seed: int
    spoken: bool = False

    @property
    def ear(self) -> Ear:
        """What is given."""
        return EARS[self.name]

    @property
    def figures(self) -> Path:
        """Where its figures are kept."""
        return self.out / f"seed_{self.seed}" / self.name.replace(" ", "_") / "figures.json"

    def tracks(self, split: str) -> list[Track]:
        """Whom is learned from, or who is held out."""
        return tracks(self.cache, split, spoken=self.spoken)


def moods_among(pool: Sequence[Track]) -> Labels:
    """How much news weigh on people, as `training.listen` takes labels."""
    values = np.concatenate([shown(track, WEIGHED, every_few(track)) for track in pool])
    return Labels(WEIGHED, values.mean(0), values.std(0))


def learn(run: Run) -> Figures:
    """Train one ear, or go on, and measure it, unless that is done."""

    def measured() -> Figures:
        pool, held_out = run.tracks("train"), run.tracks("test")
        labels = moods_among(pool)
        return measure(trained(run, pool, labels), held_out, labels, run.ear)

    return kept(run.figures, measured)


def trained(run: Run, pool: Sequence[Track], labels: Labels) -> Echo:
    """An LCU that has learned to say what is on people's minds."""
    listening, ear = run.settings.listen, run.ear
    if not ear.sees:
        listening = replace(listening, hindrance=replace(listening.hindrance, face_dropout=1.0))
    listening = replace(listening, window_blocks=ear.window_blocks)
    torch.manual_seed(run.seed)
    echo = Echo(SIZES[run.settings.size]()).train().requires_grad_(False)
    echo.lcu_encoder.requires_grad_(True)
    loop = Loop(run.figures.parent, echo, replace(listening.loop, seed=run.seed))

    def losses() -> dict[str, Tensor]:
        people, stop = draw_conversations(pool, listening)
        return {"loss": listening_loss(loop.model, people, stop, labels, listening)}

    for _ in loop:
        loop.update(losses)
    return loop.averaged.eval()


def measure(echo: Echo, held_out: Sequence[Track], labels: Labels, ear: Ear) -> Figures:
    """`r_10-20`: correlation of the mood as it is read with the true one, lifted less sobered,
    over all blocks whose latest news were told so many seconds ago; `blocks_10-20`: how many."""
    hindrance = None if ear.sees else FACELESS
    found_mood, due = read(echo, labels, held_out, ear.window_blocks, hindrance)
    middle = middles(range(due.shape[1]), echo.config.block_frames)
    ages_s = np.stack(
        [news_age_s(t.truth["cause"], t.user.truth["cause"])[middle] for t in held_out]
    )
    sign = np.array([-1.0, 1.0])  # of WEIGHED
    ours, true = found_mood.numpy() @ sign, due.numpy() @ sign
    found: Figures = {}
    for age, told in by_age(ages_s, EDGES_S).items():
        if told.any():
            found |= {f"r_{age}": correlation(ours[told], true[told])}
            found |= {f"blocks_{age}": float(told.sum())}
    return found


def ages_of(figures: Figures) -> list[str]:
    """Such as `10-20`, the newest news first."""
    return [name.removeprefix("r_") for name in figures if name.startswith("r_")]


def spread(runs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of every correlation."""
    found = {f"r_{age}": np.array([run[f"r_{age}"] for run in runs]) for age in ages_of(runs[0])}
    return {
        name: {"mean": float(r.mean()), "deviation": float(r.std())} for name, r in found.items()
    }


def write(out: Path, results: Mapping[str, Sequence[Figures]], facts: Mapping[str, object]) -> None:
    """The figures and the plot."""
    summary = {name: spread(runs) for name, runs in results.items()}
    record.write(out / "mood.json", "mood", settings=facts, summary=summary, raw=results)
    plot(results, out / "mood.png")


def plot(results: Mapping[str, Sequence[Figures]], path: Path) -> None:
    """Correlation by age of the news: a line an ear, its mean and standard deviation over seeds."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    ages = ages_of(next(iter(results.values()))[0])
    for place, (name, runs) in enumerate(results.items()):
        r = spread(runs).values()
        x = np.arange(len(ages)) + 0.04 * (place - len(results) / 2)
        means, deviations = ([one[kind] for one in r] for kind in ("mean", "deviation"))
        style = "-" if EARS[name].sees else "--"
        axes.errorbar(x, means, deviations, fmt="o" + style, capsize=3, label=name)
    axes.set_xticks(range(len(ages)), [f"{age} s" for age in ages])
    axes.set(xlabel="since the latest news", ylabel="mood as read against the truth, r")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(
    cache: Annotated[Path, typer.Argument(help="A rendered corpus's, see training.data.")],
    out: Path,
    spoken: Annotated[bool, typer.Option(help="Voices alone, see training.corpus.spoken.")] = False,
    config: Annotated[Path | None, typer.Option(help="settings as JSON")] = None,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
) -> None:
    """Teach every ear under every seed; writes figures and a plot to OUT."""
    limit_threads()
    settings = MoodTraining() if config is None else configs.load(MoodTraining, config)
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name, ear in EARS.items() if not (spoken and ear.sees)]
    runs = [
        Run(cache, out, settings, name, seed, spoken)
        for seed, name in product(range(settings.seeds), names)
    ]
    for _ in tqdm(done(learn, runs, workers), total=len(runs), unit="run"):
        pass
    results = {name: [learn(run) for run in runs if run.name == name] for name in names}
    facts = {split: len(runs[0].tracks(split)) for split in SPLITS} | {
        "size": settings.size,
        "steps": settings.listen.loop.steps,
        "spoken": spoken,
    }
    write(out, results, facts)


if __name__ == "__main__":
    typer.run(main)
