"""This is where transcripts are read: subtitles, our own JSON, and Seamless Interaction's.

`.srt` and `.vtt` hold one person's words (pysubs2, MIT). Our JSON is a list of
`{"text", "start_s", "end_s"}`, with `"speaker": "a"` or `"b"` when it is of both people, and
`"emotion"` where it is known. Seamless Interaction's is an object with `metadata:transcript`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysubs2
from pysubs2.exceptions import Pysubs2Error

from training.corpus.prepare.source import PEOPLE, SUBTITLES, Dropped, Source
from visavis.affect import EMOTIONS
from visavis.config import FRAME_RATE_HZ

SHAPE = '{"text", "start_s", "end_s"} and, of two people, "speaker": "a" or "b"'


@dataclass(frozen=True)
class Line:
    """What a person says, and when. emotion is None where nobody knows it."""

    speaker: str
    text: str
    start_s: float
    end_s: float
    emotion: str | None = None


def read(source: Source) -> list[Line] | None:
    """All lines of a conversation in order of time; None when there is no transcript."""
    lines: list[Line] | None = None
    for person, path in [("", source.transcript), *((p, source[p].words) for p in PEOPLE)]:
        found = None if path is None else _read_file(path, person)
        if found is not None:
            lines = [*(lines or []), *found]
    return lines and sorted(lines, key=lambda line: line.start_s)


def rows(lines: Sequence[Line], start: int, end: int) -> list[dict[str, Any]]:
    """The turns of frames `start` to before `end` as `truth.npz` has them, frames from 0."""
    turns = []
    for line in lines:
        first = math.floor(line.start_s * FRAME_RATE_HZ)
        last = math.ceil(line.end_s * FRAME_RATE_HZ)
        if last > start and first < end:
            turn = {
                "speaker": line.speaker,
                "text": line.text,
                "start_frame": max(first, start) - start,
                "end_frame": min(last, end) - start,
            }
            turns.append(turn if line.emotion is None else turn | {"emotion": line.emotion})
    return turns


def _read_file(path: Path, person: str) -> list[Line] | None:
    if path.suffix.lower() in SUBTITLES:
        return _subtitles(path, person)
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise Dropped(f"{path.name}: cannot be read as JSON ({error}); mend it") from error
    if isinstance(entries, dict):
        seamless = entries.get("metadata:transcript")
        return seamless and [
            _line(f"{path.name}, line {n}", person, line, "transcript", "start", "end")
            for n, line in enumerate(seamless)
        ]
    if not isinstance(entries, list):
        raise Dropped(f"{path.name}: got a {type(entries).__name__}, expected a list of {SHAPE}")
    return [_line(f"{path.name}, line {n}", person, line) for n, line in enumerate(entries)]


def _subtitles(path: Path, person: str) -> list[Line]:
    try:
        events = pysubs2.load(str(path), encoding="utf-8-sig").events
    except (Pysubs2Error, UnicodeDecodeError) as error:
        raise Dropped(f"{path.name}: cannot be read as subtitles ({error}); mend it") from error
    return [Line(person, e.plaintext, e.start / 1000, e.end / 1000) for e in events if e.plaintext]


def _line(
    place: str,
    person: str,
    entry: Any,
    text: str = "text",
    start: str = "start_s",
    end: str = "end_s",
) -> Line:
    try:
        speaker = person or entry["speaker"]
        line = Line(
            speaker, str(entry[text]), float(entry[start]), float(entry[end]), entry.get("emotion")
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Dropped(f"{place}: got {entry!r}, expected {SHAPE}") from error
    if speaker not in PEOPLE or line.end_s < line.start_s:
        raise Dropped(f"{place}: got {entry!r}, expected {SHAPE} with start_s before end_s")
    if line.emotion is not None and line.emotion not in EMOTIONS:
        raise Dropped(
            f"{place}: got emotion {line.emotion!r}, expected one of {', '.join(EMOTIONS)}"
        )
    return line
