"""This is where it is seen what sampling steps and guidance buy, teacher beside student.

    python -m training.steps --cache CACHE --vae CKPT --out OUT --echo NAME=CKPT [--echo …]
                             [--steps 1,2,4,8] [--audio-guidance 1,2] [--user-guidance 1]
                             [--seconds 8]

Under every number of steps and every pair of guidance scales, each network talks through the
held-out people's conversations, and what it makes is measured as `training.evaluate` measures it. A
network may bring its own pair of scales, as in `teacher=runs/stage2/checkpoint@2,1`. What a setting
costs is counted in passes of the denoiser: steps times the predictions that guidance combines.

Written are `steps.json`, all figures of all settings; `steps.md`, a table of the most telling;
`steps.png`, three of them over steps, a line a network; and `steps.jpg`, the same moments under
each setting, the true ones on top.

Legend: B people, T frames, C h w latents, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import cv2
import matplotlib
import numpy as np
import torch
import typer

from training.data import Track, tracks
from training.latents import cache_latents, decode
from training.measures.figures import BY_NAME, Figure
from training.measures.judge import Judge
from training.measures.montage import captioned
from training.measures.report import ABSENT, save_plot
from training.measures.row import missing
from training.measures.system import System, portraits
from training.rollout import RolloutConfig, rollout
from visavis import checkpoint, record
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.guidance import weights
from visavis.markdown import listed, table
from visavis.nn.echo import Echo, load_echo, load_vae
from visavis.nn.vae import VAE

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

SHOWN = 2  # people on the contact sheet
TRUTH = "ground_truth"
COLUMNS = (
    "mouth_r",
    "mouth_amplitude",
    "closure_pbm",
    "fd_effnetlite0",
    "perceptual_effnetlite0",
    "own_portrait_nearest",
    "fd_exp",
    "sid_pooled_exp",
    "reaction_r",
)
NUMBER = r"(\d+(?:\.\d+)?)"
SYNTAX = re.compile(rf"([^=]+)=([^@]+)(?:@{NUMBER},{NUMBER})?")
PLOTTED = ("mouth_r", "mouth_amplitude", "fd_effnetlite0")

Row = Mapping[str, float]


@dataclass(frozen=True)
class Guidance:
    """A pair of guidance scales; 1 is the plain conditional prediction."""

    audio: float = 1.0
    user: float = 1.0

    def __str__(self) -> str:
        return f"{self.audio:g},{self.user:g}"


@dataclass(frozen=True)
class Network:
    """A checkpoint under the name that its rows have; guidance: its own, if it brings one."""

    name: str
    folder: Path
    guidance: Guidance | None = None

    @classmethod
    def parse(cls, text: str) -> Network:
        """From `NAME=CKPT` or `NAME=CKPT@AUDIO,USER`."""
        found = SYNTAX.fullmatch(text)
        if found is None:
            raise typer.BadParameter(
                f"--echo: got {text!r}, expected NAME=CKPT or NAME=CKPT@AUDIO,USER, such as "
                "teacher=runs/stage2/checkpoint@2,1"
            )
        name, folder, *scales = found.groups()
        own = None if scales[0] is None else Guidance(*map(float, scales))
        return cls(name, Path(folder), own)


@dataclass(frozen=True)
class Setting:
    """One row: a network, how many steps it takes, and how it is guided."""

    name: str
    num_steps: int
    guidance: Guidance

    @property
    def evaluations_per_block(self) -> int:
        """How often the denoiser is asked for one block."""
        return self.num_steps * len(weights(self.guidance.audio, self.guidance.user))

    @property
    def line(self) -> str:
        """What it shares with its other numbers of steps."""
        return self.name if self.guidance == Guidance() else f"{self.name} @{self.guidance}"

    def __str__(self) -> str:
        return f"{self.line}, {self.num_steps} step{'s' if self.num_steps > 1 else ''}"


def numbers(text: str, kind: type, option: str) -> list:
    """`1,2,4` as a list of positive numbers of a kind; typer.BadParameter otherwise."""
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise typer.BadParameter(
            f"{option}: got {text!r}, expected positive numbers with commas between, such as 1,2"
        )
    return found


def settings_of(
    network: Network, steps: Sequence[int], guidances: Sequence[Guidance]
) -> list[Setting]:
    """A network's rows; `guidances` are for one that brings none."""
    own = guidances if network.guidance is None else [network.guidance]
    return [Setting(network.name, count, guidance) for guidance, count in product(own, steps)]


def load(network: Network, size: EchoConfig, device: str) -> Echo:
    """Its weights, on the device; typer.BadParameter if they are for latents of another shape."""
    echo = load_echo(network.folder).to(device)
    ours, theirs = ((config.block_frames, *config.latent_shape) for config in (echo.config, size))
    if ours != theirs:
        raise typer.BadParameter(
            f"{network.name}: got blocks of latents {ours}, expected the VAE's {theirs}; name a "
            "checkpoint of its size"
        )
    return echo


def system(echo: Echo, vae: VAE, people: Sequence[Track], setting: Setting, blocks: int) -> System:
    """What the network makes of everybody under a setting."""
    how = RolloutConfig(
        blocks=blocks,
        num_steps=setting.num_steps,
        audio_guidance_scale=setting.guidance.audio,
        user_guidance_scale=setting.guidance.user,
    )
    latents = rollout(echo, people, how)
    portrait = portraits(people)
    return System(
        str(setting), lambda n: decode(vae, latents[n], portrait(n)), portrait, "baseline"
    )


def known(rows: Sequence[Row]) -> list[Figure]:
    """The columns that there is anything to say in."""
    return [BY_NAME[name] for name in COLUMNS if any(name in row for row in rows)]


def markdown(
    truth: Row,
    rows: Mapping[Setting, Row],
    notes: Mapping[str, str],
    facts: Mapping[str, object],
) -> str:
    """A row a setting under the true video's, and what the columns mean."""
    figures = known([truth, *rows.values()])
    names = [f"{figure.name} {figure.better}".strip() for figure in figures]
    head = ["network", "steps", "guidance audio,user", "evaluations a block", *names]

    def cells(found: Row) -> list[str]:
        return [f"{found[f.name]:z.{f.digits}f}" if f.name in found else ABSENT for f in figures]

    lines = [[TRUTH, ABSENT, ABSENT, ABSENT, *cells(truth)]]
    for s, found in rows.items():
        cost = str(s.evaluations_per_block)
        lines.append([s.name, str(s.num_steps), str(s.guidance), cost, *cells(found)])
    legend = [f"- `{figure.name}`: {figure.meaning}" for figure in figures]
    legend += [f"- not measured, `{figure}`: {reason}" for figure, reason in notes.items()]
    parts = ["# Sampling steps", listed(facts), table(head, lines), "\n".join(legend)]
    return "\n\n".join(parts) + "\n"


def plot(truth: Row, rows: Mapping[Setting, Row], path: Path) -> None:
    """A panel a figure over the number of steps, a line a network, the truth dotted."""
    names = [name for name in PLOTTED if any(name in row for row in rows.values())]
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False)
    lines = {setting.line: None for setting in rows}
    steps = sorted({setting.num_steps for setting in rows})
    for axis, name in zip(axes[0], names, strict=True):
        for line in lines:
            own = sorted((s for s in rows if s.line == line), key=lambda s: s.num_steps)
            values = [rows[setting].get(name, np.nan) for setting in own]
            axis.plot([setting.num_steps for setting in own], values, marker="o", label=line)
        axis.axhline(truth.get(name, np.nan), linestyle=":", color="black", label="true video")
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(count) for count in steps])
        axis.set_xlabel("steps")
        axis.set_title(f"{name}  {BY_NAME[name].better}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0][0].legend(fontsize=8)
    save_plot(figure, path)


def contact_sheet(strips: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """(H, W, 3) uint8: for each person their strip under every caption, one below the other."""
    people = range(len(next(iter(strips.values()))))
    return np.vstack([captioned(own[n], name) for n in people for name, own in strips.items()])


def write(
    out: Path,
    truth: Row,
    rows: Mapping[Setting, Row],
    strips: Mapping[str, Sequence[np.ndarray]],
    notes: Mapping[str, str],
    facts: Mapping[str, object],
) -> str:
    """All that is written; returns the table."""
    settings = [
        {**asdict(s), "evaluations_per_block": s.evaluations_per_block, "figures": found}
        for s, found in rows.items()
    ]
    table = markdown(truth, rows, notes, facts)
    record.write(
        out / "steps.json",
        "steps",
        settings=facts,
        summary={TRUTH: truth, "systems": settings},
        raw={"missing": notes},
    )
    (out / "steps.md").write_text(table)
    plot(truth, rows, out / "steps.png")
    cv2.imwrite(str(out / "steps.jpg"), contact_sheet(strips)[..., ::-1])
    return table


def main(
    cache: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    echo: Annotated[list[str], typer.Option(help="NAME=CKPT or NAME=CKPT@AUDIO,USER")],
    out: Annotated[Path, typer.Option()],
    steps: str = "1,2,4,8",
    audio_guidance: Annotated[str, typer.Option(help="of those without their own")] = "1",
    user_guidance: Annotated[str, typer.Option(help="of those without their own")] = "1",
    seconds: float = 8.0,
    device: Annotated[str, typer.Option(help="the networks'; pictures are the CPU's")] = "cpu",
    threads: int = 2,
) -> None:
    """Measure networks under many settings; writes figures, table, plot and sheet to OUT."""
    networks = [Network.parse(text) for text in echo]
    if len({network.name for network in networks}) < len(networks):
        raise typer.BadParameter(
            f"--echo: got the names {[n.name for n in networks]}, expected different ones"
        )
    audio = numbers(audio_guidance, float, "--audio-guidance")
    user = numbers(user_guidance, float, "--user-guidance")
    guidances = [Guidance(*pair) for pair in product(audio, user)]
    counts = numbers(steps, int, "--steps")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    decoder = load_vae(vae).to(memory_format=torch.channels_last)  # pyright: ignore
    size = checkpoint.load(vae, "vae").config
    loaded = [load(network, size, device) for network in networks]
    people, train = tracks(cache, "test"), tracks(cache, "train")
    blocks = min(int(seconds * FRAME_RATE_HZ) // size.block_frames, *(t.blocks for t in people))
    cache_latents(cache, vae)
    out.mkdir(parents=True, exist_ok=True)
    judge = Judge(people, train, blocks * size.block_frames, size)
    rows: dict[Setting, Row] = {}
    strips = {TRUTH: judge.truth.shown.strips[:SHOWN]}
    for network, trained in zip(networks, loaded, strict=True):
        for setting in settings_of(network, counts, guidances):
            sight = judge.look(system(trained, decoder, people, setting, blocks))
            rows[setting] = judge.row(sight)
            strips[str(setting)] = sight.shown.strips[:SHOWN]
    facts = {"tracks": len(people), "seconds_a_track": judge.frames / FRAME_RATE_HZ}
    print(write(out, judge.row(judge.truth), rows, strips, missing(people), facts))


if __name__ == "__main__":
    typer.run(main)
