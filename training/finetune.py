"""This is where an avatar becomes one person: a few minutes of their video are enough to begin.

    python -m training.finetune FILM [FILM …] --out RUN [--repository model_repository]
                                [--vae CKPT --echo CKPT] [--config JSON]

The films show one person, with their voice or silent. What is served now, or two checkpoints, is
where it begins; a tenth of each film, its end, is held out. The VAE's decoder learns to paint this
face, from its true latents and from what the denoiser predicts of it; of a silent film's mouths
from true ones alone, since nothing tells a prediction how they moved. All else stays: the encoder,
and with it what was learned of latents, and the denoiser. Of one person's minutes, one step learns
the mean of how they looked, which has no eyes, and nothing of whom they listened to.

Written are `RUN/vae/checkpoint`, ready for `python -m export` beside the denoiser's checkpoint, and
`RUN/report`: `figures.json`, held-out frames before and after (`sheet.jpg`) and `talk.mp4`, true,
before and after side by side. A stopped run goes on where it was.

What to expect is in docs/fidelity.md.

Legend: T frames, H W pixels, C h w latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from training import vae
from training.data import Track, tracks
from training.film import write_video
from training.identity import cosines, embeddings
from training.latents import decode
from training.loop import LoopConfig
from training.measures.montage import side_by_side, strip
from training.measures.picture import psnr
from training.person import cache_person
from training.rollout import RolloutConfig, rollout
from visavis import checkpoint
from visavis import config as configs
from visavis.nn.echo import arrays, load_echo, load_repository, load_vae

REPOSITORY = Path(__file__).parents[1] / "model_repository"


@dataclass(frozen=True)
class Finetuning:
    """Settings of one run."""

    held_out_share: float = 0.1
    vae: vae.VAETraining = field(
        default_factory=lambda: vae.VAETraining(
            decoder_only=True,
            augment=0.2,
            latent_noise=0.2,
            report_every=200,
            loop=LoopConfig(steps=1200, learning_rate=3e-4, save_every=200),
        )
    )


def starting_point(
    out: Path, repository: Path, vae_folder: Path | None, echo_folder: Path | None
) -> tuple[Path, Path]:
    """Folders of the VAE and of Echo to begin with; what is served is written out as such."""
    if vae_folder is not None and echo_folder is not None:
        return vae_folder, echo_folder
    served_vae, served_echo = load_repository(repository)
    folders = out / "start" / "vae", out / "start" / "echo"
    for folder, network, name in zip(
        folders, (served_vae, served_echo), ("vae", "echo"), strict=True
    ):
        checkpoint.save(folder, name, served_echo.config, arrays(network), origin="repository")
    return folders


def finetune(cache: Path, start: tuple[Path, Path], out: Path, settings: Finetuning) -> Path:
    """Train the decoder, or go on training; returns the VAE's checkpoint, `out/vae/checkpoint`."""
    start_vae, start_echo = start
    size = checkpoint.load(start_echo, "echo").config.name
    painting = replace(settings.vae, size=size)
    if not any(track.truth["speaking"].any() for track in tracks(cache, "train")):
        painting = replace(painting, predicted_mouth_share=0.0)
    return vae.train(cache, out / "vae", painting, start_vae, start_echo)


def figures(found: np.ndarray, track: Track, latents_decoded: np.ndarray) -> dict[str, float]:
    """What can be told of a talk (T, H, W, 3) and of the track's own frames through the VAE."""
    true = np.asarray(track.frames[: len(found)])
    portrait = embeddings(true[:1])
    return {
        "reconstruction_psnr_db": float(psnr(latents_decoded[::5], true[::5]).mean()),
        "talk_psnr_db": float(psnr(found[::5], true[::5]).mean()),
        "identity_similarity": float(cosines(embeddings(found[::5]), portrait).mean()),
        "true_identity_similarity": float(cosines(embeddings(true[::5]), portrait).mean()),
    }


def report(cache: Path, stages: Mapping[str, tuple[Path, Path]], out: Path) -> dict[str, object]:
    """Held-out ends of the films under each stage's (VAE, Echo): figures, a sheet and a film."""
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {}
    sheet: list[np.ndarray] = []
    loaded = {name: (load_vae(vae), load_echo(echo)) for name, (vae, echo) in stages.items()}
    for number, track in enumerate(tracks(cache, "test")):
        panes = {"true": np.asarray(track.frames)}
        for name, (decoder, echo) in loaded.items():
            talk = rollout(echo, [track], RolloutConfig(blocks=track.blocks, with_user=False))[0]
            panes[name] = decode(decoder, talk, track.frames[0])
            true = torch.from_numpy(track.latents[: len(talk)]).float()
            through = decode(decoder, true, track.frames[0])
            found[f"{name}, {track.folder.parent.name}"] = figures(panes[name], track, through)
            panes[f"{name}, VAE alone"] = through
        sheet += [strip(pane) for pane in panes.values()]
        if number == 0:
            write_video(out / "talk.mp4", side_by_side({n: panes[n] for n in ("true", *stages)}))
    cv2.imwrite(str(out / "sheet.jpg"), np.vstack(sheet)[..., ::-1])
    (out / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


def main(
    films: Annotated[list[Path], typer.Argument(help="Films of one person.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    repository: Annotated[Path, typer.Option(help="What is served now.")] = REPOSITORY,
    vae_folder: Annotated[Path | None, typer.Option("--vae", help="with --echo")] = None,
    echo_folder: Annotated[Path | None, typer.Option("--echo", help="Begin with these.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as JSON.")] = None,
    threads: int = 2,
) -> None:
    """Make an avatar out of one person's films; continues a stopped run."""
    if (vae_folder is None) != (echo_folder is None):
        raise typer.BadParameter("got one of --vae and --echo, expected both or neither")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    settings = Finetuning() if config is None else configs.load(Finetuning, config)
    start = starting_point(out, repository, vae_folder, echo_folder)
    size = checkpoint.load(start[1], "echo").config
    cache_person(films, out / "cache", size, settings.held_out_share)
    trained = finetune(out / "cache", start, out, settings)
    found = report(out / "cache", {"before": start, "after": (trained, start[1])}, out / "report")
    print(json.dumps(found, indent=2))
    print(f"serve it: python -m export --vae {trained} --echo {start[1]}")


if __name__ == "__main__":
    typer.run(main)
