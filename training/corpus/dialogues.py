"""This is where the written conversations are read: topics of two people about everyday matters.

`talk_train.txt` and `talk_test.txt` hold them, all our own, no sentence in both. A blank line ends
a topic. Its first line may name it, `[kind name]`; then the two people take turns, a line each:

    [joke bread]
    happy: I tried to bake my own bread from a video.
    neutral: Was it any good?
    happy*: The birds brought it back.

The word before the colon is the speaker's emotion; a mark after it says what the line does:
`*` a punchline, to be laughed at; `#` the news, good or bad; `!` interrupts the partner.
A `sequel` belongs to the news of the same name and comes later in the conversation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

EMOTIONS = ("neutral", "happy", "sad", "surprised", "concerned", "angry")
KINDS = ("small", "story", "joke", "bad", "good", "sequel")
SPLITS = ("train", "test")
HEADER = re.compile(r"\[(\w+) (.+)\]")
LINE = re.compile(r"(\w+)([*#!]?): (.+)")


@dataclass(frozen=True)
class Line:
    """What one person says in one turn, in which emotion, and what it does."""

    emotion: str
    text: str
    punchline: bool = False
    news: bool = False
    interrupts: bool = False


@dataclass(frozen=True)
class Topic:
    """Lines of two people in turns. `kind` is one of KINDS; small talk has no name."""

    kind: str
    name: str
    lines: tuple[Line, ...]

    @property
    def teller(self) -> int:
        """Who has the news: 0, who begins, or 1."""
        return next((i for i, line in enumerate(self.lines) if line.news), 0) % 2


def parse_line(text: str) -> Line:
    """One line of the files; raises ValueError if it is none."""
    match = LINE.fullmatch(text)
    if match is None or match[1] not in EMOTIONS:
        raise ValueError(
            f"dialogue line: got {text!r}, expected 'emotion: what is said' with an emotion of "
            f"{', '.join(EMOTIONS)}, perhaps followed by one of * # !"
        )
    mark = match[2]
    return Line(match[1], match[3], mark == "*", mark == "#", mark == "!")


def parse_topics(text: str) -> tuple[Topic, ...]:
    """All topics of a file."""
    topics = []
    for block in re.split(r"\n\s*\n", text.strip()):
        rows = block.splitlines()
        header = HEADER.fullmatch(rows[0])
        kind, name = (header[1], header[2]) if header else ("small", "")
        if kind not in KINDS:
            raise ValueError(f"dialogue topic: got kind {kind!r}, expected one of {KINDS}")
        lines = tuple(parse_line(row) for row in rows[1 if header else 0 :])
        topics.append(Topic(kind, name, lines))
    return tuple(topics)


@cache
def topics(split: str) -> tuple[Topic, ...]:
    """The topics of "train" or "test"."""
    return parse_topics((Path(__file__).parent / f"talk_{split}.txt").read_text("utf-8"))
