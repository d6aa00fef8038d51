"""This is where an ablation becomes a table beside ECHO's, and plots.

Results are rows of figures, by variant and seed. Runs of one seed have their stage 1, their batches
and their lots in common, and seeds differ from each other by more than variants do; so a variant is
compared with the full network of the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from training.measures.figures import BY_NAME
from training.measures.report import ABSENT, save_plot
from visavis import record
from visavis.markdown import listed, table

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # after its backend is chosen

Row = Mapping[str, float]
Results = Mapping[str, Mapping[int, Row]]
FULL = "full"

# ECHO's table (arXiv 2603.17427, main and ablation results) in our nearest figures. They are other
# measures on other data: only the sign of a difference to the full network compares.
PAPER: Mapping[str, Mapping[str, float]] = {
    name: dict(
        zip(
            (
                "rpcc_exp",
                "sid_pooled_exp",
                "variance_exp",
                "fd_effnetlite0",
                "identity_similarity",
                "lip_sync_distance",
                "lip_sync_confidence",
            ),
            values,
            strict=True,
        )
    )
    for name, values in {
        FULL: (0.109, 2.631, 1.543, 19.877, 0.825, 7.899, 6.701),
        "without LPE": (0.131, 2.392, 1.316, 20.864, 0.816, 7.925, 6.691),
        "without HBCU": (0.129, 2.499, 1.397, 20.518, 0.820, 7.908, 6.683),
        "without LAU": (0.124, 2.558, 1.486, 20.083, 0.827, 7.914, 6.689),
        "without SDCM": (0.119, 2.601, 1.519, 21.857, 0.809, 8.009, 6.572),
    }.items()
}
# What the paper does not have, and says more of this corpus.
OURS = (
    *("mouth_r", "mouth_amplitude", "user_swap_speaking"),
    *("emotion_agreement", "reaction_r", "rpcc_pose"),
)


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and standard deviation over seeds; None where there is nothing."""
    if not values:
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def figures_of(rows: Mapping[int, Row], name: str) -> list[float]:
    """A figure of every seed; nothing where a run has none."""
    values = [row[name] for row in rows.values() if name in row]
    return values if len(values) == len(rows) else []


def differences(results: Results, name: str, figure: str) -> list[float]:
    """A figure of a variant less the full network's, for every seed that both were run under."""
    rows, full = results[name], results[FULL]
    both = [seed for seed in rows if figure in rows[seed] and figure in full.get(seed, {})]
    return [rows[seed][figure] - full[seed][figure] for seed in both]


def agreement(results: Results, name: str, figure: str) -> str:
    """Whether a variant differs from the full network as in the paper.

    "=" the same sign, "≠" the other, "~" a mean difference within its spread over seeds; empty
    where the paper says nothing.
    """
    if figure not in PAPER.get(name, {}) or name == FULL:
        return ""
    found = spread(differences(results, name, figure))
    if found is None:
        return ""
    difference, deviation = found
    if abs(difference) <= deviation:
        return "~"
    theirs = PAPER[name][figure] - PAPER[FULL][figure]
    return "=" if difference * theirs > 0 else "≠"


def known(results: Results) -> list[str]:
    """The figures that some run has, in the order in which they are shown."""
    rows = [row for found in results.values() for row in found.values()]
    return [name for name in (*PAPER[FULL], *OURS) if any(name in row for row in rows)]


def ages_of(results: Results) -> dict[str, int]:
    """How many seconds of listening there are of every age of the latest news."""
    row, prefix = next(iter(results[FULL].values())), "reach_count_"
    return {n.removeprefix(prefix): int(row[n]) for n in row if n.startswith(prefix)}


def markdown(results: Results, others: Mapping[str, Row], facts: Mapping[str, object]) -> str:
    """A row a variant, mean ± deviation over seeds, the paper's differences and what is what."""
    names = known(results)
    head = ["", *(f"{name} {BY_NAME[name].better}".strip() for name in names)]
    lines = [
        [system, *(f"{row[n]:z.3f}" if n in row else ABSENT for n in names)]
        for system, row in others.items()
    ]
    for name, found in results.items():
        cells = []
        for figure in names:
            over_seeds = spread(figures_of(found, figure))
            mark = agreement(results, name, figure)
            cells.append(
                ABSENT
                if over_seeds is None
                else f"{over_seeds[0]:z.3f} ± {over_seeds[1]:.3f} {mark}".strip()
            )
        lines.append([name, *cells])
    marks = (
        "`=` the difference to the full network of the same seed has the sign of ECHO's table, `≠` "
        "it has the other, `~` its mean is within its spread over seeds."
    )
    legend = "\n".join(f"- `{name}`: {BY_NAME[name].meaning}" for name in names)
    return "\n\n".join(["# Ablation", listed(facts), table(head, lines), marks, legend]) + "\n"


def plot(results: Results, others: Mapping[str, Row], path: Path) -> None:
    """A panel a figure: every seed a dot, the mean a bar, other systems dotted lines."""
    names = known(results)
    columns = 4
    shape = (-(-len(names) // columns), columns)
    figure, axes = plt.subplots(*shape, figsize=(15, 0.6 + 2.6 * shape[0]), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for place, found in enumerate(results.values()):
            values = [row.get(name, np.nan) for row in found.values()]
            axis.barh(place, np.mean(values), color="0.8")
            axis.plot(values, [place] * len(values), "o", color="C0", markersize=4)
        for n, (system, row) in enumerate(others.items()):
            if name in row:
                axis.axvline(row[name], color=f"C{n + 1}", linestyle=":", label=system)
        axis.set_yticks(range(len(results)), list(results) if axis in axes[:, 0] else [])
        axis.invert_yaxis()
        axis.set_title(f"{name}  {BY_NAME[name].better}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0, 0].legend(fontsize=7)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    save_plot(figure, path)


def plot_reach(results: Results, path: Path) -> None:
    """Likeness of listening faces by how far back lie the latest news: a line a variant."""
    ages = ages_of(results)
    figure, axis = plt.subplots(figsize=(8, 4.5))
    for name, found in results.items():
        if not any(figures_of(found, f"reach_{age}") for age in ages):
            continue
        reached = [spread(figures_of(found, f"reach_{age}")) or (np.nan, np.nan) for age in ages]
        means, deviations = (np.array(side) for side in zip(*reached, strict=True))
        axis.errorbar(range(len(ages)), means, deviations, marker="o", capsize=3, label=name)
    labels = [f"{age}{' s' * age[0].isdigit()}\n{count} s" for age, count in ages.items()]
    axis.set_xticks(range(len(ages)), labels, fontsize=8)
    axis.set_xlabel("how far back lie the latest news; how many seconds of listening there are")
    axis.set_ylabel("likeness of listening faces to the true ones, r")
    axis.legend(fontsize=8)
    save_plot(figure, path)


def write(
    out: Path, results: Results, others: Mapping[str, Row], facts: Mapping[str, object]
) -> str:
    """All figures, the table and the plots of what is finished; returns the table."""
    record.write(
        out / "ablation.json",
        "ablation",
        settings=facts,
        summary={"others": others, "paper": PAPER},
        raw=results,
    )
    page = markdown(results, others, facts)
    (out / "ablation.md").write_text(page)
    plot(results, others, out / "ablation.png")
    if ages_of(results):
        plot_reach(results, out / "reach.png")
    return page
