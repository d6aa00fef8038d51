"""This is where everything that can go wrong has its name.

    VisavisError
    ├── InputError                what the caller passed does not fit
    │   ├── PortraitError         the portrait cannot be used
    │   │   ├── NoFaceError
    │   │   └── SeveralFacesError
    │   ├── MediaError            a media file cannot be read or written
    │   │   └── AudioError        a sound has no samples, NaN, or the wrong scale
    │   └── TranscriptError       a transcript is not what it should be
    ├── ServerError               the server, or the way to it
    │   ├── ServerUnavailable     not reachable, not ready, or full
    │   ├── SessionNotFound       the server does not (or no longer) know the session
    │   ├── RequestRefused        the server says that a request is wrong
    │   ├── DeadlineExceeded      no answer within the timeout
    │   └── StreamBroken          the connection was lost in the middle of a session
    └── SessionEnded              the session was finished, cancelled or closed before

Each message says what is wrong, what came and what was expected, and what to do. `exit_code` is
what the command line returns. `MediaWarning` is for what is odd but can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class VisavisError(Exception):
    """Anything that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(VisavisError, ValueError):
    """What the caller passed does not fit."""

    exit_code = 3


class PortraitError(InputError):
    """The portrait cannot be used."""

    exit_code = 4


class NoFaceError(PortraitError):
    """There is no face in a picture or a video."""


class SeveralFacesError(PortraitError):
    """There are several faces in a portrait. `boxes` has (left, top, right, bottom) of each."""

    def __init__(self, message: str, *, boxes: Sequence[tuple[float, float, float, float]] = ()):
        super().__init__(message)
        self.boxes = tuple(boxes)


class MediaError(InputError):
    """A media file cannot be read or written."""

    exit_code = 5


class AudioError(MediaError):
    """A sound has no samples, has NaN, or has the wrong scale."""


class TranscriptError(InputError):
    """A transcript is not what it should be."""

    exit_code = 6


class ServerError(VisavisError):
    """The server, or the way to it."""

    exit_code = 10
    may_pass: ClassVar[bool] = True  # whether another try, or another server, may do better


class ServerUnavailable(ServerError):
    """The server is not reachable, not ready, or full. `retry_after_s`: when a full one asks to be
    tried again, if it does."""

    exit_code = 11

    def __init__(self, message: str, *, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SessionNotFound(ServerError):
    """The server does not, or no longer, know the session."""

    exit_code = 12


class RequestRefused(ServerError):
    """The server says that a request is wrong."""

    exit_code = 13
    may_pass = False


class DeadlineExceeded(ServerError, TimeoutError):
    """No answer came within the timeout."""

    exit_code = 14


class StreamBroken(ServerError):
    """The connection was lost in the middle of a session."""

    exit_code = 15


class SessionEnded(VisavisError):
    """The session was finished, cancelled or closed before."""

    exit_code = 16


class MediaWarning(UserWarning):
    """A file is odd, but can be used: it breaks off, or it is silent."""
