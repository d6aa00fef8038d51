"""This is where a conversation is had at the pace of life, and its blocks are timed.

The loop is open: input n is due n blocks after the first, however late the server is, and a block's
latency counts from when its last input was due. A server that falls behind is not waited for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from visavis_client import Chunk, Conversation, Frame, Portrait, Position, ServerInfo, Session, Turn
from visavis_client.conversation import LOOKAHEAD_FRAMES
from visavis_client.face import align_portrait, read_image

from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True, eq=False)
class Talk:
    """Two people's signals, aligned for one server, of equal length."""

    portrait: Portrait
    avatar_audio: np.ndarray  # (n · 640,) float32
    user_audio: np.ndarray  # the same
    user_video: np.ndarray  # (n, S, S, 3) uint8
    turns: tuple[Turn, ...]

    @property
    def frames(self) -> int:
        """Its length."""
        return len(self.user_video)

    def chunks(self, block_frames: int) -> Iterator[Chunk]:
        """What each block needs, as it comes live, over and over without an end."""
        sent = Position()
        for block in itertools.count():
            start, end = block * block_frames, (block + 1) * block_frames
            ahead = (end + LOOKAHEAD_FRAMES) * SAMPLES_PER_FRAME
            chunk = Chunk(
                _again(self.avatar_audio, sent.avatar_samples, ahead),
                _again(self.user_audio, sent.user_samples, start * SAMPLES_PER_FRAME),
                _again(self.user_video, sent.user_frames, start),
                tuple(self._turns(start, end)),
            )
            sent = sent.after(chunk)
            yield chunk

    def _turns(self, start: int, end: int) -> Iterator[Turn]:
        """The turns that begin in frames `start` to `end`."""
        length_s = self.frames / FRAME_RATE_HZ
        before_s = start // self.frames * length_s
        for turn, again_s in itertools.product(self.turns, (before_s, before_s + length_s)):
            if start <= (turn.start_s + again_s) * FRAME_RATE_HZ < end:
                yield replace(turn, start_s=turn.start_s + again_s)


def _again(signal: np.ndarray, start: int, end: int) -> np.ndarray:
    return signal.take(range(start, end), axis=0, mode="wrap")


def example(server: ServerInfo) -> Talk:
    """The conversation of `examples/`, faces aligned."""
    read = Conversation.from_files(
        avatar_audio=EXAMPLES / "avatar.wav",
        user_audio=EXAMPLES / "user.wav",
        user_video=EXAMPLES / "user.mp4",
        transcript=EXAMPLES / "transcript.json",
    )
    faces = np.stack(list(read.user_faces(server.image_size)))
    portrait = align_portrait(read_image(EXAMPLES / "portrait.png"), server.image_size)
    avatar, user = (_as_long(voice, len(faces)) for voice in (read.avatar_audio, read.user_audio))
    return Talk(portrait, avatar, user, faces, read.transcript)


def _as_long(voice: np.ndarray | None, frames: int) -> np.ndarray:
    """A voice, cut or silent from its end on."""
    long_enough = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    if voice is not None:
        part = voice[: len(long_enough)]
        long_enough[: len(part)] = part
    return long_enough


def latencies(
    session: Session,
    chunks: Iterable[Chunk],
    block_s: float,
    *,
    finish: bool = True,
    look: Callable[[Frame], object] = lambda frame: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[float]:
    """Converse, and give the seconds of each block from when its last input was due to its arrival.

    The first is the time to the first frame. Without `finish` the session is left in mid-speech
    once the chunks end. `look` is shown every frame; as long as it does not ask for `image`,
    nothing is decoded. Nothing is kept, however long it takes.
    """
    begun_s, told, frames = clock(), 0, 0

    def arrived() -> Iterator[float]:
        nonlocal told, frames
        for frame in session.ready():
            look(frame)
        newest_first = reversed(session.timings)
        fresh = itertools.takewhile(lambda timing: timing.first_frame >= frames, newest_first)
        for timing in reversed(list(fresh)):
            yield timing.arrived_s - told * block_s
            told, frames = told + 1, timing.first_frame + timing.frames

    for n, chunk in enumerate(chunks):
        sleep(max(0.0, begun_s + n * block_s - clock()))
        session.send(
            avatar_audio=chunk.avatar_audio,
            user_audio=chunk.user_audio,
            user_video=chunk.user_video,
            turns=chunk.turns,
        )
        yield from arrived()
    if finish:
        session.finish()
        for frame in session.frames():
            look(frame)
        yield from arrived()
