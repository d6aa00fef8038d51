"""Figures as text."""

import io

import pytest
from rich.console import Console

from benchmarks.tables import in_markdown, in_terminal, said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002010, "0.00201"),
        (139.89, "140"),
        (4682.03, "4682"),
        (-18645.8, "-18646"),
        (3, "3"),
        (float("nan"), "–"),
        (None, "–"),
        (True, "yes"),
        ("words", "words"),
    ],
)
def test_a_figure_has_three_digits_and_no_exponent(value, text):
    assert said(value) == text


ROWS = [{"way": "lock-step", "block_p99_ms": 154.4}, {"way": "one by one", "block_p99_ms": None}]


def test_a_page_has_the_names_as_they_are():
    assert in_markdown(ROWS).splitlines() == [
        "| way | block_p99_ms |",
        "| --- | ---: |",
        "| lock-step | 154 |",
        "| one by one | – |",
    ]


def test_a_narrow_terminal_shows_every_name_whole():
    shown = io.StringIO()
    Console(file=shown, width=30).print(in_terminal(ROWS, "tiny"))
    for word in ("block", "p99", "ms", "lock-step", "one by one", "154", "–"):
        assert word in shown.getvalue()
