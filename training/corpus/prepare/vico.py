"""This is where ViCo's clips are found (arXiv 2112.13548), in either of their two layouts.

The challenge's: `videos/<uuid>.speaker.mp4`, `videos/<uuid>.listener.mp4` (or in `videos/test/`,
where the baseline's README has them moved), `audios/<uuid>.wav`, and one `<split>.csv` with
`video_id, uuid, speaker_id, listener_id`. The full data set's: one csv with `audio`, `speaker`,
`listener` (file names without suffix), `speaker_id`, `listener_id` and `data_split`.

Read from dc3ea9f/vico_challenge_baseline: README.md @3793a4a and preprocess/convert.py @f224c65,
which turns the full layout into the challenge's. convert.py is given the full layout's folders by
hand, so their names, `videos` and `audios` here, and that of the csv are not verified.

The speaker is a, with the clip's sound; the listener is b and is silent. Clips have 30 frames/s.
"""

from __future__ import annotations

import csv
from pathlib import Path

from training.corpus.prepare.source import Finding, Recording, Source, first_that_exists

CHALLENGE = {"uuid", "speaker_id", "listener_id"}
FULL = {"audio", "speaker", "listener", "speaker_id", "listener_id", "data_split"}

Row = dict[str, str]


def find(root: Path) -> Finding:
    """The clips that the csv files of a folder list."""
    finding = Finding()
    for table in sorted(root.glob("*.csv")):
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        columns = set(rows[0]) if rows else set()
        if not (columns >= CHALLENGE or columns >= FULL):
            finding.dropped[table.name] = (
                f"got columns {sorted(columns)}, expected {sorted(CHALLENGE)} or {sorted(FULL)}"
            )
            continue
        for row in rows:
            _add(finding, root, row, split=row.get("data_split") or table.stem)
    return finding


def _add(finding: Finding, root: Path, row: Row, split: str) -> None:
    full = "uuid" not in row
    name = row["audio"] if full else row["uuid"]
    stems = {
        "speaker": row["speaker"] if full else f"{name}.speaker",
        "listener": row["listener"] if full else f"{name}.listener",
    }
    folders = (root / "videos", root / "videos" / "test")
    videos = {
        role: first_that_exists(folder / f"{stem}.mp4" for folder in folders)
        for role, stem in stems.items()
    }
    audio = first_that_exists([root / "audios" / f"{name}.wav"])
    wanted = {"audio": audio, **videos}
    missing = [what for what, path in wanted.items() if path is None]
    if missing:
        finding.dropped[f"{split}/{name}"] = f"missing: {', '.join(missing)}"
        return
    speaker = Recording(row["speaker_id"], video=videos["speaker"], audio=audio)
    listener = Recording(row["listener_id"], video=videos["listener"])
    finding.sources.append(Source(name, split, speaker, listener))
