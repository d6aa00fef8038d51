"""This is where files and folders are written that a killed run must not leave half done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another path, to be written in the place of `path`, which it becomes when nothing fails.

    It lies beside `path`, hidden, with the same suffix; parents are made, and what a killed run
    left there is gone. Nothing takes the place of a folder that is not empty: OSError.
    """
    partial = path.with_name(f".{path.name}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)
    yield partial
    partial.replace(path)
