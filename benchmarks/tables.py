"""This is where figures become text: a table for a terminal, or for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from visavis import markdown

Row = Mapping[str, object]


def said(value: object) -> str:
    """A value as it is read: three digits of a figure, – for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:  # not-a-number
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def in_terminal(rows: Sequence[Row], title: str | None = None) -> Table:
    """Rows of equal keys, which head the columns."""
    table = Table(title=title, show_lines=any(len(said(v)) > 40 for v in rows[0].values()))
    for name, first in rows[0].items():
        words = isinstance(first, str)
        # Of a name in one word, a narrow terminal would show the beginning alone.
        table.add_column(
            name.replace("_", " "), justify="left" if words else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(said, row.values()))
    return table


def in_markdown(rows: Sequence[Row]) -> str:
    """The same for a page."""
    names = list(rows[0])
    return markdown.table(names, [[said(row.get(name)) for name in names] for row in rows])
