"""This is where exceptions get the code that Triton and the client know them by.

    ServingError          INTERNAL      something broke on our side
    ├── StageFailed       INTERNAL      a model that was called answered with an error
    ├── SessionNotFound   NOT_FOUND     no START, or the session expired
    └── ServerFull        UNAVAILABLE   come back later
    SessionError          INVALID_ARG   what the client sent does not fit (visavis.messages)

A gRPC stream carries only an error's text, so the text begins with the code in brackets.
"""

from __future__ import annotations

from visavis.messages import SessionError


class ServingError(RuntimeError):
    """Something broke on our side."""

    code = "INTERNAL"


class StageFailed(ServingError):
    """A model that was called by name answered with an error."""


class SessionNotFound(ServingError):
    """The server holds no session of this correlation id."""

    code = "NOT_FOUND"


class ServerFull(ServingError):
    """No place for another session; `retry_after_s` is a good time to ask again."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float):
        super().__init__(f"retry_after_s={retry_after_s:g} {message}")


def code_of(error: Exception) -> str:
    """The name of the Triton error code for `error`."""
    if isinstance(error, SessionError):
        return "INVALID_ARG"
    return error.code if isinstance(error, ServingError) else "INTERNAL"


def text_of(error: Exception) -> str:
    """What the client reads: "[CODE] message"."""
    known = isinstance(error, SessionError | ServingError)
    return f"[{code_of(error)}] {error if known else repr(error)}"
