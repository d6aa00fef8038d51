"""This is where rows become tables and plots that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from training.measures.figures import BY_NAME, GROUPS, Figure
from training.measures.lip_sync import MAX_OFFSET
from training.measures.observation import Observation
from visavis.config import FRAME_RATE_HZ
from visavis.markdown import listed, table

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

Rows = Mapping[str, Mapping[str, float]]
ABSENT = "–"

# What the overview shows, one panel each.
OVERVIEW = (
    "mouth_r",
    "closure_pbm",
    "lip_sync_confidence",
    "identity_distance",
    "ssim",
    "fd_effnetlite0",
    "emotion_agreement",
    "reaction_r",
    "fd_exp",
    "velocity_fd_exp",
    "sid_pooled_exp",
    "variance_pose",
)


def markdown(rows: Rows, missing: Mapping[str, str], facts: Mapping[str, object]) -> str:
    """One table a group, one row a system, what figures mean, and what was not measured and why."""
    parts = ["# Evaluation", listed(facts)]
    for group, figures in GROUPS.items():
        known = [figure for figure in figures if any(figure.name in row for row in rows.values())]
        if known:
            parts.append(f"## {group}\n\n{_table(known, rows)}\n\n{_legend(known)}")
    if missing:
        reasons = "\n".join(f"- `{figure}`: {reason}" for figure, reason in missing.items())
        parts.append(f"## Not measured\n\n{reasons}")
    return "\n\n".join(parts) + "\n"


def plot_overview(rows: Rows, path: Path) -> None:
    """Bars of the most telling figures, one panel each, a bar a system."""
    names = [name for name in OVERVIEW if any(name in row for row in rows.values())]
    columns = 4
    shape = (-(-len(names) // columns), columns)
    figure, axes = plt.subplots(*shape, figsize=(15, 0.6 + 2.6 * shape[0]), squeeze=False)
    colors = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for axis, name in zip(axes.flat, names, strict=False):
        values = [row.get(name, np.nan) for row in rows.values()]
        axis.barh(range(len(rows)), values, color=[colors[n % 10] for n in range(len(rows))])
        axis.set_yticks(range(len(rows)), list(rows) if axis in axes[:, 0] else [])
        axis.invert_yaxis()
        axis.set_title(f"{name}  {BY_NAME[name].better}", fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    save_plot(figure, path)


def plot_apertures(
    truth: Sequence[Observation],
    systems: Mapping[str, Sequence[Observation]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Measured mouth apertures over time, a panel a track, the truth's behind."""
    figure, axes = plt.subplots(len(names), figsize=(12, 0.6 + 2 * len(names)), squeeze=False)
    for n, (axis, name) in enumerate(zip(axes[:, 0], names, strict=True)):
        time = np.arange(len(truth[n].apertures)) / FRAME_RATE_HZ
        axis.fill_between(time, truth[n].apertures, color="0.85", label="ground_truth")
        for system, seen in systems.items():
            axis.plot(time, seen[n].apertures, linewidth=1, label=system)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel("aperture / face height", fontsize=8)
        axis.set_xlim(0, time[-1])
    axes[-1, 0].set_xlabel("s")
    axes[0, 0].legend(fontsize=8, loc="upper right")
    save_plot(figure, path)


def plot_lip_sync(systems: Mapping[str, Sequence[Observation]], path: Path) -> bool:
    """Mean distance of lips and voice over offsets, a line a system; False without a scorer."""
    curves = {
        system: np.mean([o.lips.curve for o in seen if o.lips is not None], axis=0)
        for system, seen in systems.items()
        if any(o.lips is not None for o in seen)
    }
    if not curves:
        return False
    figure, axis = plt.subplots(figsize=(8, 4.5))
    for system, curve in curves.items():
        axis.plot(range(-MAX_OFFSET, MAX_OFFSET + 1), curve, marker=".", label=system)
    axis.set_xticks(range(-MAX_OFFSET, MAX_OFFSET + 1, 2))
    axis.set_xlabel("offset in frames of 40 ms (positive: lips late)")
    axis.set_ylabel("mean distance of embeddings")
    axis.legend(fontsize=8)
    save_plot(figure, path)
    return True


def _table(figures: Sequence[Figure], rows: Rows) -> str:
    head = ["system", *(f"{figure.name} {figure.better}".strip() for figure in figures)]
    lines = [[name, *(_cell(row, figure) for figure in figures)] for name, row in rows.items()]
    return table(head, lines)


def _legend(figures: Sequence[Figure]) -> str:
    """The meaning of each, once for figures that share it."""
    names: dict[str, list[str]] = {}
    for figure in figures:
        names.setdefault(figure.meaning, []).append(f"`{figure.name}`")
    return "\n".join(f"- {', '.join(same)}: {meaning}" for meaning, same in names.items())


def _cell(row: Mapping[str, float], figure: Figure) -> str:
    return f"{row[figure.name]:z.{figure.digits}f}" if figure.name in row else ABSENT


def save_plot(figure: plt.Figure, path: Path) -> None:  # type: ignore[name-defined]
    """Write a plot as a picture, and let go of it."""
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
