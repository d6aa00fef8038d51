"""This is where DualTalk's clips are found (arXiv 2505.18096; the data are Apache-2.0).

    {train,test,ood}/<video>_sub_video_<k>[_<nnn>]_speaker{1,2}.{npz,wav}

The pairing by `speaker1` and `speaker2` is that of `dataset_train.py` in the authors' code
(copy read: Ruthless338/DualTalk@5ed7187). An npz has FLAME's parameters at 25 frames/s:
`exp` (T, 50) and `pose` (T, 6), whose first three are the neck's rotation and last three the
jaw's; the rest (`shape`, `tex`, `cam`, `light`) belongs to the renderer. The wav is 16 kHz mono
float. There is no video. Speaker 1 is a, speaker 2 is b.

One conversation, `12XM5_1lyrc`, has clips in both train and test, so test is not free of people
from train; only ood is.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from training.corpus.prepare.source import Dropped, Finding, Recording, Source

SPLITS = ("train", "test", "ood")
_CLIP = re.compile(r"(?P<name>.+)_speaker[12]")


def find(root: Path) -> Finding:
    """The pairs of clips below a folder with the splits."""
    finding = Finding()
    for split in SPLITS:
        names: dict[str, None] = {}  # a set that keeps its order
        for path in sorted((root / split).glob("*.npz")):
            if match := _CLIP.fullmatch(path.stem):
                names[match["name"]] = None
            else:
                finding.dropped[f"{split}/{path.stem}"] = (
                    f"got {path.name}, expected a name that ends in _speaker1.npz or _speaker2.npz"
                )
        for name in names:
            stems = [root / split / f"{name}_speaker{speaker}" for speaker in "12"]
            wanted = [stem.with_name(stem.name + end) for stem in stems for end in (".npz", ".wav")]
            missing = [path.name for path in wanted if not path.exists()]
            if missing:
                finding.dropped[f"{split}/{name}"] = f"missing: {', '.join(missing)}"
            else:
                a, b = map(_recording, stems)
                finding.sources.append(Source(name, split, a, b))
    return finding


def _recording(stem: Path) -> Recording:
    return Recording(
        person=stem.name,
        audio=stem.with_name(stem.name + ".wav"),
        motion=stem.with_name(stem.name + ".npz"),
    )


def read_motion(path: Path) -> np.ndarray:
    """(T, 56) float32: expression 50, jaw 3, neck 3, in the order that TIMAR's tokens have."""
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"exp", "pose"} - set(arrays.files)
        if missing:
            raise Dropped(f"{path.name}: got {arrays.files}, expected also {sorted(missing)}")
        expression, pose = arrays["exp"], arrays["pose"]
    frames = len(expression)
    if expression.shape != (frames, 50) or pose.shape != (frames, 6):
        raise Dropped(
            f"{path.name}: got exp {expression.shape} and pose {pose.shape}, expected (T, 50) and "
            "(T, 6)"
        )
    motion = np.concatenate([expression, pose[:, 3:], pose[:, :3]], axis=1).astype(np.float32)
    if not np.isfinite(motion).all():
        raise Dropped(f"{path.name}: got parameters that are not finite")
    return motion
