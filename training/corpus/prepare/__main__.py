"""Prepare recorded conversations: `python -m training.corpus.prepare SOURCE --from folder`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.corpus.prepare import dualtalk, folder, report, run, seamless, vico
from training.corpus.prepare.conversation import Settings


class Layout(StrEnum):
    """Whose data it is."""

    folder = "folder"
    dualtalk = "dualtalk"
    vico = "vico"
    seamless = "seamless"


FINDERS = {
    Layout.folder: folder.find,
    Layout.dualtalk: dualtalk.find,
    Layout.vico: vico.find,
    Layout.seamless: seamless.find,
}
HELP = f"""Prepare recorded two-person conversations for training; continues a stopped run.

A folder of one's own recordings: {folder.RULE}. Both files start at the same time. A sound file
beside a video (NAME_a.wav) takes the place of its sound; transcripts are NAME_a.srt, .vtt or .json,
or NAME.json for both. Any format that FFmpeg reads. Folders SOURCE/train and SOURCE/test are the
splits; keep each person in one of them.
"""


def main(
    source: Annotated[Path, typer.Argument(help="Folder of the recordings or the data set.")],
    layout: Annotated[Layout, typer.Option("--from", help="How SOURCE is laid out.")],
    out: Annotated[Path, typer.Option(help="Folder for the prepared conversations.")],
    size: Annotated[int, typer.Option(help="Pixels a side of the face crops.")] = 256,
    shortest_s: Annotated[float, typer.Option(help="Shorter stretches are dropped.")] = 4.0,
    longest_s: Annotated[float, typer.Option(help="Longer stretches are divided.")] = 300.0,
    loudness_lufs: Annotated[float, typer.Option(help="Loudness that voices get.")] = -23.0,
    workers: Annotated[int, typer.Option(help="Parallel processes.")] = 2,
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # inherited by the processes, which fill the cores
    try:
        settings = Settings(size, shortest_s, longest_s, loudness_lufs)
        if not source.is_dir():
            raise ValueError(f"{source}: got no folder there, expected one; check the path")
        finding = FINDERS[layout](source)
        if not finding.sources and not finding.dropped:
            raise ValueError(f"{source}: got nothing of the layout {layout}; {_expected(layout)}")
        outcomes = run.prepare_all(finding.sources, out, settings, workers)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    report.write(out / "report.json", outcomes, finding.dropped, settings)
    report.show(Console(), outcomes, finding.dropped)
    typer.echo(f"{out / 'report.json'}")
    if not any(outcome.kept for outcome in outcomes):
        raise typer.Exit(code=1)


def _expected(layout: Layout) -> str:
    module = {Layout.dualtalk: dualtalk, Layout.vico: vico, Layout.seamless: seamless}.get(layout)
    return folder.RULE if module is None else f"expected:\n{(module.__doc__ or '').strip()}"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(help=HELP)(main)
    app()
