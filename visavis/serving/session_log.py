"""This is where it is told what became of every session: one line of the log for each event.

    started, resumed    a place was taken
    ended, expired      by its END, or because it was silent; how long it was, and how well it went
    refused             a message, by the sender's fault or for want of a place
    failed              a message, by ours

Nobody's words, voice or face may get here. Errors of our own making quote nothing of a conversation
(`visavis.messages`); of any other only the class is told, and where it came from, as its text may
hold what it stumbled over.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from visavis.messages import SessionError
from visavis.serving.errors import ServingError, code_of

LOG = logging.getLogger(__name__)

CANARY = "canary-"  # how the watchdog's sessions are called, whose refusals are no news


@dataclass
class Record:
    """What is counted of one session."""

    begun_s: float = 0.0
    blocks: int = 0
    missed_deadlines: int = 0


def known_as(session_id: str) -> str:
    """The beginning of an id: whoever knows all of it can take the session over."""
    return f"{session_id[:8]}…"


def started(session_id: str, *, resumed_at: int | None) -> None:
    """A session has its place, from a portrait or, `resumed_at` a block, from a snapshot."""
    if resumed_at is None:
        _tell("started", session_id)
    else:
        _tell("resumed", session_id, " at block %(block)d", block=resumed_at)


def ended(session_id: str, record: Record, now_s: float, *, expired: bool = False) -> None:
    """A session has left its place."""
    _tell(
        "expired" if expired else "ended",
        session_id,
        " after %(seconds).1f s, %(blocks)d blocks, %(missed_deadlines)d missed deadlines",
        seconds=round(now_s - record.begun_s, 3),
        blocks=record.blocks,
        missed_deadlines=record.missed_deadlines,
    )


def went_wrong(session_id: str, error: Exception) -> None:
    """A message was answered by an error."""
    code, known = code_of(error), isinstance(error, SessionError | ServingError)
    refused = code != "INTERNAL"
    level = logging.WARNING if refused else logging.ERROR
    _tell(
        "refused" if refused else "failed",
        session_id,
        ": [%(code)s] %(error)s: %(reason)s",
        level=logging.DEBUG if refused and session_id.startswith(CANARY) else level,
        code=code,
        error=type(error).__name__,
        reason=str(error) if known else f"at {_place(error)}",
    )


def _tell(
    event: str, session_id: str, text: str = "", *, level: int = logging.INFO, **facts: object
) -> None:
    facts = {"event": f"session {event}", "session": known_as(session_id), **facts}
    LOG.log(level, f"session %(session)s {event}{text}", facts, extra=facts)


def _place(error: Exception) -> str:
    """The file and line that an error came from."""
    *_, frame = traceback.extract_tb(error.__traceback__) or [None]
    return f"{Path(frame.filename).name}:{frame.lineno}" if frame else "an unknown place"
