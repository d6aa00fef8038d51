"""This is where the corpus is made visible: `python -m training.corpus.preview CORPUS`.

- a contact sheet of a conversation (`write_sheet`), eight moments of each person
- `CORPUS/{train,test}.jpg`: one portrait of every person of a split
- `CORPUS/{train,test}.mp4`: a conversation with both people side by side, their voices left and
  right, and under each what they do and what caused it
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import soundfile
import typer
from numpy.typing import NDArray

from training.corpus.conversation import PEOPLE
from training.corpus.dialogues import SPLITS
from training.film import read_frames, write_video
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ

Picture = NDArray[np.uint8]
SHEET_COLUMNS = 12
CAPTION_HEIGHT = 32


def write_picture(path: Path, picture: Picture) -> None:
    """RGB (H, W, 3) as JPEG."""
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def write_sheet(path: Path, rows: list[list[Picture]]) -> None:
    """Contact sheet of a conversation: one row of pictures per person, at half size."""
    sheet = np.vstack([np.hstack([shrunk(picture) for picture in row]) for row in rows])
    write_picture(path, sheet)


def shrunk(picture: Picture) -> Picture:
    """At half size."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def faces(split: Path) -> Picture:
    """A portrait of every person of a split, as they look in their first conversation."""
    portraits: dict[str, Picture] = {}
    for folder in sorted(split.glob("conversation_*")):
        with np.load(folder / "truth.npz", allow_pickle=False) as truth:
            names = {p: json.loads(str(truth[f"{p}_identity"]))["name"] for p in PEOPLE}
        for person, name in names.items():
            if name not in portraits:
                portraits[name] = shrunk(next(read_frames(folder / f"{person}.mp4")))
    pictures = list(portraits.values())
    blank = np.zeros_like(pictures[0])
    pictures += [blank] * (-len(pictures) % min(SHEET_COLUMNS, len(pictures)))
    columns = min(SHEET_COLUMNS, len(pictures))
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def captions(truth: dict[str, NDArray], person: str) -> list[str]:
    """What a person does in each frame and why, such as `laugh < joke, in spite of bad_news`."""
    names = {kind: truth[f"{kind}_names"] for kind in ("reaction", "cause", "context")}
    tracks = {kind: truth[f"{person}_{kind}"] for kind in names}
    lines = []
    for frame, speaks in enumerate(truth[f"{person}_speaking"]):
        words = ["speaks"] if speaks else []
        if tracks["reaction"][frame]:
            reaction, cause, context = (
                str(names[kind][tracks[kind][frame]]) for kind in ("reaction", "cause", "context")
            )
            swayed = f" ({context})" if context != "none" else ""
            words.append(f"{reaction} < {cause}{swayed}")
        lines.append("  ".join(words).replace("_", " "))
    return lines


def captioned(picture: Picture, text: str) -> Picture:
    """A picture with a line of text below."""
    strip = np.full((CAPTION_HEIGHT, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(strip, text, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230,) * 3, 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def write_sample(path: Path, conversation: Path, seconds: float) -> None:
    """Both people side by side, with captions, a's voice left and b's right."""
    with np.load(conversation / "truth.npz", allow_pickle=False) as file:
        truth = dict(file)
    lines = zip(*(captions(truth, person) for person in PEOPLE), strict=True)
    pairs = zip(*(read_frames(conversation / f"{person}.mp4") for person in PEOPLE), strict=True)
    frames = (
        np.hstack([captioned(picture, text) for picture, text in zip(pair, line, strict=True)])
        for pair, line in zip(pairs, lines, strict=True)
    )
    samples = int(seconds * SAMPLE_RATE_HZ)
    paths = [conversation / f"{person}.wav" for person in PEOPLE]
    voices = np.stack([soundfile.read(p, samples, dtype="float32")[0] for p in paths])
    write_video(path, islice(frames, int(seconds * FRAME_RATE_HZ)), voices, crf=20)


def write_split(corpus: Path, split: str, seconds: float = 60.0) -> None:
    """The faces and a sample video of a split; nothing if it has no conversation."""
    conversations = sorted((corpus / split).glob("conversation_*"))
    if not conversations:
        return
    write_picture(corpus / f"{split}.jpg", faces(corpus / split))
    write_sample(corpus / f"{split}.mp4", conversations[0], seconds)


def main(
    corpus: Path, seconds: Annotated[float, typer.Option(help="Of the sample videos.")] = 60.0
) -> None:
    """Make pictures and videos of a rendered corpus to look at."""
    for split in SPLITS:
        write_split(corpus, split, seconds)


if __name__ == "__main__":
    typer.run(main)
