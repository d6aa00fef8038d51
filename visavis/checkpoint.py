"""This is where weights meet their description: a checkpoint is a folder.

    config.json        the network's config, for ECHO's the EchoConfig of the size
    model.safetensors  the weights
    manifest.json      which network, trained how far, at which revision, measured how

Arrays are numpy's, so that reading one needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

from visavis import config as configs
from visavis.config import EchoConfig
from visavis.contract import CONTRACT_VERSION

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
SAVED = ("network", "contract_version", "revision", "parameters", "sha256")  # in every manifest


class CheckpointError(ValueError):
    """A folder that is no checkpoint, or not the one that was asked for."""


ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Checkpoint(Generic[ConfigT]):
    """A checkpoint in memory. `weights` maps parameter names to arrays."""

    network: str
    config: ConfigT
    weights: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it and `save` cannot know again: steps, metrics, origin, …"""
        return {name: fact for name, fact in self.manifest.items() if name not in SAVED}


def save(
    folder: str | Path,
    network: str,
    config: Any,
    weights: Mapping[str, np.ndarray],
    **facts: Any,
) -> Path:
    """Write a checkpoint folder.

    `config` is a dataclass, for ECHO's networks an EchoConfig; `facts` (steps, metrics, licence, …)
    go into the manifest.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(weights.items())}
    save_file(arrays, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(configs.to_json(config))
    manifest = {
        "network": network,
        "contract_version": CONTRACT_VERSION,
        "revision": _revision(),
        "parameters": int(sum(array.size for array in arrays.values())),
        "sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
        **facts,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    return folder


def load(folder: str | Path, network: str | None = None) -> Checkpoint[EchoConfig]:
    """One of ECHO's networks; CheckpointError when it is none, damaged, or another network's."""
    return load_as(EchoConfig, folder, network)


def load_as(
    cls: type[ConfigT], folder: str | Path, network: str | None = None
) -> Checkpoint[ConfigT]:
    """Like `load`, for a network whose config is a `cls`."""
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: got no {name}, expected a checkpoint folder with {CONFIG_FILE}, "
                f"{WEIGHTS_FILE} and {MANIFEST_FILE}; train one or give another folder"
            )
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    if network is not None and manifest["network"] != network:
        raise CheckpointError(
            f"{folder}: got the network {manifest['network']!r}, expected {network!r}; "
            "give the folder of that network"
        )
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    if digest != manifest["sha256"]:
        raise CheckpointError(
            f"{folder}/{WEIGHTS_FILE}: got sha256 {digest[:12]}…, expected "
            f"{manifest['sha256'][:12]}…; the file is damaged, copy or train it again"
        )
    return Checkpoint(
        manifest["network"],
        configs.load(cls, folder / CONFIG_FILE),
        load_file(folder / WEIGHTS_FILE),
        manifest,
    )


def _revision() -> str:
    """The git revision of the running code, or "unknown" outside a checkout."""
    try:
        output = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return output.stdout.strip()
