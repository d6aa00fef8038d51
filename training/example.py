"""This is where a rendered conversation becomes the files of `examples/`.

    python -m training.example --conversation CORPUS/test/conversation_0000 --out examples

The people, voices and sentences of the test split were never trained on. Person a is the avatar: of
them only the first frame and the voice are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import soundfile
import typer

from training.data import transcript, video_frames
from training.film import write_video
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

ROLES = {"a": "avatar", "b": "user"}


def end_of_turn(turns: list[dict], frames: int) -> int:
    """The last frame, at most `frames`, at which nobody is in the middle of a turn."""
    ends = [turn["end_frame"] + FRAME_RATE_HZ // 2 for turn in turns]
    return max((end for end in ends if end <= frames), default=frames)


def main(
    conversation: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()] = Path("examples"),
    seconds: float = 20.0,
) -> None:
    """Write portrait, voices, the user's video and the transcript."""
    out.mkdir(parents=True, exist_ok=True)
    truth = np.load(conversation / "truth.npz", allow_pickle=False)
    turns = json.loads(str(truth["transcript"]))
    frames = end_of_turn(turns, int(seconds * FRAME_RATE_HZ))
    for person, role in ROLES.items():
        voice, _ = soundfile.read(conversation / f"{person}.wav", dtype="int16")
        soundfile.write(out / f"{role}.wav", voice[: frames * SAMPLES_PER_FRAME], SAMPLE_RATE_HZ)
    portrait = video_frames(conversation / "a.mp4", 256)[0]
    cv2.imwrite(str(out / "portrait.png"), portrait[..., ::-1])
    write_video(out / "user.mp4", video_frames(conversation / "b.mp4", 256)[:frames], crf=20)
    text = json.dumps(transcript(turns, frames, ROLES), indent=2, ensure_ascii=False)
    (out / "transcript.json").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
