"""This is where files and folders are written that a killed run must not leave half done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")


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


def kept(path: Path, measured: Callable[[], Measured]) -> Measured:
    """What was measured once and is kept in `path`, whole or not at all."""
    if not path.exists():
        found = measured()
        # Not `whole`: processes that do a seed each may measure the same baselines at once.
        partial_path = path.with_suffix(f".{os.getpid()}")
        partial_path.write_text(json.dumps(found, indent=2) + "\n")
        partial_path.rename(path)
    return json.loads(path.read_text())
