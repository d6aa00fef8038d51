"""This is where it is seen whether an avatar stays itself when it talks for long.

    python -m training.drift --cache CACHE --vae CKPT --echo CKPT --out OUT
                             [--minutes 10] [--people N]

Each held-out person talks for `minutes`: their own conversation comes again and again, and nothing
restarts with it; the last frames and the LCU's state go on through the joins. Once a second the
frames of a block and the first of the next are decoded and measured:

- `identity_similarity`: cosine of dlib's embeddings of face and portrait; 0.9 between strangers
- `identity_distance`: their distance, which tells small changes better
- `sharpness`: variance of the Laplacian of the face's grey levels
- `flicker`: mean absolute change a frame, in grey levels, of the picture's border

The first minute is compared with the last one that has its conversation again, so that the same is
said and heard in both; where there is none, with the last of all. A run of less than two minutes is
halved instead. The goal: identity_similarity and sharpness at most 3 % worse. What the VAE makes of
the true latents (`reconstruction`) stands beside.

Written are `drift.json`, every sample included, `drift.md`, `drift.png` (curves over time) and
`drift.jpg` (the portrait, a frame a minute and the last one, a row a person). Ten minutes of
pictures are never in memory at once: they are decoded, measured and dropped as the talk goes.

Legend: B people, S seconds, n frames, F block frames, C h w latents, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import cv2
import matplotlib
import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.data import Track, tracks
from training.identity import cosines, distances, embeddings
from training.latents import cache_latents, decode
from training.measures.report import save_plot
from training.repeated import Repeated
from training.rollout import RolloutConfig, rolled_blocks
from visavis import record
from visavis.config import FRAME_RATE_HZ
from visavis.markdown import listed, table
from visavis.nn.echo import Echo, load_echo, load_vae
from visavis.nn.vae import VAE

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

MINUTE_S = 60
AT_ONCE = 4  # people who talk together; what they hear takes some 40 MB each in ten minutes
SHOWN = 4  # people on the contact sheet
FACE = (slice(0.27, 0.84), slice(0.24, 0.76))  # rows and columns of an aligned crop, from 0 to 1
BORDER = 1 / 16  # of the picture's side
LEAST_CHANGE_PERCENT = {"identity_similarity": -3.0, "sharpness": -3.0}  # the goal

Samples = Mapping[str, np.ndarray]  # (S,) of each figure


@dataclass
class Diary:
    """What is kept of one person's talk: figures of every second, a picture of every minute."""

    seconds: list[dict[str, float]] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    @property
    def samples(self) -> Samples:
        """The figures over time."""
        return {name: np.array([s[name] for s in self.seconds]) for name in self.seconds[0]}


@dataclass(frozen=True)
class Change:
    """A figure's means over the first minute and the last."""

    first: float
    last: float

    @property
    def percent(self) -> float | None:
        """Of the first; None from 0."""
        return 100 * (self.last / self.first - 1) if self.first else None

    def __str__(self) -> str:
        percent = "–" if self.percent is None else f"{self.percent:+.1f} %"
        return f"{self.first:.3f} → {self.last:.3f} ({percent})"


Changes = Mapping[str, Change]  # of each figure


def compared(seconds: int, pass_s: float) -> tuple[slice, slice]:
    """Which seconds of a talk are its first minute and its last, both with the same conversation.

    The last one begins with a pass of `pass_s`, the latest that leaves room. Where none is left by
    the first, the last seconds of all are taken.
    """
    length = min(MINUTE_S, seconds // 2)
    begins = round((seconds - length) // pass_s * pass_s)
    start = begins if begins >= length else seconds - length
    return slice(0, length), slice(start, start + length)


def changes_of(samples: Samples, pass_s: float) -> Changes:
    """How far each figure changes in a talk whose conversation lasts `pass_s` once."""
    first, last = compared(len(next(iter(samples.values()))), pass_s)
    return {
        name: Change(float(x[first].mean()), float(x[last].mean())) for name, x in samples.items()
    }


def mean_changes(people: Sequence[Changes]) -> Changes:
    """Of the means over people, each in their own last minute."""
    return {
        name: Change(*np.mean([(c[name].first, c[name].last) for c in people], axis=0).tolist())
        for name in people[0]
    }


def sharpness(picture: np.ndarray) -> float:
    """Variance of the Laplacian over the face of an aligned crop (H, W, 3) uint8."""
    side = len(picture)
    rows, columns = (slice(int(s.start * side), int(s.stop * side)) for s in FACE)
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F)[rows, columns].var())


def flicker(frames: np.ndarray) -> float:
    """Mean absolute change from frame to frame of the border of (n, H, W, 3) uint8, n ≥ 2."""
    width = max(1, round(frames.shape[1] * BORDER))
    border = np.ones(frames.shape[1:3], bool)
    border[width:-width, width:-width] = False
    return float(np.abs(np.diff(frames[:, border].astype(np.int16), axis=0)).mean())


def look(frames: np.ndarray, portrait: np.ndarray) -> dict[str, float]:
    """The figures of one second: its first frames (n, H, W, 3) uint8; portrait (1, 128) of dlib."""
    face = embeddings(frames[:1])
    return {
        "identity_similarity": float(cosines(face, portrait)[0, 0]),
        "identity_distance": float(distances(face, portrait)[0, 0]),
        "sharpness": sharpness(frames[0]),
        "flicker": flicker(frames),
    }


def moments(blocks: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The first (B, frames, C, h, w) of every whole second of a stream of (B, F, C, h, w)."""
    waiting: Tensor | None = None
    for block in blocks:
        waiting = block if waiting is None else torch.cat([waiting, block], dim=1)
        while waiting.shape[1] >= FRAME_RATE_HZ:
            yield waiting[:, :frames]
            waiting = waiting[:, FRAME_RATE_HZ:]


def follow(
    echo: Echo, vae: VAE, people: Sequence[Track], settings: RolloutConfig, bar: tqdm
) -> list[Diary]:
    """Let some people talk together, and keep a diary of each."""
    diaries = [Diary() for _ in people]
    portraits = [embeddings(person.frames[:1]) for person in people]
    last = settings.blocks * echo.config.block_frames // FRAME_RATE_HZ - 1
    talk = moments(rolled_blocks(echo, people, settings), looked_frames(echo))
    for second, latents in enumerate(talk):
        for person, diary, portrait, own in zip(
            people, diaries, portraits, latents.cpu(), strict=True
        ):
            frames = decode(vae, own, person.frames[0])
            diary.seconds.append(look(frames, portrait))
            if second % MINUTE_S == 0 or second == last:
                diary.pictures.append(frames[0])
            bar.update()
    return diaries


def follow_all(
    echo: Echo, vae: VAE, people: Sequence[Track], settings: RolloutConfig, bar: tqdm
) -> list[Diary]:
    """Everybody's diary, some people at a time."""
    diaries: list[Diary] = []
    for first in range(0, len(people), AT_ONCE):
        group = people[first : first + AT_ONCE]
        diaries += follow(echo, vae, group, replace(settings, seed=first), bar)
    return diaries


def looked_frames(echo: Echo) -> int:
    """How many frames of a second are decoded: a block's and the next one's first."""
    return echo.config.block_frames + 1


def reconstruction(vae: VAE, track: Track, looked: int) -> dict[str, float]:
    """The means of what the VAE makes of a track's first minute, or as long as it is."""
    true, portrait = track.latents[: MINUTE_S * FRAME_RATE_HZ], embeddings(track.frames[:1])
    starts = range(0, max(1, len(true) - looked + 1), FRAME_RATE_HZ)
    moments = [torch.from_numpy(true[n : n + looked].astype(np.float32)) for n in starts]
    pictures = (decode(vae, latents, track.frames[0]) for latents in moments)
    diary = Diary([look(frames, portrait) for frames in pictures])
    return {name: float(series.mean()) for name, series in diary.samples.items()}


def keeps(changes: Changes) -> bool:
    """Whether the goal is reached."""
    found = {name: changes[name].percent for name in LEAST_CHANGE_PERCENT}
    return all(p is not None and p >= LEAST_CHANGE_PERCENT[name] for name, p in found.items())


def markdown(
    changes: Mapping[str, Changes], best: Mapping[str, float], facts: Mapping[str, object]
) -> str:
    """A row a person and their mean: every figure in the first and the last minute."""
    head = ["person", *best, "within the goal"]
    lines = [
        [name, *map(str, found.values()), "yes" if keeps(found) else "no"]
        for name, found in changes.items()
    ]
    lines.append(["reconstruction", *(f"{value:.3f}" for value in best.values()), ""])
    return f"# Drift\n\n{listed(facts)}\n\n{table(head, lines)}\n"


def plot(people: Sequence[Samples], mean: Changes, best: Mapping[str, float], path: Path) -> None:
    """A panel a figure over time: everybody thin, their mean thick, the reconstruction dotted."""
    figure, axes = plt.subplots(len(mean), figsize=(11, 0.6 + 2.2 * len(mean)), sharex=True)
    for axis, (name, change) in zip(axes, mean.items(), strict=True):
        series = np.stack([samples[name] for samples in people], axis=1)  # (S, people)
        minutes = np.arange(len(series)) / MINUTE_S
        axis.plot(minutes, series, linewidth=0.5, color="tab:blue", alpha=0.4)
        axis.plot(minutes, series.mean(1), linewidth=1.5, color="tab:blue", label="mean")
        axis.axhline(best[name], linestyle=":", color="black", label="reconstruction")
        axis.set_title(f"{name}: {change}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0].legend(fontsize=8)
    axes[-1].set_xlabel("minutes")
    save_plot(figure, path)


def write(
    out: Path,
    people: Sequence[Repeated],
    diaries: Sequence[Diary],
    best: Mapping[str, float],
    facts: Mapping[str, object],
) -> str:
    """All that is written; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    samples = {p.name: diary.samples for p, diary in zip(people, diaries, strict=True)}
    each = {p.name: changes_of(samples[p.name], p.pass_s) for p in people}
    changes = {**each, "mean": mean_changes(list(each.values()))}
    summary = {
        "least_change_percent": LEAST_CHANGE_PERCENT,
        "within_the_goal": keeps(changes["mean"]),
        "reconstruction": best,
        "compared_s": {
            person.name: [
                (part.start, part.stop) for part in compared(len(d.seconds), person.pass_s)
            ]
            for person, d in zip(people, diaries, strict=True)
        },
        "changes": {
            person: {name: {**asdict(c), "percent": c.percent} for name, c in own.items()}
            for person, own in changes.items()
        },
    }
    raw = {
        person: {name: series.tolist() for name, series in own.items()}
        for person, own in samples.items()
    }
    table = markdown(changes, best, facts)
    record.write(out / "drift.json", "drift", settings=facts, summary=summary, raw=raw)
    (out / "drift.md").write_text(table)
    plot(list(samples.values()), changes["mean"], best, out / "drift.png")
    rows = zip(people[:SHOWN], diaries, strict=False)
    sheet = np.vstack([np.hstack([p.frames[0], *diary.pictures]) for p, diary in rows])
    cv2.imwrite(str(out / "drift.jpg"), sheet[..., ::-1])
    return table


def main(
    cache: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    echo: Annotated[Path, typer.Option(help="the checkpoint to judge")],
    out: Annotated[Path, typer.Option()],
    minutes: float = 10.0,
    people: Annotated[int | None, typer.Option(min=1, help="the first N; all without it")] = None,
    num_steps: Annotated[int | None, typer.Option(help="the size's own without it")] = None,
    audio_guidance: float = 1.0,
    user_guidance: float = 1.0,
    device: Annotated[str, typer.Option(help="the network's; pictures are the CPU's")] = "cpu",
    threads: int = 2,
) -> None:
    """Let held-out people talk for long; writes figures, table, plot and contact sheet to OUT."""
    seconds = round(minutes * MINUTE_S)
    if seconds < 2:
        raise typer.BadParameter(
            f"--minutes: got {minutes}, expected two seconds or more to compare; ask for more"
        )
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    network = load_echo(echo).to(device)
    decoder = load_vae(vae).to(memory_format=torch.channels_last)  # pyright: ignore
    held_out = tracks(cache, "test")[:people]
    if not held_out:
        raise typer.BadParameter(
            f"got no conversation in {cache / 'test'}, expected one or more; run training.data"
        )
    cache_latents(cache, vae)
    block_frames = network.config.block_frames
    blocks = -(-seconds * FRAME_RATE_HZ // block_frames)
    talkers = [Repeated(t.folder, t.partner, blocks, block_frames) for t in held_out]
    settings = RolloutConfig(
        blocks=blocks,
        num_steps=num_steps,
        audio_guidance_scale=audio_guidance,
        user_guidance_scale=user_guidance,
    )
    seen = [reconstruction(decoder, track, looked_frames(network)) for track in held_out]
    best = {name: float(np.mean([figures[name] for figures in seen])) for name in seen[0]}
    with tqdm(total=len(talkers) * seconds, desc="talking", unit="s") as bar:
        diaries = follow_all(network, decoder, talkers, settings, bar)
    facts = {
        "people": len(talkers),
        "seconds": seconds,
        "num_steps": num_steps or network.config.sampling.num_steps,
        "audio_guidance_scale": audio_guidance,
        "user_guidance_scale": user_guidance,
    }
    print(write(out, talkers, diaries, best, facts))


if __name__ == "__main__":
    typer.run(main)
