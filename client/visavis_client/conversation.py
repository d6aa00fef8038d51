"""This is where a recorded conversation is a value, and where it is played as if it were live."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, EchoConfig
from visavis_client import media
from visavis_client._errors import InputError, TranscriptError
from visavis_client._types import Chunk, Portrait, Position, ServerInfo, Turn
from visavis_client._wire import waveform
from visavis_client.face import FaceTrack

LOOKAHEAD_FRAMES = EchoConfig().lookahead_frames


@dataclass(frozen=True, eq=False)
class Conversation:
    """What is said and seen, from time 0 to the end of the avatar's audio.

    avatar_audio, user_audio: (n,) float32 at 16 kHz. user_video: a video file, whose frames are
    read and aligned as they are needed, or (n, S, S, 3) uint8 of aligned faces at the server's
    size. A user's track that ends early goes on as silence, or as its last picture.
    """

    avatar_audio: np.ndarray
    portrait: str | Path | np.ndarray | Portrait | None = None
    user_audio: np.ndarray | None = None
    user_video: str | Path | np.ndarray | None = None
    transcript: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        if not len(waveform("avatar_audio", self.avatar_audio)):
            raise InputError(
                "avatar_audio: got 0 samples, expected some; it decides how long the film is"
            )
        if self.user_audio is not None:
            waveform("user_audio", self.user_audio)

    @classmethod
    def from_files(
        cls,
        *,
        avatar_audio: str | Path,
        portrait: str | Path | None = None,
        user_audio: str | Path | None = None,
        user_video: str | Path | None = None,
        transcript: str | Path | None = None,
    ) -> Conversation:
        """A conversation from files of any format that FFmpeg reads; the transcript is JSON.

        Without `user_audio`, the sound of `user_video` is the user's voice when it has any.
        """
        if user_audio is None and user_video is not None and media.has_audio(user_video):
            user_audio = user_video
        return cls(
            media.read_audio(avatar_audio),
            portrait,
            None if user_audio is None else media.read_audio(user_audio),
            user_video,
            () if transcript is None else read_transcript(transcript),
        )

    @property
    def frames(self) -> int:
        """Frames of video that the conversation gives."""
        return -(-len(self.avatar_audio) // SAMPLES_PER_FRAME)

    def user_faces(self, size: int) -> Iterator[np.ndarray]:
        """The user's aligned (size, size, 3) uint8 face, frame by frame; NoFaceError when the
        video has none."""
        if self.user_video is None:
            return iter(())
        if isinstance(self.user_video, np.ndarray):
            return iter(self.user_video)
        return _aligned_faces(self.user_video, size)

    def chunks(
        self, *, block_frames: int, image_size: int, sent: Position | None = None
    ) -> Iterator[Chunk]:
        """The conversation from `sent` on, in the pieces of a live one: chunk i has just what block
        i of the avatar's frames needs. That is the avatar's audio to a little after the block, and
        the user's signals to the block's start, because they never come from the future."""
        sent = sent or Position()
        faces = itertools.islice(self._endless_faces(image_size), sent.user_frames, None)
        turns = sorted(self.transcript, key=lambda turn: turn.start_s)
        for start in range(0, self.frames, block_frames):
            end = start + block_frames
            ahead = (end + LOOKAHEAD_FRAMES) * SAMPLES_PER_FRAME
            due = [turn for turn in turns if turn.start_s < end / FRAME_RATE_HZ]
            chunk = Chunk(
                self.avatar_audio[sent.avatar_samples : ahead],
                self._user_audio(sent.user_samples, start * SAMPLES_PER_FRAME),
                self._user_video(faces, start - sent.user_frames, image_size),
                tuple(due[sent.turns :]),
            )
            sent = sent.after(chunk)
            yield chunk

    def _user_audio(self, start: int, end: int) -> np.ndarray | None:
        if self.user_audio is None:
            return None
        part = np.asarray(self.user_audio)[start:end]
        return np.pad(part, (0, max(0, end - start - len(part))))

    def _user_video(self, faces: Iterator[np.ndarray], count: int, size: int) -> np.ndarray | None:
        if self.user_video is None:
            return None
        frames = list(itertools.islice(faces, max(0, count)))
        return np.stack(frames) if frames else np.zeros((0, size, size, 3), np.uint8)

    def _endless_faces(self, size: int) -> Iterator[np.ndarray]:
        last: np.ndarray | None = None
        for last in self.user_faces(size):
            yield last
        if last is not None:
            yield from itertools.repeat(last)


def chunks_of(
    conversation: Conversation | Iterable[Chunk], server: ServerInfo, sent: Position
) -> Iterator[Chunk]:
    """The chunks that a session still has to send; chunks that come live are taken as they are."""
    if not isinstance(conversation, Conversation):
        return iter(conversation)
    return conversation.chunks(
        block_frames=server.block_frames, image_size=server.image_size, sent=sent
    )


def read_transcript(path: str | Path) -> tuple[Turn, ...]:
    """The turns of a JSON file: a list of {"role": "user" or "avatar", "text", "start_s"}."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TranscriptError(f"{path}: there is no such file; check the path") from error
    except (ValueError, OSError) as error:
        raise TranscriptError(f"{path}: cannot be read as JSON ({error}); mend it") from error
    if not isinstance(entries, list):
        raise TranscriptError(
            f"{path}: got a JSON {type(entries).__name__}, expected a list of turns "
            '{"role", "text", "start_s"}'
        )
    return tuple(_turn(entry, f"{path}, turn {i}") for i, entry in enumerate(entries))


def _turn(entry: Any, place: str) -> Turn:
    if not isinstance(entry, dict) or set(entry) != {"role", "text", "start_s"}:
        raise TranscriptError(
            f'{place}: got {entry!r}, expected {{"role", "text", "start_s"}}; mend that entry'
        )
    try:
        return Turn(**entry)
    except TranscriptError as error:
        raise TranscriptError(f"{place}: {error}") from error


def _aligned_faces(path: str | Path, size: int) -> Iterator[np.ndarray]:
    track = FaceTrack(size)
    track.fit(media.read_video(path))
    for frame in media.read_video(path):
        yield track.crop(frame)
