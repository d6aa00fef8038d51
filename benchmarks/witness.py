"""This is where a conversation goes on that should notice nothing of what happens to others."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from visavis_client import Client, Frame, VisavisError

from benchmarks.fault import Figure
from benchmarks.live import Talk, latencies
from visavis.config import FRAME_RATE_HZ

SEED = 3
WAIT_S = 60.0  # for its first block


@dataclass(frozen=True)
class Watched:
    """The frames of one conversation, encoded, and when each came."""

    contents: list[bytes] = field(repr=False)
    arrived_s: list[float] = field(repr=False)

    @property
    def longest_gap_s(self) -> float:
        """Between two frames."""
        return float(np.diff(self.arrived_s).max())


def converse(
    client: Client,
    talk: Talk,
    blocks: int,
    then: Callable[[], object] = lambda: None,
    at_frame: int | None = None,
) -> Watched:
    """The conversation's first blocks, as fast as they go; `then` is called at a frame."""
    found = Watched([], [])
    chunks = itertools.islice(talk.chunks(client.server.block_frames), blocks)
    with client.session(
        portrait=talk.portrait, seed=SEED, user_audio=True, user_video=True
    ) as session:
        for frame in session.stream(chunks):
            found.contents.append(frame.content)
            found.arrived_s.append(time.perf_counter())
            if frame.index == at_frame:
                then()
    return found


class Witness:
    """Within, somebody converses at live pace; then `figures` and `undisturbed` are known.

    expected: the frames of an undisturbed run, encoded. They are gone through again and again.
    """

    def __init__(self, url: str, talk: Talk, expected: Sequence[bytes], deadline_ms: float) -> None:
        self.url = url
        self.talk = talk
        self.expected = expected
        self.deadline_ms = deadline_ms
        self.block_ms: list[float] = []
        self.changed = 0
        self.errors: list[str] = []
        self._stop, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="witness")

    def __enter__(self) -> Witness:
        self._thread.start()
        self._begun.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def missed(self) -> int:
        """Blocks that came too late."""
        return sum(ms > self.deadline_ms for ms in self.block_ms)

    @property
    def undisturbed(self) -> bool:
        """Whether nothing was noticed."""
        return not (self.missed or self.changed or self.errors) and bool(self.block_ms)

    def figures(self) -> dict[str, Figure]:
        """What it saw."""
        return {
            "witness_blocks": len(self.block_ms),
            "witness_missed": self.missed,
            "witness_changed_frames": self.changed,
            "witness_errors": len(self.errors),
        }

    def _go_on(self) -> None:
        with Client(self.url) as client:
            while not self._stop.is_set():
                try:
                    self._converse(client)
                except VisavisError as error:
                    self.errors.append(repr(error))
                    self._stop.wait(0.5)

    def _converse(self, client: Client) -> None:
        block_frames = client.server.block_frames
        blocks = (len(self.expected) - block_frames) // block_frames  # the end is told, not lived
        chunks = itertools.islice(self.talk.chunks(block_frames), blocks)
        chunks = itertools.takewhile(lambda _: not self._stop.is_set(), chunks)
        with client.session(
            portrait=self.talk.portrait, seed=SEED, user_audio=True, user_video=True
        ) as session:
            timed = latencies(
                session,
                chunks,
                block_frames / FRAME_RATE_HZ,
                finish=False,
                look=self._compare,
                sleep=self._stop.wait,
            )
            for n, latency_s in enumerate(timed):
                if n:  # the first has the enrolment in it
                    self.block_ms.append(round(1e3 * latency_s, 2))
                    self._begun.set()

    def _compare(self, frame: Frame) -> None:
        self.changed += frame.content != self.expected[frame.index]
