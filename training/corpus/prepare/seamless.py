"""This is where Seamless Interaction's conversations are found (CC-BY-NC-4.0).

    {improvised,naturalistic}/{train,dev,test}/<batch>/<archive>/
        V<vendor>_S<session>_I<interaction>_P<participant>.{mp4,wav,json,npz}

One file a participant, 1080p at 30 frames/s and 48 kHz; two participants share an interaction.
This is how the data set's own downloader leaves extracted archives and single files alike
(facebookresearch/seamless_interaction: src/seamless_interaction/fs.py @866a238, README.md
@089daf2, FILE_ID_REGEX in constants.py). A participant's number may have a letter behind it, as
public code that reads the data shows.

The json has `metadata:vad` and, for some, `metadata:transcript` (fs.py). That an interval is
`{"start", "end"}` in seconds and a line `{"start", "end", "transcript", "words"}` is not said in
the official code; independent public readers of the data agree on it. The features in the npz are
not used: what training needs is measured on the crops as for all other data.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from training.corpus.prepare.source import Finding, Recording, Source

_FILE_ID = re.compile(r"(?P<interaction>V\d+_S\d+_I\d+)_(?P<participant>P\d+[A-Z]?)")
_SUFFIXES = (".mp4", ".wav")


def find(root: Path) -> Finding:
    """The interactions below a folder; the split is the folder train, dev or test."""
    finding = Finding()
    people: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for path in sorted(root.rglob("V*_S*_I*_P*")):
        match = _FILE_ID.fullmatch(path.stem)
        if match and path.suffix in (*_SUFFIXES, ".json"):
            split = next((part for part in path.parts if part in ("train", "dev", "test")), "train")
            people[split, match["interaction"]][match["participant"]] = path.with_suffix("")
    for path in sorted(root.rglob("*.tar")):
        finding.dropped[str(path.relative_to(root))] = "an archive; extract it first"
    for (split, name), stems in people.items():
        missing = [
            stem.name + suffix
            for stem in stems.values()
            for suffix in _SUFFIXES
            if not stem.with_suffix(suffix).exists()
        ]
        if len(stems) != 2:
            finding.dropped[f"{split}/{name}"] = (
                f"got {len(stems)} participants ({', '.join(stems)}), expected 2"
            )
        elif missing:
            finding.dropped[f"{split}/{name}"] = f"missing: {', '.join(missing)}"
        else:
            a, b = (_recording(*item) for item in sorted(stems.items()))
            finding.sources.append(Source(name, split, a, b))
    return finding


def _recording(participant: str, stem: Path) -> Recording:
    notes = stem.with_suffix(".json")
    return Recording(
        person=participant,
        video=stem.with_suffix(".mp4"),
        audio=stem.with_suffix(".wav"),
        words=notes if notes.exists() else None,
        activity=notes if notes.exists() else None,
    )
