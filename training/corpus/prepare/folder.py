"""This is where one's own recordings are recognised by their names.

    talk1_a.mp4  talk1_b.mkv          two people, a file each, recorded at the same time
    talk2/a.mov  talk2/b.mov          the same as a folder
    talk3.mp4                         a split screen: a left or on top, b right or below

Beside each, as needed: a voice of its own in `talk1_a.wav` (or .flac, .mp3, ...) instead of the
video's sound, and a transcript in `talk1_a.srt`, `.vtt` or `.json`, or of both in `talk1.json`.
Folders named `train` and `test` directly below SOURCE are the splits; without them, all is `train`,
because only the owner knows in which recordings the same person is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from training.corpus.prepare.source import (
    AUDIO,
    PEOPLE,
    SUBTITLES,
    TEXT,
    Dropped,
    Finding,
    Recording,
    Source,
)

RULE = (
    "expected two videos NAME_a.* and NAME_b.*, or NAME/a.* and NAME/b.*, "
    "or one split-screen video NAME.*"
)
SPLITS = ("train", "test")
_OF_PERSON = re.compile(r"(?P<name>.+)[_-](?P<person>[abAB])")

Files = dict[tuple[str, str], list[Path]]  # by conversation, and person or "" for both


def find(root: Path) -> Finding:
    """The conversations of a folder."""
    finding = Finding()
    splits = [split for split in SPLITS if (root / split).is_dir()]
    for split in splits or ["train"]:
        files = _files(root / split if splits else root)
        for name in sorted({name for name, _ in files}):
            try:
                finding.sources.append(_source(name, split, files))
            except Dropped as reason:
                finding.dropped[f"{split}/{name}"] = str(reason)
    return finding


def _files(folder: Path) -> Files:
    files: Files = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            files[_key(path.relative_to(folder).with_suffix(""))].append(path)
    return files


def _key(stem: Path) -> tuple[str, str]:
    """(conversation, person or "") of a path without its suffix."""
    if stem.name.lower() in PEOPLE and len(stem.parts) > 1:
        return "_".join(stem.parts[:-1]), stem.name.lower()
    joined = "_".join(stem.parts)
    if match := _OF_PERSON.fullmatch(joined):
        return match["name"], match["person"].lower()
    return joined, ""


def _source(name: str, split: str, files: Files) -> Source:
    shared = _video(files.get((name, ""), []), name)
    own = {person: _video(files.get((name, person), []), name) for person in PEOPLE}
    found = sorted(path.name for key, paths in files.items() if key[0] == name for path in paths)
    if shared and any(own.values()):
        raise Dropped(f"got {', '.join(found)}, {RULE}, not both; rename one")
    if not shared and not all(own.values()):
        raise Dropped(f"got only {', '.join(found)}, {RULE}")

    def recording(person: str) -> Recording:
        paths = files.get((name, person), [])
        video = shared or own[person]
        return Recording(
            person=f"{name}_{person}",
            video=video,
            half=None if shared is None else (0 if person == "a" else 1),
            audio=next((path for path in paths if path.suffix.lower() in AUDIO), video),
            words=next((path for path in paths if path.suffix.lower() in TEXT), None),
        )

    both = files.get((name, ""), [])
    if any(path.suffix.lower() in SUBTITLES for path in both):
        raise Dropped(
            f"got subtitles {name}.srt or .vtt, which do not say who speaks, expected one file a "
            f"person ({name}_a.srt, {name}_b.srt) or {name}.json; rename or remove them"
        )
    transcript = next((path for path in both if path.suffix.lower() == ".json"), None)
    return Source(name, split, recording("a"), recording("b"), transcript)


def _video(paths: list[Path], name: str) -> Path | None:
    videos = [path for path in paths if path.suffix.lower() not in AUDIO | TEXT]
    if len(videos) > 1:
        names = ", ".join(path.name for path in videos)
        raise Dropped(f"got several videos ({names}) for one place of {name}, expected one")
    return videos[0] if videos else None
