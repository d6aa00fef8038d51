"""This is where a model reads what Triton tells it when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis import config as configs
from visavis.config import EchoConfig


def parameters(model_config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a model's config."""
    return {name: value["string_value"] for name, value in model_config["parameters"].items()}


def size(args: Mapping[str, str]) -> EchoConfig:
    """What the repository holds, from the `args` of a Python model's `initialize`."""
    return configs.load(EchoConfig, Path(args["model_repository"]).parent / "config.json")
