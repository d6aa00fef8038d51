"""This is where it is decided whether one more conversation finds a place.

A server that takes whoever comes serves nobody: with one conversation too many all of them stutter.
How many a machine bears depends on the machine, so unless told a number a server finds it out: it
makes blocks, one at a time, then two at once, four, …, for as long as that makes them cheaper, and
reckons how many of them a live conversation needs. What it then sees counts too: while blocks take
longer than they last, something else is using the machine, and nobody is let in.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

MEASURED = "auto"  # instead of a number
MOST = 1024  # sessions, whatever was measured: as many as the sequence batcher holds candidates
USED = 0.9  # of a machine's time; the rest is for pictures, clients and what else runs there
CHEAPER = 0.9  # blocks made at once are worth trying more of if each takes this much of the time
ROUNDS = 3  # of blocks at once, the fastest of which counts: a moment's disturbance is not the rule
LOOK_BACK_S = 10.0
LATE_SHARE = 0.01


class Admission:
    """Places for conversations.

    Args:
        block_s: how long a block lasts.
        limit: how many there are; None to measure it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        block_s: float,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.block_s = block_s
        self.clock = clock
        self.limit = limit
        self.is_measured = limit is None
        self.made: deque[tuple[float, bool]] = deque()

    def measure(self, make_block: Callable[[], object], pool: Executor) -> None:
        """Find the limit, unless it is known. Raises what `make_block` raises."""
        if self.limit is None:
            cost_s = cost_of_a_block(make_block, pool, self.clock)
            self.limit = min(MOST, max(1, math.floor(USED * self.block_s / cost_s)))

    def made_block(self, seconds: float) -> None:
        """A session's block took so long."""
        now_s = self.clock()
        self.made.append((now_s, seconds > self.block_s))
        while self.made[0][0] < now_s - LOOK_BACK_S:
            self.made.popleft()

    def refusal(self, sessions: int, *, resumed: bool = False) -> str | None:
        """Why no further one is let in beside so many, if so.

        What is measured twice differs a little, and a conversation that has begun is not to be lost
        by it: of the `resumed` a quarter more are let in.
        """
        assert self.limit is not None, "measure() comes first"
        spare = self.limit // 4 if resumed and self.is_measured else 0
        if sessions >= self.limit + spare:
            return f"the {self.limit} that this server holds"
        if self.is_measured and not resumed and sessions and self._is_late():
            return f"{sessions} open ones, whose blocks already take longer than they last"
        return None

    def _is_late(self) -> bool:
        since_s = self.clock() - LOOK_BACK_S
        recent = [late for at_s, late in tuple(self.made) if at_s >= since_s]
        return sum(recent) > LATE_SHARE * len(recent)


def cost_of_a_block(
    make_block: Callable[[], object], pool: Executor, clock: Callable[[], float] = time.monotonic
) -> float:
    """Seconds of the whole machine that a block takes when as many are made as is best for it."""
    make_block()  # what is only done the first time is not measured
    cost_s, at_once = math.inf, 1
    while at_once <= MOST:
        before_s = cost_s
        rounds = [_seconds_of(make_block, at_once, pool, clock) for _ in range(ROUNDS)]
        cost_s = min(before_s, min(rounds) / at_once)
        if cost_s > CHEAPER * before_s:
            break
        at_once *= 2
    return cost_s


def _seconds_of(
    make_block: Callable[[], object], at_once: int, pool: Executor, clock: Callable[[], float]
) -> float:
    begun_s = clock()
    for block in [pool.submit(make_block) for _ in range(at_once)]:
        block.result()
    return clock() - begun_s


def limit_of(text: str) -> int | None:
    """What `max_sessions` says: a number, or None for "auto".

    Raises:
        ValueError: neither.
    """
    if text == MEASURED:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ValueError(
            f"max_sessions: got {text!r}, expected 1 to {MOST}, or {MEASURED} to measure what this "
            "machine bears; correct it"
        )
    return int(text)
