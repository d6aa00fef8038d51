"""This is where trained avatars are judged, on people, voices and sentences never trained on.

    python -m training.evaluate --cache CACHE --out OUT --vae CKPT --echo CKPT
                                [--lip-sync CKPT] [--voices CORPUS/test] [--videos NAME=FOLDER …]

Each held-out person is given only the first frame of their track as a portrait and talks through
their own conversation. The decoded pictures are then measured by networks that took no part in
training: MediaPipe's face detector and mesh for faces, mouths and motion, dlib's embedding for
identity, EfficientNet-Lite0 for pictures, and our lip scorer (`training.lip_sync`).

Every system is a row: the truth, a static face, the training mean, the partner mirrored, somebody
else's reaction, the truth through the VAE and back (`reconstruction`), the network without its user
(`audio_only`) and with (`echo`), and whatever was made elsewhere (`--videos`; `--echo` may then be
left out). `echo` is told what is due as by a server, in sentences that the built-in language model
makes of the transcript; `echo_due` is told the truth, as by a perfect one. Every run keeps its own
videos in `OUT/videos/echo`, so that a later one can have them as `--videos before=…` in its table.

Written are `metrics.json`, `report.md`, which says what each figure means and what could not be
measured, plots, `contact_sheet.jpg` (the truth above the systems) and `side_by_side.mp4`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from training.data import Track, tracks
from training.film import write_video
from training.latents import cache_latents
from training.measures import lip_sync, report
from training.measures.avatar import echo_systems, generate
from training.measures.baselines import baselines
from training.measures.judge import SHOWN_TRACKS, Judge, Sight
from training.measures.montage import conversation_audio, side_by_side
from training.measures.system import from_folder
from training.rollout import RolloutConfig, window_of
from visavis import record
from visavis.config import FRAME_RATE_HZ, SIZES
from visavis.nn.echo import load_echo, load_vae


def write(
    out: Path,
    facts: Mapping[str, object],
    rows: report.Rows,
    notes: Mapping[str, str],
    sights: Mapping[str, Sight],
    judged: Sequence[str],
    names: Sequence[str],
) -> None:
    """The figures as JSON, tables and plots; `judged` are the systems, `names` the tracks."""
    record.write(
        out / "metrics.json", "fidelity", settings=facts, summary=rows, raw={"missing": notes}
    )
    (out / "report.md").write_text(report.markdown(rows, notes, facts))
    report.plot_overview(rows, out / "overview.png")
    seen = {name: sight.observations for name, sight in sights.items()}
    report.plot_lip_sync(seen, out / "lip_sync.png")
    report.plot_apertures(
        seen["ground_truth"],
        {name: seen[name] for name in judged},
        names[:SHOWN_TRACKS],
        out / "apertures.png",
    )


def show(
    out: Path, sights: Mapping[str, Sight], judged: Sequence[str], track: Track, voices: Path | None
) -> None:
    """The contact sheet, and the first track's videos side by side with both voices."""
    shown = {name: sight.shown for name, sight in sights.items()}
    tracks_of_strips = zip(*(shown[name].strips for name in ("ground_truth", *judged)), strict=True)
    sheet = np.vstack([one for strips in tracks_of_strips for one in strips])
    cv2.imwrite(str(out / "contact_sheet.jpg"), sheet[..., ::-1])
    frames = len(shown["ground_truth"].first)
    panes = {"user": track.user.frames[:frames], **{n: s.first for n, s in shown.items()}}
    audio = None if voices is None else conversation_audio(voices, track, frames)
    write_video(out / "side_by_side.mp4", side_by_side(panes), audio)


def named_folder(text: str) -> tuple[str, Path]:
    """`NAME=FOLDER` as a pair."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"got {text!r}, expected NAME=FOLDER")
    return name, Path(folder)


def main(
    cache: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    vae: Annotated[Path | None, typer.Option(help="with --echo")] = None,
    echo: Annotated[Path | None, typer.Option(help="the checkpoint to judge")] = None,
    lip_scorer: Annotated[Path | None, typer.Option("--lip-sync")] = None,
    voices: Annotated[Path | None, typer.Option(help="conversation_0007/a.wav, …")] = None,
    videos: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER of other videos")] = None,
    size: Annotated[str, typer.Option(help="of the cache, without --echo")] = "nano",
    seconds: float = 20.0,
    num_steps: Annotated[int | None, typer.Option(help="the size's own without it")] = None,
    audio_guidance: float = 1.0,
    user_guidance: float = 1.0,
    window_s: Annotated[
        float | None, typer.Option(help="of the user's past that is heard; all without it")
    ] = None,
    threads: int = 2,
) -> None:
    """Measure systems on the held-out split; writes figures, tables, plots and videos to OUT."""
    if (vae is None) != (echo is None):
        raise typer.BadParameter("got one of --vae and --echo, expected both or neither")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    people, train = tracks(cache, "test"), tracks(cache, "train")
    network = None if echo is None else load_echo(echo)
    config = SIZES[size]() if network is None else network.config
    blocks = min(int(seconds * FRAME_RATE_HZ) // config.block_frames, *(t.blocks for t in people))
    frames = blocks * config.block_frames
    elsewhere = [from_folder(*pair, people, frames) for pair in map(named_folder, videos or [])]
    systems = baselines(people, train, frames)
    if network is not None and vae is not None:
        cache_latents(cache, vae)
        settings = RolloutConfig(
            blocks=blocks,
            window_blocks=window_of(config, window_s),
            num_steps=num_steps,
            audio_guidance_scale=audio_guidance,
            user_guidance_scale=user_guidance,
        )
        decoder = load_vae(vae).to(memory_format=torch.channels_last)  # pyright: ignore
        systems += echo_systems(decoder, generate(network, people, settings), people)
    systems += elsewhere
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"got the systems {names}, expected different names; rename one")

    scorer = None if lip_scorer is None else lip_sync.load(lip_scorer)
    out.mkdir(parents=True, exist_ok=True)
    judge = Judge(people, train, frames, config, scorer, keep=out / "videos")
    sights = {systems[0].name: judge.truth} | {s.name: judge.look(s) for s in systems[1:]}
    rows = {name: judge.row(sight) for name, sight in sights.items()}
    facts = {"tracks": len(people), "seconds_a_track": frames / FRAME_RATE_HZ}
    if window_s is not None:
        facts["window_s"] = window_s
    judged = [system.name for system in systems if system.kind != "baseline"]
    write(out, facts, rows, judge.notes, sights, judged, [track.name for track in people])
    show(out, sights, judged, people[0], voices)
    print((out / "report.md").read_text())


if __name__ == "__main__":
    typer.run(main)
