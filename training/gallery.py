"""This is where generated videos become a gallery: short films, and the moments that viewers mind.

    python -m training.gallery --cache CACHE --videos FOLDER --out docs/gallery [--voices TEST]

FOLDER has a video for each held-out track, `conversation_0007/a.mp4`, as `training.evaluate` keeps
them (`OUT/videos/echo`) and `training.served` films them. Of some people a few seconds around a
change of turns become `NAME.mp4`, the user beside the avatar, with both voices. `NAME.jpg` beside
it shows, frame by frame, the true video above the generated one where faults are easiest seen: lips
that meet on P, B or M, the beginning of a turn, a reaction, and the seam of two blocks.

Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from tqdm import tqdm

from training.data import Track, tracks, video_frames
from training.film import write_video
from training.measures.lips import bilabials
from training.measures.montage import captioned, conversation_audio, side_by_side
from training.measures.reactions import onsets
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, SIZES

AROUND = 5  # frames before and after a moment
QUIET_FRAMES = 10  # before a turn begins
SHOWN_SIDE = 128  # pixels a side of a picture on a sheet
CRF = 28  # small films; they are looked at, not measured


def turn_begins(speaking: np.ndarray) -> list[int]:
    """Frames in which a person begins to speak after a while of silence; `speaking` is (T,)."""
    speaks = np.asarray(speaking, bool)
    begins = np.flatnonzero(speaks[1:] & ~speaks[:-1]) + 1
    return [int(n) for n in begins if not speaks[max(0, n - QUIET_FRAMES) : n].any()]


def moments(track: Track, frames: int, block_frames: int) -> dict[str, int]:
    """The middle frame of one moment of each kind that the truth knows of, by its name."""
    truth, found = track.truth, {}
    inner = range(AROUND, frames - AROUND)

    def first(name: str, candidates: Sequence[int]) -> None:
        usable = [n for n in candidates if n in inner]
        if usable:
            found[name] = usable[len(usable) // 2]

    if "phoneme" in truth:
        closed = [(s.start + s.stop) // 2 for s in bilabials(truth["phoneme"][:frames])]
        first("lips meet", closed)
    first("a turn begins", turn_begins(truth["speaking"][:frames]))
    if "cause" in truth:
        begins = [int(n) + AROUND for n in onsets(truth["cause"][:frames])]
        first("a reaction", begins)
    seams = [n for n in range(block_frames, frames, block_frames) if truth["speaking"][n]]
    first("a seam", seams)
    return found


def sheet(true: np.ndarray, ours: np.ndarray, places: Mapping[str, int]) -> np.ndarray:
    """(H, W, 3) uint8: every moment of (T, H, W, 3) videos frame by frame, truth above ours."""
    rows = []
    for name, middle in places.items():
        around = range(middle - AROUND, middle + AROUND + 1)
        for caption, video in ((f"{name}, true", true), (f"{name}, avatar", ours)):
            small = [
                cv2.resize(np.ascontiguousarray(video[n]), (SHOWN_SIDE, SHOWN_SIDE)) for n in around
            ]
            rows.append(captioned(np.hstack(small), caption))
    return np.vstack(rows)


def excerpt(track: Track, frames: int, length: int) -> slice:
    """The frames of a film: as many as `length` around the middle one of the turns' beginnings."""
    begins = turn_begins(track.truth["speaking"][:frames]) or [0]
    start = begins[len(begins) // 2] - length // 2
    start = min(max(0, start), max(0, frames - length))
    return slice(start, min(frames, start + length))


def show(
    track: Track,
    video: np.ndarray,
    out: Path,
    seconds: float,
    voices: Path | None,
    block_frames: int,
) -> None:
    """Write the film and the sheet of one person."""
    name = track.name.replace("/", "_")
    part = excerpt(track, len(video), round(seconds * FRAME_RATE_HZ))
    audio = None if voices is None else conversation_audio(voices, track, len(video))
    if audio is not None:
        audio = audio[part.start * SAMPLES_PER_FRAME : part.stop * SAMPLES_PER_FRAME]
    panes = side_by_side({"user": track.user.frames[part], "avatar": video[part]})
    write_video(out / f"{name}.mp4", panes, audio, crf=CRF)
    places = moments(track, len(video), block_frames)
    true = np.asarray(track.frames[: len(video)])
    picture = sheet(true, video, places)
    cv2.imwrite(str(out / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def main(
    cache: Annotated[Path, typer.Option()],
    videos: Annotated[Path, typer.Option(help="conversation_0007/a.mp4, …")],
    out: Annotated[Path, typer.Option()],
    voices: Annotated[Path | None, typer.Option(help="conversation_0007/a.wav, …")] = None,
    people: Annotated[int, typer.Option(help="How many are shown.")] = 4,
    seconds: Annotated[float, typer.Option(help="Length of the films.")] = 6.0,
    size: Annotated[str, typer.Option(help="of the network that made them")] = "nano",
) -> None:
    """Write a film and a sheet for some held-out people."""
    found = [t for t in tracks(cache, "test") if (videos / f"{t.name}.mp4").is_file()]
    if not found:
        raise typer.BadParameter(
            f"{videos}: got no video of a held-out track, expected some such as "
            "conversation_0000/a.mp4; name the folder that training.evaluate or training.served "
            "wrote"
        )
    out.mkdir(parents=True, exist_ok=True)
    every = max(1, len(found) // people)
    for track in tqdm(found[::every][:people], unit="person"):
        video = video_frames(videos / f"{track.name}.mp4", track.frames.shape[1])
        show(track, video, out, seconds, voices, SIZES[size]().block_frames)


if __name__ == "__main__":
    typer.run(main)
