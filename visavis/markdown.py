"""This is where facts and tables are written for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def listed(facts: Mapping[str, object]) -> str:
    """The line that heads a page: under which circumstances it was measured."""
    return ", ".join(f"{name}: {fact}" for name, fact in facts.items())


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column, of names, to the left, all others to the right."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, aligned, *lines))
