"""This is where a conversation that waits to be prepared has its form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

PEOPLE = ("a", "b")
AUDIO = {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
SUBTITLES = {".srt", ".vtt"}
TEXT = {".json", *SUBTITLES}


class Dropped(Exception):
    """A conversation cannot be used; the message is the reason that the report gives."""


@dataclass(frozen=True)
class Recording:
    """The files of one person in a conversation. None is opened before it is prepared.

    audio: a file with this voice, None for silence. When both people have the same file, it holds
    both voices. half: the part of a split screen, of the longer side, from the left or the top.
    """

    person: str
    video: Path | None = None
    half: Literal[0, 1] | None = None
    audio: Path | None = None
    motion: Path | None = None  # DualTalk's parameters, instead of a video
    words: Path | None = None  # this person's transcript
    activity: Path | None = None  # this person's voice activity, where the data set has it


@dataclass(frozen=True)
class Source:
    """One conversation of a data set. All recordings start at the same time."""

    name: str
    split: str
    a: Recording
    b: Recording
    transcript: Path | None = None  # of both people

    def __getitem__(self, person: str) -> Recording:
        return {"a": self.a, "b": self.b}[person]


@dataclass
class Finding:
    """What a layout holds: conversations, and what cannot be one, by name with the reason."""

    sources: list[Source] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def first_that_exists(paths: Iterable[Path]) -> Path | None:
    """The first path that is there."""
    return next((path for path in paths if path.exists()), None)
