"""This is where it is said what was kept, what was dropped and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.corpus.prepare.conversation import Outcome, Settings

_LISTED = 20  # dropped conversations that are named on the screen; all are in report.json


def summary(outcomes: Sequence[Outcome], unfit: Mapping[str, str]) -> dict[str, object]:
    """The totals: conversations, folders, seconds, and what was lost by reason.

    unfit: what the layout's reader could not make a conversation of, with reasons.
    """
    lost: Counter[str] = Counter()
    for outcome in outcomes:
        lost.update(dict(outcome.lost_s))
    kept = [kept for outcome in outcomes for kept in outcome.kept]
    return {
        "conversations_kept": sum(bool(outcome.kept) for outcome in outcomes),
        "conversations_dropped": sum(not outcome.kept for outcome in outcomes) + len(unfit),
        "folders": len(kept),
        "seconds_kept": round(sum(k.seconds for k in kept), 2),
        "seconds_speaking": round(sum(s for k in kept for s in k.speaking_s.values()), 2),
        "seconds_lost_of_the_kept": {why: round(s, 2) for why, s in lost.most_common()},
    }


def write(
    path: Path, outcomes: Sequence[Outcome], unfit: Mapping[str, str], settings: Settings
) -> None:
    """Everything as JSON."""
    report = {
        "settings": asdict(settings),
        "summary": summary(outcomes, unfit),
        "conversations": [asdict(outcome) for outcome in outcomes],
        "not_conversations": dict(unfit),
    }
    path.write_text(json.dumps(report, indent=2))


def show(console: Console, outcomes: Sequence[Outcome], unfit: Mapping[str, str]) -> None:
    """The totals, and each conversation that was dropped or is odd, as tables."""
    totals = summary(outcomes, unfit)
    lost = totals.pop("seconds_lost_of_the_kept")
    assert isinstance(lost, dict)
    table = Table("", "kept and dropped", show_header=True)
    for what, value in totals.items():
        table.add_row(what.replace("_", " "), str(value))
    for why, seconds in lost.items():
        table.add_row(escape(f"seconds lost: {why}"), str(seconds))
    console.print(table)

    rows = [(name, f"dropped: {why}") for name, why in unfit.items()]
    for outcome in outcomes:
        name = f"{outcome.split}/{outcome.name}"
        rows += [(name, f"dropped: {outcome.reason}")] if outcome.reason else []
        rows += [] if outcome.reason else [(name, note) for note in outcome.notes]
    if not rows:
        return
    remarks = Table("conversation", "remark")
    for name, remark in rows[:_LISTED]:
        remarks.add_row(escape(name), escape(remark))
    console.print(remarks)
    if len(rows) > _LISTED:
        console.print(f"... and {len(rows) - _LISTED} more in report.json")
