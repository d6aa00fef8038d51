"""Measurements: every number in the README comes from a command in here."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1] / "model_repository"  # what is measured, unless told
RESULTS = Path(__file__).parent / "results"


def served_name(size: str, config_name: str | None) -> str:
    """What a result is called that is of a size as one configuration serves it: `nano`,
    `nano_int8`."""
    return f"{size}_{config_name}" if config_name else size
