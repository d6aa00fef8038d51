"""This is where it is decided whether a session that lost its server tries another, and when.

All servers are tried at once, one after the other; then with pauses that grow. Before any server
has answered, each has one try: who opens a session wants to know that there is no place.
"""

from __future__ import annotations

from dataclasses import dataclass

from visavis_client._errors import ServerError, VisavisError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
HEALED_WITHIN_S = 10.0  # what a server says is broken is mended by then, or never


@dataclass(frozen=True)
class Patience:
    """How long to wait for the first frame (a place on the server included), between two, and for
    a server in place of one that was lost; and how often to ask for a snapshot."""

    start_s: float = 30.0
    frame_s: float = 5.0
    resume_s: float = 30.0
    snapshot_s: float = 2.0


@dataclass(frozen=True)
class Outage:
    """Since `since_s` no server has answered, in `tries` tries; the next one is at `retry_s`."""

    since_s: float
    tries: int
    retry_s: float


def next_try(
    before: Outage | None,
    error: VisavisError,
    now_s: float,
    patience: Patience,
    servers: int,
    *,
    established: bool,
) -> Outage | None:
    """What follows when a server was lost by `error`; None when the session is to give up.

    `before` is the outage that this one goes on, `established` whether a server ever answered.
    """
    if not isinstance(error, ServerError) or not error.may_pass:
        return None
    since_s, tries = (now_s, 0) if before is None else (before.since_s, before.tries)
    if not established:
        return Outage(since_s, tries + 1, now_s) if tries + 1 < servers else None
    pauses = tries - servers
    pause_s = 0.0 if pauses < 0 else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**pauses)
    limit_s = patience.resume_s
    if type(error) is ServerError:  # it is there, and something in it is broken
        limit_s = min(limit_s, HEALED_WITHIN_S)
    if now_s + pause_s - since_s >= limit_s:
        return None
    return Outage(since_s, tries + 1, now_s + pause_s)
