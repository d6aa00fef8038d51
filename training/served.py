"""This is where a served avatar becomes films that `training.evaluate` puts into its table.

    python -m training.served --conversations corpus/test --out out/served --seconds 12
    python -m training.evaluate … --videos served=out/served

It is what users get: through Triton and the client, state, JPEG and all. Each person of every
conversation is the avatar once, and their partner the user; faces are taken as aligned already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from tqdm import tqdm
from visavis_client import Client, Conversation, Portrait, Turn

from training.batches import ALIGNED_CENTERS
from training.data import PEOPLE, transcript, video_frames
from training.film import write_video
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from visavis.serving.server import Ports, Server


def conversations(
    folder: Path, size: int, frames: int
) -> Iterator[tuple[str, Portrait, Conversation]]:
    """The first `frames` of a conversation of the corpus as a client holds it, for each avatar."""
    faces = {p: video_frames(folder / f"{p}.mp4", size)[:frames] for p in PEOPLE}
    voices = {
        p: soundfile.read(folder / f"{p}.wav", frames * SAMPLES_PER_FRAME, dtype="float32")[0]
        for p in PEOPLE
    }
    with np.load(folder / "truth.npz", allow_pickle=False) as truth:
        turns = json.loads(str(truth["transcript"])) if "transcript" in truth else []
    for avatar, user in (PEOPLE, PEOPLE[::-1]):
        said = transcript(turns, frames, {avatar: "avatar", user: "user"})
        yield (
            avatar,
            Portrait(faces[avatar][0], np.array(ALIGNED_CENTERS, np.float32)),
            Conversation(
                voices[avatar],
                user_audio=voices[user],
                user_video=faces[user],
                transcript=tuple(Turn(**turn) for turn in said),
            ),
        )


def main(
    split: Annotated[Path, typer.Option("--conversations", help="A split of a corpus.")],
    out: Annotated[Path, typer.Option(help="Gets conversation_0007/a.mp4 and so on.")],
    server: Annotated[str | None, typer.Option(help="host:port; without it one starts.")] = None,
    repository: Annotated[Path, typer.Option()] = Path("model_repository"),
    seconds: float = 12.0,
    seed: int = 0,
) -> None:
    """Film what a server makes of a corpus's people."""
    folders = sorted(path.parent for path in split.glob("conversation_*/a.mp4"))
    if not folders:
        raise typer.BadParameter(f"{split}: got no conversation_*/a.mp4, expected a corpus")
    with ExitStack() as stack:
        if server is None:
            server = stack.enter_context(Server(repository, ports=Ports(0, 0, 0))).grpc_url
        client = stack.enter_context(Client(server))
        for folder in tqdm(folders, unit="conversation"):
            size, frames = client.server.image_size, int(seconds * FRAME_RATE_HZ)
            for avatar, portrait, conversation in conversations(folder, size, frames):
                with client.session(portrait=portrait, seed=seed) as session:
                    film = [frame.image for frame in session.stream(conversation)]
                write_video(out / folder.name / f"{avatar}.mp4", film)


if __name__ == "__main__":
    typer.run(main)
