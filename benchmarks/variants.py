"""This is where other ways to run the networks are held against the usual one: speed and fidelity.

    python -m export.int8                # for the variant int8
    python -m benchmarks.variants

A variant is a name that `visavis serve --config-name` takes: weights of eight bits, OpenVINO. Those
that this machine lacks something for are left out, and it is said why (`visavis doctor`).

*Speed*: boundaries are those of `benchmarks.latency`. The servers of all variants run all the time,
and each round takes one run of each, so a machine that slows down does so for all: read the ratios.

*Fidelity*: a conversation under one seed, raw pictures, against the default's frame of that moment.
How heads and eyes move is drawn by lots, and sooner or later rounding tips one: from then on the
head is held otherwise, which is as good but no longer the same picture. So PSNR and SSIM are of the
frames before, and `parted_s` says when that was; Pearson's r of how far the mouth is open, by the
client's own face mesh, is of the whole. The default under another seed, whose lots are all
different, is there for comparison.

Written are `variants_SIZE.json`, with every sample, `variants_SIZE.png`, and `variants_SIZE.jpg`:
the same moments, a variant a row.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from PIL import Image
from rich.console import Console
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from visavis_client import Client
from visavis_client.face import FaceFinder

from benchmarks import REPOSITORY, RESULTS, tables
from benchmarks.latency import NETWORKS, Result, bare, live, networks, passes, stream
from benchmarks.live import Talk, example
from benchmarks.unwatched import served
from training.measures.motion import apertures, landmarks
from visavis import config as configs
from visavis import record
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, EchoConfig
from visavis.serving.doctor import models
from visavis.serving.model_config import config_names

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

Row = dict[str, Any]

DEFAULT = "default"
OTHER_SEED = "default, another seed"
SPEED = ("bare_block_ms", "frames_per_second", "live_block_p50_ms", "live_block_p95_ms")
PARTED_DB = 45.0  # rounding alone leaves more
MAX_PSNR_DB = 100.0  # of equal pictures, whose ratio is infinite
SHEET_MOMENTS = 6


@dataclass(frozen=True)
class Fidelity:
    """Frames against the default's: `psnr_db` and `ssim` of every frame, `mouth_r` of all."""

    psnr_db: list[float]
    ssim: list[float]
    mouth_r: float

    @property
    def parted(self) -> int:
        """The first frame that differs by more than rounding, or how many there are."""
        below = np.array(self.psnr_db) < PARTED_DB
        return int(np.argmax(below)) if below.any() else len(below)

    def summary(self) -> dict[str, float | None]:
        """The figures of the table."""
        same = slice(0, self.parted)
        return {
            "parted_s": self.parted / FRAME_RATE_HZ,
            "psnr_db": float(np.mean(self.psnr_db[same])) if self.parted else None,
            "ssim": float(np.mean(self.ssim[same])) if self.parted else None,
            "mouth_r": self.mouth_r,
        }


def missing(repository: Path, variant: str) -> str:
    """What this machine lacks for a variant; "" when nothing."""
    failed = [check for check in models(repository, variant) if not check.ok]
    return "; ".join(f"{check.name}: {check.found} -> {check.remedy}" for check in failed[:1])


def pictures(client: Client, talk: Talk, seed: int) -> np.ndarray:
    """(T, H, W, 3) uint8: the frames of a whole conversation as they are made."""
    block = client.server.block_frames
    chunks = itertools.islice(talk.chunks(block), talk.frames // block)
    with client.session(
        portrait=talk.portrait, seed=seed, image_format="raw", user_audio=True, user_video=True
    ) as session:
        return np.stack([frame.image for frame in session.stream(chunks)])


def fidelity(
    images: np.ndarray, usual: np.ndarray, mouth: np.ndarray, usual_mouth: np.ndarray
) -> Fidelity:
    """Of (T, H, W, 3) uint8 frames and (T,) apertures against the usual ones."""
    pairs: list[Any] = list(zip(usual, images, strict=True))
    with np.errstate(divide="ignore"):
        psnr = np.minimum([peak_signal_noise_ratio(*pair) for pair in pairs], MAX_PSNR_DB)
    ssim = np.array([structural_similarity(*pair, channel_axis=2) for pair in pairs])
    known = np.isfinite(mouth) & np.isfinite(usual_mouth)
    mouth_r = np.corrcoef(mouth[known], usual_mouth[known])[0, 1]
    return Fidelity(psnr.tolist(), ssim.tolist(), float(mouth_r))


def shorter(talk: Talk, seconds: float) -> Talk:
    """The beginning of a conversation."""
    frames = min(talk.frames, round(seconds * FRAME_RATE_HZ))
    samples = frames * SAMPLES_PER_FRAME
    return replace(
        talk,
        avatar_audio=talk.avatar_audio[:samples],
        user_audio=talk.user_audio[:samples],
        user_video=talk.user_video[:frames],
    )


def compared(taken: dict[str, np.ndarray]) -> dict[str, Fidelity]:
    """Every take against the default's."""
    finder = FaceFinder()
    mouths = {name: apertures(landmarks(finder, images)) for name, images in taken.items()}
    return {
        name: fidelity(images, taken[DEFAULT], mouths[name], mouths[DEFAULT])
        for name, images in taken.items()
        if name != DEFAULT
    }


def rows(results: dict[str, Result], found: dict[str, Fidelity]) -> list[Row]:
    """The table: a line a variant, and one for another seed. None is not measured."""
    usual_s = results[DEFAULT].bare_block_s
    lines: list[Row] = []
    for name in (*results, OTHER_SEED):
        line: Row = {"variant": name}
        if name in results:
            summary = results[name].summary()
            line |= {key: summary[key] for key in SPEED}
            line["bare_faster"] = usual_s / results[name].bare_block_s
        if name in found:
            line |= found[name].summary()
        lines.append(line)
    blank = dict.fromkeys(key for line in lines for key in line)
    return [blank | line for line in lines]


def bare_rows(results: dict[str, Result]) -> list[Row]:
    """Milliseconds that each network takes in a block, a line a network."""
    steps = results[DEFAULT].num_steps
    return [
        {"bare, ms a block": network}
        | {
            name: 1e3 * passes(network, steps) * float(np.median(result.bare_s[network]))
            for name, result in results.items()
        }
        for network in NETWORKS
    ]


def plot(results: dict[str, Result], found: dict[str, Fidelity], size: str, path: Path) -> None:
    """Where the time of a block goes, and how near the frames are to the default's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    ends = np.zeros(len(results))
    for row in bare_rows(results):
        network, *times = row.values()
        left.barh(list(results), times, left=ends, label=str(network))
        ends += np.array(times, float)
    left.set(xlabel="bare, ms a block", title=size)
    left.invert_yaxis()
    left.legend(fontsize=7)
    for name, one in found.items():
        right.plot(np.arange(len(one.psnr_db)) / FRAME_RATE_HZ, one.psnr_db, label=name)
    right.set(xlabel="s", ylabel="dB, PSNR against the default", title="one seed, raw frames")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet(taken: dict[str, np.ndarray]) -> np.ndarray:
    """The same evenly spaced moments of every take, one below the other."""
    shortest = min(map(len, taken.values()))
    moments = np.linspace(0, shortest - 1, SHEET_MOMENTS + 1).astype(int)[1:]
    return np.vstack([np.hstack(list(images[moments])) for images in taken.values()])


def a_line_each(lines: list[Row]) -> list[Row]:
    """A table's rows with variants side by side: what were columns are lines."""
    first, *others = lines[0]
    return [{first: key, **{line[first]: line[key] for line in lines}} for key in others]


def measure(
    repository: Path, results: dict[str, Result], *, runs: int, seconds: float, compared_s: float
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, str]]]:
    """Fill `results`, by variant; the frames of each, and what computed each one's networks."""
    config = configs.load(EchoConfig, repository / "config.json")
    opened = {name: networks(repository, name) for name in results}
    with ExitStack() as stack:
        chosen = {name: None if name == DEFAULT else name for name in results}
        places = {
            name: stack.enter_context(served(repository, config_name=config_name))
            for name, config_name in chosen.items()
        }
        clients = {name: client for name, (_, client) in places.items()}
        talk = example(clients[DEFAULT].server)
        told = shorter(talk, compared_s)
        taken = {name: pictures(client, told, seed=0) for name, client in clients.items()}
        taken[OTHER_SEED] = pictures(clients[DEFAULT], told, seed=1)
        told = shorter(talk, seconds)
        for _ in range(runs):
            for name, client in clients.items():
                stream(client, told, results[name])
                live(client, told, results[name])
                bare(opened[name], config, results[name], runs=10)
        return taken, {name: server.providers() for name, (server, _) in places.items()}


def main(
    repository: Annotated[Path, typer.Option()] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    runs: Annotated[int, typer.Option(help="Rounds of speed, one run of each variant.")] = 3,
    seconds: Annotated[float, typer.Option(help="Of conversation, in a run of speed.")] = 8.0,
    compared_s: Annotated[float, typer.Option(help="Of conversation, for the frames.")] = 15.0,
) -> None:
    """Measure every variant that this machine can serve."""
    head, console = record.environment(), Console()
    config = configs.load(EchoConfig, repository / "config.json")
    lacking = {name: missing(repository, name) for name in config_names(repository)}
    left_out = {name: lack for name, lack in lacking.items() if lack}
    for name, lack in left_out.items():
        console.print(f"{name} is left out: {lack}", markup=False)
    results = {
        name: Result(config.name, config.block_frames, config.sampling.num_steps)
        for name in (DEFAULT, *(name for name in lacking if name not in left_out))
    }
    settings = {"runs": runs, "seconds": seconds, "compared_s": compared_s}
    with console.status(f"measuring {', '.join(results)}"):
        taken, providers = measure(repository, results, **settings)
        found = compared(taken)
    lines, networks_lines = rows(results, found), bare_rows(results)
    path = out / f"variants_{config.name}.json"
    record.write(
        path,
        "variants",
        settings=settings,
        summary={
            "variants": lines,
            "bare": networks_lines,
            "providers": providers,
            "left_out": left_out,
        },
        raw={
            "speed": {name: asdict(result) for name, result in results.items()},
            "fidelity": {name: asdict(one) for name, one in found.items()},
        },
        measured_on=head,
    )
    plot(results, found, config.name, path.with_suffix(".png"))
    Image.fromarray(sheet(taken)).save(path.with_suffix(".jpg"), quality=88)
    console.print(
        tables.in_terminal(a_line_each(lines), config.name),
        tables.in_terminal(networks_lines, "each network"),
    )


if __name__ == "__main__":
    typer.run(main)
