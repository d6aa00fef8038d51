"""This is where a model's config is found and read, as Triton does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig  # type: ignore[attr-defined]

CONFIGS = "configs"


def config_path(model: Path, config_name: str | None = None) -> Path:
    """The file that describes the model in the folder `model`.

    With `config_name`, as in `--model-config-name`, `configs/<config_name>.pbtxt` where there is
    one.
    """
    named = model / CONFIGS / f"{config_name}.pbtxt"
    return named if config_name and named.is_file() else model / "config.pbtxt"


def config_names(repository: Path) -> list[str]:
    """Every name under which some model of a repository has another config."""
    return sorted({path.stem for path in repository.glob(f"*/{CONFIGS}/*.pbtxt")})


def read(path: Path) -> dict[str, Any]:
    """A config as Triton hands it to a backend."""
    parsed = text_format.Parse(path.read_text(), ModelConfig())
    return json_format.MessageToDict(parsed, preserving_proto_field_name=True)
