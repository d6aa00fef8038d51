"""Measurements: every number in the README comes from a command in here."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1] / "model_repository"  # what is measured, unless told
RESULTS = Path(__file__).parent / "results"
