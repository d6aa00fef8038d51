"""This is where a machine is asked whether it can serve: one check per line, each with its remedy.

python -m visavis.serving.doctor [MODEL_REPOSITORY [CONFIG_NAME]]
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visavis import config as configs
from visavis.config import EchoConfig
from visavis.contract import ModelContract, contracts
from visavis.serving.model_config import config_names, config_path, read
from visavis.serving.network import writer
from visavis.serving.providers import CPU, ProviderError, device_for, wish
from visavis.serving.server import (
    SHARED_MEMORY,
    LaunchError,
    Ports,
    binary,
    check_environment,
    free_ports,
    stub,
)

PACKAGES = (
    "anyio",
    "nvidia-pytriton",
    "onnxruntime",
    "prometheus-client",
    "psutil",
    "python-json-logger",
    "safetensors",
    "simplejpeg",
    "tritonclient",
)
SHARED_MEMORY_BYTES = 512 * 2**20  # eleven models with their regions, and room for requests


@dataclass(frozen=True)
class Check:
    """One question and its answer; `remedy` says what to do when it is not `ok`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks(
    repository: str | Path,
    host: str = "127.0.0.1",
    ports: Ports | None = None,
    config_name: str | None = None,
) -> list[Check]:
    """Everything that serving `repository` at `ports` needs of this machine.

    With `config_name`, as models are served under it.
    """
    return [
        _machine(),
        *(_package(name) for name in PACKAGES),
        _asked("server's Python", f"numpy {np.__version__}", check_environment),
        _asked("tritonserver", "executable", lambda: _check_executable(binary())),
        _asked("Python stub", "executable", lambda: _check_executable(stub())),
        _shared_memory(),
        *models(Path(repository), config_name),
        _asked("ports", "free", lambda: free_ports(host, ports or Ports(watchdog=8003))),
    ]


def _machine() -> Check:
    found = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    ok = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info >= (3, 11)
    return Check("machine", ok, found, "serve on Linux x86_64 with Python 3.11 or newer")


def _package(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", "pip install 'visavis[serve]'")


def _asked(name: str, found: str, ask: Callable[[], object]) -> Check:
    """`found`, unless `ask` raises LaunchError, whose text ends with the remedy."""
    try:
        ask()
    except LaunchError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Check(name, False, found, remedy)
    return Check(name, True, found)


def _check_executable(path: Path) -> None:
    if shutil.which(path) is None:
        raise LaunchError(
            f"{path}: got no executable, expected one; "
            "pip install --force-reinstall nvidia-pytriton"
        )


def _shared_memory() -> Check:
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    return Check(
        "shared memory",
        free >= SHARED_MEMORY_BYTES,
        f"{free / 2**20:.0f} MiB free in {SHARED_MEMORY}",
        "give it 512 MiB or more, in a container by --shm-size=2g",
    )


def models(repository: Path, config_name: str | None = None) -> Iterator[Check]:
    """The checks of a repository and its models: which file each is served from, and by what."""
    try:
        config = configs.load(EchoConfig, repository / "config.json")
    except (OSError, ValueError) as error:
        yield Check(
            "model repository",
            False,
            str(error),
            "give the folder of a model repository, or write one: python -m export.repository",
        )
        return
    yield Check("model repository", True, f"{repository} ({config.name}, {config.image_size} px)")
    if config_name is not None:
        known = config_names(repository)
        named = f"{config_name}, of {', '.join(known)}"
        yield Check("config name", config_name in known, named, "choose one of these")
    for model in contracts(config).values():
        yield _model(repository / model.name, model, config_name)


def _model(folder: Path, model: ModelContract, config_name: str | None) -> Check:
    path = config_path(folder, config_name)
    if not path.is_file():
        return Check(model.name, False, f"no {path.name}", "python -m export.repository")
    if model.kind == "ensemble":
        return Check(model.name, True, "complete")
    config = read(path)
    file = config["default_model_filename"] if model.kind == "onnx" else "model.py"
    network = folder / "1" / file
    if not network.is_file():
        remedy = f"export the networks into the repository: {writer(network)}"
        return Check(model.name, False, f"no 1/{file}", remedy)
    if model.kind != "onnx":
        return Check(model.name, True, "complete")
    try:
        accelerator = wish(config)
        if accelerator is not None:
            device_for(accelerator)
    except ProviderError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Check(model.name, False, found, remedy)
    return Check(model.name, True, f"{file} by {accelerator or CPU}")


def main() -> int:
    """Print all checks; 0 when all are ok."""
    repository = sys.argv[1] if len(sys.argv) > 1 else "model_repository"
    results = checks(repository, config_name=sys.argv[2] if len(sys.argv) > 2 else None)
    for check in results:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        if not check.ok:
            print(f"      {check.remedy}")
    return int(not all(check.ok for check in results))


if __name__ == "__main__":
    sys.exit(main())
