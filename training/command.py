"""This is where a trainer's command is run: settings from a file, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from visavis import checkpoint
from visavis import config as configs

SettingsT = TypeVar("SettingsT")

Start = Annotated[Path | None, typer.Option("--from", help="A checkpoint to begin with.")]
Stream = Annotated[str, typer.Option(help="Shards to draw from; see training.streaming.")]


def run_trainer(
    kind: type[SettingsT], config: Path, threads: int, train: Callable[[SettingsT], Path]
) -> None:
    """Train with the settings of class `kind` in the file `config`; prints the checkpoint's
    manifest, whose folder `train` returns."""
    torch.set_num_threads(threads)
    folder = train(configs.load(kind, config))
    print(json.dumps(json.loads((folder / checkpoint.MANIFEST_FILE).read_text()), indent=2))
